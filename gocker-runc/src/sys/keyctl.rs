//! keyctl(2): the session keyring, which nix lacks.
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use std::ffi::CStr;

use nix::errno::Errno;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;

/// keyrings(7): what a new session keyring may be used for: all by who holds it; by its user,
/// to be viewed, read and linked.
const DEFAULT_PERMISSIONS: u32 = 0x3f13_0000;
/// To be searched, and so found by its name, by its user.
const USER_SEARCH: u32 = 0x0008_0000;

/// The number of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serial(libc::c_long);

/// Joins the session keyring called `name`, or makes it, and leaves the one inherited.
///
/// # Errors
/// keyctl(2)'s; ENOSYS where the kernel has no keyrings.
pub(crate) fn join_session_keyring(name: &CStr) -> Result<Serial, Errno> {
    // SAFETY: `name` is a C string that outlives the call.
    let done =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(done).map(Serial)
}

/// Lets other processes of its user find session keyring `serial` by its name.
///
/// # Errors
/// keyctl(2)'s.
pub(crate) fn let_user_search(serial: Serial) -> Result<(), Errno> {
    let permissions = DEFAULT_PERMISSIONS | USER_SEARCH;
    // SAFETY: the call takes plain numbers.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial.0, permissions) };
    Errno::result(done).map(drop)
}
