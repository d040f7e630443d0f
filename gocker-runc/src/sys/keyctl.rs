//! keyctl(2): the session keyring, which nix lacks.
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use std::ffi::CStr;

use nix::errno::Errno;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Makes a session keyring called `name` and leaves the one inherited.
///
/// # Errors
/// keyctl(2)'s; ENOSYS where the kernel has no keyrings.
pub(crate) fn join_session_keyring(name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` is a C string that outlives the call.
    let done =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(done).map(drop)
}
