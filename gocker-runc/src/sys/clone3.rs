//! clone3(2): makes the container process. nix has only clone(2), which needs a stack and
//! cannot put the child into a cgroup. Where clone3(2) is forbidden, clone(2) does what it can.
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2, read, write};

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
    // SAFETY: the caller promises one thread.
    match unsafe { call_clone3(args) } {
        // A seccomp filter that does not look into clone3's arguments forbids it. Where more is
        // forbidden clone(2) says so, too.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            // SAFETY: as above.
            unsafe { call_clone(args) }
        }
        done => done,
    }
}

/// clone3(2) itself.
///
/// # Safety
/// As [`clone3`].
unsafe fn call_clone3(args: CloneArgs<'_>) -> Result<Cloned, Errno> {
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
    sides(pid, pidfd)
}

/// clone(2), which takes fewer flags and knows no cgroups: the child moves itself, and the
/// caller waits until it has.
///
/// # Safety
/// As [`clone3`].
unsafe fn call_clone(args: CloneArgs<'_>) -> Result<Cloned, Errno> {
    // The lowest byte is the signal.
    let Ok(mut flags) = i32::try_from(args.flags).map(|flags| flags | libc::CLONE_PIDFD) else {
        return Err(Errno::ENOSYS);
    };
    if flags & 0xff != 0 {
        return Err(Errno::ENOSYS);
    }
    if flags & libc::CLONE_PARENT == 0 {
        flags |= libc::SIGCHLD;
    }
    let tasks = args
        .cgroup
        .map(|dir| {
            openat(
                dir,
                "cgroup.procs",
                OFlag::O_WRONLY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
        })
        .transpose()?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut pidfd: libc::c_int = -1;
    let (no_stack, none) = (0usize, 0usize);
    // s390x alone has the stack first.
    let first = if cfg!(target_arch = "s390x") {
        [no_stack, flags.cast_unsigned() as usize]
    } else {
        [flags.cast_unsigned() as usize, no_stack]
    };
    // SAFETY: `pidfd` outlives the call. No CLONE_VM and no stack: the child runs on a copy of
    // this stack, as after fork. The caller promises one thread.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            first[0],
            first[1],
            &raw mut pidfd,
            none,
            none,
        )
    };
    let cloned = sides(pid, pidfd)?;
    match tasks {
        Some(tasks) => enter_cgroup(cloned, &tasks, (reader, writer)),
        None => Ok(cloned),
    }
}

/// Has the child write itself into its cgroup, and the caller wait for its answer.
fn enter_cgroup(
    cloned: Cloned,
    tasks: &OwnedFd,
    (reader, writer): (OwnedFd, OwnedFd),
) -> Result<Cloned, Errno> {
    match cloned {
        Cloned::Child => {
            let moved = write(tasks, b"0").map_or_else(|errno| errno as i32, |_| 0);
            let told = write(&writer, &moved.to_ne_bytes());
            if moved != 0 || told.is_err() {
                std::process::exit(1);
            }
            Ok(cloned)
        }
        Cloned::Parent { pid, .. } => {
            drop(writer);
            let mut answer = [0; 4];
            let length = read(&reader, &mut answer)?;
            match i32::from_ne_bytes(answer) {
                0 if length == answer.len() => Ok(cloned),
                errno => {
                    waitpid(pid, None)?;
                    Err(Errno::from_raw(errno))
                }
            }
        }
    }
}

/// What a clone's answer means.
fn sides(answer: libc::c_long, pidfd: libc::c_int) -> Result<Cloned, Errno> {
    match Errno::result(answer)? {
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
