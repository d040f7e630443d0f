//! Connections to AF_UNIX sockets of a caller's: at any path, and without waiting for ever.
//!
//! Spec: unix(7)

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};

/// The longest path that an address holds, without its end.
const MAX_PATH: usize = 107;

/// How long a listener whose queue is full is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A path of a socket as an address can name it, and what keeps that path alive.
#[derive(Debug)]
pub(crate) struct Reachable {
    /// Short enough for an address.
    pub(crate) path: PathBuf,
    _socket: Option<OwnedFd>,
}

/// Finds a way to the socket at `path`, however long that is.
///
/// # Errors
/// open(2)'s.
pub(crate) fn reach(path: &Path) -> Result<Reachable, Errno> {
    if path.as_os_str().as_bytes().len() <= MAX_PATH {
        return Ok(Reachable {
            path: path.to_owned(),
            _socket: None,
        });
    }
    let socket = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(Reachable {
        path: format!("/proc/self/fd/{}", socket.as_raw_fd()).into(),
        _socket: Some(socket),
    })
}

/// Connects to the stream socket at `path`.
///
/// # Errors
/// connect(2)'s; ETIMEDOUT where the queue stays full for some seconds.
pub(crate) fn connect_stream(path: &Path) -> Result<UnixStream, Errno> {
    let reachable = reach(path)?;
    connect_within(&UnixAddr::new(&reachable.path)?, PATIENCE)
}

/// Connects to a stream socket. A listener whose queue is full is waited for no longer than
/// `limit`, which then holds for what is sent, too.
///
/// # Errors
/// connect(2)'s; ETIMEDOUT.
pub(crate) fn connect_within(address: &UnixAddr, limit: Duration) -> Result<UnixStream, Errno> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    setsockopt(&socket, SendTimeout, &TimeVal::milliseconds(limit))?;
    match connect(socket.as_raw_fd(), address) {
        Ok(()) => Ok(UnixStream::from(socket)),
        Err(Errno::EAGAIN) => Err(Errno::ETIMEDOUT),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_at_a_path_too_long_for_an_address_is_reached() {
        let top = tempfile::tempdir().expect("mkdir");
        let dir = top.path().join("d".repeat(200));
        std::fs::create_dir(&dir).expect("mkdir");
        // As long as a name can be: its directory's descriptor alone would not do.
        let path = dir.join("s".repeat(255));
        let short = top.path().join("s");
        let listener = UnixListener::bind(&short).expect("bind");
        std::fs::rename(&short, &path).expect("rename");
        connect_stream(&path).expect("connects");
        listener.accept().expect("accepts");
        assert_eq!(
            connect_stream(&dir.join("none")).expect_err("is not there"),
            Errno::ENOENT
        );
    }
}
