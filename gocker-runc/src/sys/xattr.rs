//! fsetxattr(2), which nix lacks.
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// fsetxattr(2): makes or replaces the attribute `name` of what `fd` refers to.
///
/// # Errors
/// fsetxattr(2)'s.
pub(crate) fn fsetxattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: both pointers are to data that outlives the call; the length is the value's.
    let done = unsafe {
        libc::fsetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(done).map(drop)
}
