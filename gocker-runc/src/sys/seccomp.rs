//! seccomp(2): loads a filter. nix has only the strict mode of prctl(2).
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use std::os::fd::{FromRawFd, OwnedFd};

use libc::{c_long, c_uint, c_ulong, sock_filter, sock_fprog};
use nix::errno::Errno;

/// Flags of `SECCOMP_SET_MODE_FILTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) c_ulong);

impl Flags {
    /// Every thread of the process gets the filter.
    pub(crate) const TSYNC: Self = Self(libc::SECCOMP_FILTER_FLAG_TSYNC);
    /// All but allowed calls are logged.
    pub(crate) const LOG: Self = Self(libc::SECCOMP_FILTER_FLAG_LOG);
    /// Speculative stores are not slowed down.
    pub(crate) const SPEC_ALLOW: Self = Self(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    /// A call that a listener has taken up is only interrupted by SIGKILL (Linux 5.19); refused
    /// without a listener.
    pub(crate) const WAIT_KILLABLE_RECV: Self = Self(libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    /// The call returns a descriptor on which a listener answers (Linux 5.0).
    pub(crate) const NEW_LISTENER: Self = Self(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    /// A thread that cannot follow is ESRCH, where the result is a descriptor (Linux 5.7).
    pub(crate) const TSYNC_ESRCH: Self = Self(libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
}

/// Loads `program`. Returns the listener's descriptor with NEW_LISTENER, close-on-exec.
///
/// # Errors
/// seccomp(2)'s; ESRCH when TSYNC meets a thread with another filter.
pub(crate) fn set_mode_filter(
    program: &[sock_filter],
    flags: Flags,
) -> Result<Option<OwnedFd>, Errno> {
    let fprog = sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        // The kernel only reads.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` and the instructions it points to outlive the call, which copies them;
    // `len` is their count.
    let done = unsafe {
        call(
            libc::SECCOMP_SET_MODE_FILTER,
            flags.0,
            (&raw const fprog).cast(),
        )
    };
    let done = Errno::result(done)?;
    if flags.0 & Flags::NEW_LISTENER.0 != 0 {
        let number = i32::try_from(done).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }));
    }
    match done {
        0 => Ok(None),
        // The id of the thread that could not follow.
        _ => Err(Errno::ESRCH),
    }
}

/// Whether the kernel knows the action of this value, whatever its data.
pub(crate) fn is_action_available(action: u32) -> bool {
    let action = action & libc::SECCOMP_RET_ACTION_FULL;
    // SAFETY: the kernel reads four bytes from `action`, which outlives the call.
    let done = unsafe {
        call(
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            (&raw const action).cast(),
        )
    };
    done == 0
}

/// Whether the kernel knows `flags`: it looks at them before it looks for the filter, and
/// there is none.
pub(crate) fn are_flags_available(flags: Flags) -> bool {
    // SAFETY: without a filter to read the call changes nothing.
    let done = unsafe { call(libc::SECCOMP_SET_MODE_FILTER, flags.0, std::ptr::null()) };
    Errno::result(done) == Err(Errno::EFAULT)
}

/// # Safety
/// `args` is what the operation takes, see seccomp(2).
unsafe fn call(operation: c_uint, flags: c_ulong, args: *const libc::c_void) -> c_long {
    // SAFETY: the caller vouches for `args`; the other two are numbers.
    unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, args) }
}
