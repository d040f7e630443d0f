//! Pseudo-terminal ioctls of ioctl_tty(2) that nix lacks.
#![allow(unsafe_code, reason = "ioctls that nix lacks")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::pty::Winsize;

nix::ioctl_read_bad!(get_pty_number, libc::TIOCGPTN, libc::c_uint);
nix::ioctl_write_ptr_bad!(set_pty_lock, libc::TIOCSPTLCK, libc::c_int);
nix::ioctl_write_int_bad!(get_pty_peer, libc::TIOCGPTPEER);
nix::ioctl_write_int_bad!(set_controlling_tty, libc::TIOCSCTTY);
nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, Winsize);
nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

/// The number of the pseudo-terminal whose master is `master`: N of `/dev/pts/N`.
///
/// # Errors
/// ioctl_tty(2)'s.
pub(crate) fn pty_number(master: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut number = 0;
    // SAFETY: `number` is an unsigned int that outlives the call; `master` is open.
    unsafe { get_pty_number(master.as_raw_fd(), &raw mut number) }?;
    Ok(number)
}

/// Opens the other side of `master` by descriptor, never by a path (TIOCGPTPEER).
///
/// # Errors
/// ioctl_tty(2)'s.
pub(crate) fn open_pty_peer(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let unlocked = 0;
    // SAFETY: `unlocked` is an int that outlives the call; `master` is open.
    unsafe { set_pty_lock(master.as_raw_fd(), &raw const unlocked) }?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the call takes open flags by value; `master` is open.
    let fd = unsafe { get_pty_peer(master.as_raw_fd(), flags) }?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `tty` the controlling terminal of the calling session.
///
/// # Errors
/// ioctl_tty(2)'s.
pub(crate) fn take_controlling_tty(tty: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the call takes a number by value; `tty` is open.
    unsafe { set_controlling_tty(tty.as_raw_fd(), 0) }.map(drop)
}

/// The size of terminal `tty`.
///
/// # Errors
/// ioctl_tty(2)'s; ENOTTY where it is no terminal.
pub(crate) fn window_size(tty: BorrowedFd<'_>) -> Result<Winsize, Errno> {
    let mut size = Winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `size` is a whole winsize that outlives the call; `tty` is open.
    unsafe { get_window_size(tty.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// Gives terminal `tty` a size; its foreground process group gets SIGWINCH.
///
/// # Errors
/// ioctl_tty(2)'s.
pub(crate) fn resize(tty: BorrowedFd<'_>, size: Winsize) -> Result<(), Errno> {
    // SAFETY: `size` is a whole winsize that outlives the call; `tty` is open.
    unsafe { set_window_size(tty.as_raw_fd(), &raw const size) }.map(drop)
}
