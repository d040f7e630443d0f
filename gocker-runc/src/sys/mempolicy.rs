//! set_mempolicy(2), which nix lacks.
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use nix::errno::Errno;

/// Sets the calling thread's memory policy; `nodes` has a bit for each node.
///
/// See <https://man7.org/linux/man-pages/man2/set_mempolicy.2.html>.
///
/// # Errors
/// EINVAL for a mode, a flag or a node that this kernel does not know or have.
pub(crate) fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<(), Errno> {
    // The kernel reads one bit less than it is told.
    let bits = nodes.len() * 64 + 1;
    // SAFETY: the mask outlives the call, and holds as many whole words as the kernel reads.
    let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) };
    Errno::result(done).map(drop)
}
