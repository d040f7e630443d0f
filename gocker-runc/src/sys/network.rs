//! The loopback interface's ioctls, which nix has no wrappers for.
#![allow(unsafe_code, reason = "ioctls that nix lacks")]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

nix::ioctl_write_ptr_bad!(
    /// Sets an interface's flags (netdevice(7)).
    set_interface_flags,
    libc::SIOCSIFFLAGS,
    libc::ifreq
);

/// Brings `lo` up in the calling process's network namespace.
///
/// # Errors
/// socket(2)'s and netdevice(7)'s.
pub(crate) fn bring_loopback_up() -> Result<(), Errno> {
    let socket: OwnedFd = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: `request` is a whole ifreq that outlives the call; the socket is open.
    unsafe { set_interface_flags(socket.as_raw_fd(), &raw const request) }.map(drop)
}
