//! How `start` reaches an init that waits: a listening socket in the state directory.
//!
//! ```text
//! create                 init                       start
//!   bind, listen  ---->  inherits the listener
//!                        accept  <----------------  connect
//!                        execve (closes it)  ---->  end of file: it runs
//!                        or: why not         ---->  the reason
//! ```
//!
//! The socket's file is there for as long as the container has not been started, and init bears
//! the name [`WAITING`], which is how `created` is told from `running`. Who connects when init is dead is refused at once.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, socket,
};

use super::handshake::{FromInit, RuntimeEnd};
use crate::sys::{CallError, Called, seqpacket};

/// The socket's name in the state directory.
pub(crate) const NAME: &str = "start.sock";

/// What init calls itself until it executes the process, which takes its program's name. A
/// `start` that was killed may have left the socket's file to a container that runs.
pub(crate) const WAITING: &CStr = c"gocker:[init]";

fn unix_socket() -> Result<OwnedFd, CallError> {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .called(|| "socket".into())
}

/// The address in `dir`, short enough for any directory: by its descriptor.
fn address(dir: &OwnedFd) -> Result<UnixAddr, CallError> {
    let path = format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd());
    UnixAddr::new(Path::new(&path)).called(|| format!("address {path:?}"))
}

/// Makes the socket in the state directory `dir`.
///
/// # Errors
/// The call that failed.
pub(crate) fn listen_in(dir: &OwnedFd) -> Result<OwnedFd, CallError> {
    let listener = unix_socket()?;
    bind(listener.as_raw_fd(), &address(dir)?).called(|| format!("bind({NAME})"))?;
    // One `start` is enough; a second one finds the state changed.
    let backlog = Backlog::new(1).called(|| "listen".into())?;
    listen(&listener, backlog).called(|| format!("listen({NAME})"))?;
    Ok(listener)
}

/// Waits until somebody starts the container; what is returned is open for as long as the
/// answer is awaited. None where the process may open no more files: who starts it then sees
/// the listener's end instead.
///
/// Runs in: init.
///
/// # Errors
/// accept4(2)'s.
pub(crate) fn wait(listener: &OwnedFd) -> Result<Option<OwnedFd>, CallError> {
    loop {
        // accept4(2) takes a descriptor before it waits, and RLIMIT_NOFILE is set by now.
        match poll(
            &mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)],
            PollTimeout::NONE,
        ) {
            Err(Errno::EINTR) => continue,
            polled => polled.called(|| "poll(start)".into())?,
        };
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(Errno::EMFILE) => return Ok(None),
            accepted => return owned(accepted.called(|| "accept4(start)".into())?).map(Some),
        }
    }
}

fn owned(fd: std::os::fd::RawFd) -> Result<OwnedFd, CallError> {
    seqpacket::take_ownership(fd).called(|| "accept4(start)".into())
}

/// Tells the waiting init to go on, and waits for the outcome: the reason, if it failed.
///
/// # Errors
/// ECONNREFUSED when init is dead, ENOENT when it has been started.
pub(crate) fn start(dir: &OwnedFd) -> Result<Option<String>, CallError> {
    let socket = unix_socket()?;
    connect(socket.as_raw_fd(), &address(dir)?).called(|| format!("connect({NAME})"))?;
    match RuntimeEnd(socket).receive() {
        Ok(Some(FromInit::Failed(why))) => Ok(Some(why)),
        // The end of the conversation: execve(2) has closed it.
        Ok(_) => Ok(None),
        Err(_) => Err(CallError {
            call: "recvmsg(start)".into(),
            errno: Errno::EPROTO,
        }),
    }
}
