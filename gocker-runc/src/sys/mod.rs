//! The kernel, as far as nix does not reach: the one floor that may hold unsafe code.
//!
//! Functions here are short and decide nothing. Descriptors go in borrowed and come out
//! owned and close-on-exec.

pub(crate) mod bpf;
pub(crate) mod caller;
pub(crate) mod capset;
pub(crate) mod clone3;
pub(crate) mod close_range;
pub(crate) mod errno;
pub(crate) mod in_root;
pub(crate) mod keyctl;
pub(crate) mod mempolicy;
pub(crate) mod mount_api;
pub(crate) mod mount_by_path;
mod mount_flags;
pub(crate) mod netlink;
pub(crate) mod network;
pub(crate) mod nsfs;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod scheduling;
pub(crate) mod sealed_exe;
pub(crate) mod seccomp;
pub(crate) mod seqpacket;
pub(crate) mod tty;
pub(crate) mod unix_socket;
pub(crate) mod wait;
mod walk;
pub(crate) mod xattr;

pub(crate) use errno::{CallError, Called};
