//! ioctl_ns(2), which nix has no wrappers for.
#![allow(unsafe_code, reason = "ioctls that nix lacks")]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;

nix::ioctl_none!(
    /// The `CLONE_NEW*` of a namespace file.
    get_namespace_type,
    0xb7,
    0x3
);

/// Of which kind the namespace is whose file `fd` is.
///
/// # Errors
/// ioctl_ns(2)'s; ENOTTY where `fd` is something else.
pub(crate) fn namespace_type(fd: &OwnedFd) -> Result<CloneFlags, Errno> {
    // SAFETY: the call takes no argument; `fd` is open.
    let kind = unsafe { get_namespace_type(fd.as_raw_fd()) }?;
    // Not every kind has a name in nix.
    Ok(CloneFlags::from_bits_retain(kind))
}
