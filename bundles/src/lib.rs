//! The OCI bundle: a directory that holds a `config.json` and, usually, a root filesystem.
//!
//! ```text
//! BUNDLE/
//!     config.json   runtime-spec, config.md
//!     rootfs/       what root.path names
//! ```
//!
//! Reading goes in two steps. [`Bundle::open`] turns the text into runtime-spec's
//! [`Spec`](oci_spec::runtime::Spec); [`config::Config`] turns that into plain values with
//! the specification's defaults applied, and refuses what contradicts itself by the name of
//! its field. Nothing here asks the kernel.
//!
//! Spec: bundle.md, config.md

#![forbid(unsafe_code)]

pub mod bundle;
pub mod config;
pub mod defaults;
pub mod validate;

pub use bundle::{Bundle, Error};
pub use validate::FieldError;
