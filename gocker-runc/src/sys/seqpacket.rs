//! AF_UNIX sequenced-packet sockets: whole messages, some with one descriptor.
//! (The code is safe; recvmsg(2) hands out raw descriptors, which is why it lives here.)
#![allow(
    unsafe_code,
    reason = "descriptors received by SCM_RIGHTS must be taken into ownership"
)]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// The longest message; longer ones are cut by their sender.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024;

/// A connected pair.
///
/// # Errors
/// socketpair(2)'s.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

/// Sends one message, with at most one descriptor.
///
/// # Errors
/// sendmsg(2)'s; EPIPE when the other side is gone.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() {
        &control[..0]
    } else {
        &control[..]
    };
    let data = [IoSlice::new(&bytes[..bytes.len().min(MAX_MESSAGE)])];
    loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &data,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => {}
            done => return done.map(drop),
        }
    }
}

/// Receives one message; an empty one means that the other side is gone.
///
/// # Errors
/// recvmsg(2)'s; EMSGSIZE for a message that was cut.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut control = nix::cmsg_space!([RawFd; 4]);
    let (length, fds) = loop {
        let mut data = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(message) => {
                let mut fds = Vec::new();
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = control {
                        // SAFETY: the kernel has just made these, and nothing else owns them.
                        fds.extend(
                            raw.into_iter()
                                .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                        );
                    }
                }
                if message.flags.contains(MsgFlags::MSG_TRUNC) {
                    return Err(Errno::EMSGSIZE);
                }
                break (message.bytes, fds);
            }
        }
    };
    bytes.truncate(length);
    Ok((bytes, fds.into_iter().next()))
}

/// Sends one message by write(2). Who may get SIGPIPE should not: a message to nobody sends it.
///
/// # Errors
/// write(2)'s; EPIPE when the other side is gone.
pub(crate) fn write(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    loop {
        match nix::unistd::write(socket, &bytes[..bytes.len().min(MAX_MESSAGE)]) {
            Err(Errno::EINTR) => {}
            done => return done.map(drop),
        }
    }
}

/// Receives the first bytes of one message by read(2), and no descriptor; an empty one means that
/// the other side is gone.
///
/// # Errors
/// read(2)'s.
pub(crate) fn read(socket: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 64];
    loop {
        match nix::unistd::read(socket, &mut bytes) {
            Err(Errno::EINTR) => {}
            done => {
                bytes.truncate(done?);
                return Ok(bytes);
            }
        }
    }
}

/// Takes ownership of a descriptor that nix returned as a number.
///
/// # Errors
/// EBADF for a number that is no open descriptor.
pub(crate) fn take_ownership(fd: RawFd) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: callers pass what accept4 has just returned, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
