//! How processes enter a cgroup.

use std::os::fd::OwnedFd;

/// How a new process becomes a member.
///
/// It is cloned with CLONE_INTO_CGROUP where `clone_into` is there; then, still with one
/// thread, it writes `0` to each of `tasks` itself. A runtime that moves the child from
/// outside waits for a lock over all threads of the machine.
///
/// A cgroup namespace shows as its root where its creator *is*; so it is unshared by the child
/// after these steps, never made by the clone.
#[derive(Debug, Default)]
pub(crate) struct WayIn {
    /// For CLONE_INTO_CGROUP.
    pub(crate) clone_into: Option<OwnedFd>,
    /// Open for writing, close-on-exec.
    pub(crate) tasks: Vec<OwnedFd>,
}
