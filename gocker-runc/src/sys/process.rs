//! Small process-wide calls that nix lacks or wraps in more than is needed here.
#![allow(unsafe_code, reason = "system calls that nix lacks")]

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, write};

/// execveat(2) of the file that `file` refers to. Returns only on failure.
pub(crate) fn execveat(file: BorrowedFd<'_>, args: &[&CStr], env: &[&CStr]) -> Errno {
    let pointers = |list: &[&CStr]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists end in null and hold C strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// prlimit(2): sets a resource limit of another process.
///
/// # Errors
/// prlimit(2)'s; EPERM for raising a hard limit without CAP_SYS_RESOURCE.
pub(crate) fn set_rlimit(pid: Pid, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let old: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: `limit` outlives the call; a null old limit is allowed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid.as_raw(),
            resource,
            &raw const limit,
            old,
        )
    };
    Errno::result(done).map(drop)
}

/// Gives every signal its default disposition and unblocks all: the Rust runtime ignores
/// SIGPIPE and callers may block what they like, and execve(2) hands both on.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP || signal == 32 || signal == 33 {
            continue;
        }
        // SAFETY: SIG_DFL runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigset_t is plain data, and sigemptyset makes it whole.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is ours.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: `none` is initialised; a null old set is allowed.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Has `command` start with every signal as [`reset_signals`] leaves it.
pub(crate) fn start_with_default_signals(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes async-signal-safe calls alone.
    unsafe {
        command.pre_exec(|| {
            reset_signals();
            Ok(())
        })
    };
}

/// Has `command` start as a member of the cgroups that the open files `cgroups` belong to, and, with
/// a `root`, in a mount namespace of its own in which that directory is a mount. Nothing that it
/// mounts reaches the caller's.
pub(crate) fn start_in(command: &mut Command, cgroups: Vec<OwnedFd>, root: Option<CString>) {
    let enter = move || {
        for file in &cgroups {
            write(file, b"0")?;
        }
        let Some(root) = root.as_deref() else {
            return Ok(());
        };
        let none = None::<&CStr>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, c"/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(root), root, none, bind, none)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls alone.
    unsafe { command.pre_exec(enter) };
}

/// A copy of descriptor number `fd`, which the caller of this program has left open; None where
/// nothing is.
pub(crate) fn copy_of_inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor and leaves `fd` to whoever owns it.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: the kernel has just made it, and nothing else owns it.
    (copy >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copy) })
}

/// setdomainname(2): the UTS namespace's NIS domain name.
///
/// # Errors
/// setdomainname(2)'s.
pub(crate) fn setdomainname(name: &str) -> Result<(), Errno> {
    // SAFETY: the pointer and the length are those of `name`, which outlives the call.
    let done = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    Errno::result(done).map(drop)
}

/// Whether descriptor number `fd` is open.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag and changes nothing, whoever owns the descriptor.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}
