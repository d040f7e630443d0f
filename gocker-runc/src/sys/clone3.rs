//! clone3(2): makes the container process. nix has only clone(2), which needs a stack and
//! cannot put the child into a cgroup.
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// Which side of the clone is running.
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The caller: the new process's id in the caller's PID namespace, and its pidfd.
    Parent {
        /// Process id.
        pid: Pid,
        /// A descriptor that means this process and no later one of the same id.
        pidfd: OwnedFd,
    },
}

/// What clone3(2) is asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct CloneArgs<'fd> {
    /// `CLONE_NEW*` flags and, for an intermediate process, `CLONE_PARENT`.
    pub(crate) flags: u64,
    /// The cgroup v2 directory in which the child begins.
    pub(crate) cgroup: Option<BorrowedFd<'fd>>,
}

/// The kernel's `struct clone_args`, version 2 (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct KernelArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `CLONE_INTO_CGROUP`, since Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Copies the calling process, as fork(2) does, with new namespaces.
///
/// # Errors
/// clone3(2)'s.
///
/// # Safety
/// The calling process has one thread: another one's locks would stay locked in the child.
pub(crate) unsafe fn clone3(args: CloneArgs<'_>) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    // With CLONE_PARENT the signal is the parent's own and must not be given.
    let parented = args.flags & cast(libc::CLONE_PARENT) != 0;
    let mut kernel = KernelArgs {
        flags: args.flags | cast(libc::CLONE_PIDFD),
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: if parented { 0 } else { cast(libc::SIGCHLD) },
        ..KernelArgs::default()
    };
    if let Some(cgroup) = args.cgroup {
        kernel.flags |= CLONE_INTO_CGROUP;
        kernel.cgroup = cast(cgroup.as_raw_fd());
    }
    // SAFETY: `kernel` outlives the call and its size is the one given; `pidfd` outlives it
    // too. No CLONE_VM and no stack: the child runs on a copy of this stack, as after fork.
    // The caller promises one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut kernel, size_of::<KernelArgs>()) };
    match Errno::result(pid)? {
        0 => Ok(Cloned::Child),
        pid => {
            let pid = i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?;
            // SAFETY: CLONE_PIDFD put a new descriptor here, which nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent {
                pid: Pid::from_raw(pid),
                pidfd,
            })
        }
    }
}

/// A flag or descriptor of C's int, never negative, as the kernel's 64 bits.
fn cast(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}
