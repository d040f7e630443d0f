//! Judges OCI runtimes and image tools from outside, as programs.
//!
//! A test names what is judged by environment variables; nothing in here knows
//! the inside of a program:
//!
//! ```text
//! RUNTIME=/usr/sbin/runc cargo nextest run -p conformance runtime::
//! GOCKER_NO_SKIP=1       a test that this machine cannot run fails
//! GOCKER_SKIPS=FILE      each skipped test appends its line to FILE
//! GOCKER_PATIENCE=5      every time limit is five times longer, on a slow machine
//! GOCKER_SYSTEMD=1       every container's cgroup is made by systemd
//! ```
#![forbid(unsafe_code)]

pub mod binaries;
pub mod command;
pub mod container;
pub mod crash_points;
pub mod gate;
pub mod host;
pub mod hostile;
pub mod http;
pub mod image_tools;
pub mod images;
pub mod leftovers;
pub mod measure;
pub mod mount_table;
pub mod namespaces;
pub mod old_kernel;
pub mod ordinary_user;
pub mod refusal;
pub mod registry;
pub mod store_root;
pub mod test_bundle;
pub mod tls_front;
pub mod tree;
pub mod umoci;

pub use binaries::{Kind, runtime};
pub use command::{Output, run_command, wait_until};
pub use container::Container;
pub use hostile::HostileRegistry;
pub use registry::Registry;
pub use store_root::StoreRoot;
pub use test_bundle::TestBundle;
pub use tls_front::TlsFront;
