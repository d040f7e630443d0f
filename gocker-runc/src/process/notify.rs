//! `NOTIFY_SOCKET`: how a service manager hears that what runs in the container is ready.
//!
//! ```text
//! STATE/notify/notify.sock   bound by `run`, or by `start`
//!   └── shown read-only at /run/notify in the container, whose NOTIFY_SOCKET names it
//! container ── READY=1 ──> runtime ── READY=1, MAINPID=... ──> the caller's NOTIFY_SOCKET
//! ```
//!
//! `start` and `run --detach` return when the container has said so, or has ended; a `run` in
//! the foreground listens beside its other work. The container's other messages stay unheard, as
//! nobody is there to pass them on once the runtime has returned.
//!
//! Spec: sd_notify(3)

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2};

use crate::sys::seqpacket;
use crate::sys::unix_socket::reach;

/// Where the container sees the directory.
pub(crate) const IN_CONTAINER: &str = "/run/notify";

const SOCKET: &str = "notify.sock";

/// How long the service manager may take to have heard everything.
const BARRIER_PATIENCE: Duration = Duration::from_secs(30);

/// The longest message that is read, in bytes.
const MAX_MESSAGE: usize = 4096;

/// A listening socket, and whom to tell.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: UnixDatagram,
    host: Host,
}

/// Where the service manager listens.
#[derive(Debug)]
enum Host {
    Abstract(SocketAddr),
    Path(PathBuf),
}

/// The directory of the socket, in a container's state directory.
pub(crate) fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("notify")
}

/// `NOTIFY_SOCKET`'s value in the container.
pub(crate) fn variable() -> String {
    format!("NOTIFY_SOCKET={IN_CONTAINER}/{SOCKET}")
}

/// Makes the directory, which the container's user may enter.
///
/// # Errors
/// mkdir(2)'s and chmod(2)'s.
pub(crate) fn make_directory(state_dir: &Path) -> io::Result<()> {
    let path = directory(state_dir);
    DirBuilder::new().mode(0o755).create(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))
}

impl Notify {
    /// Begins to listen, for the caller's socket `host`.
    ///
    /// # Errors
    /// The step that failed; `host` is no address.
    pub(crate) fn listen(state_dir: &Path, host: &OsStr) -> io::Result<Self> {
        let host = match host.as_bytes().strip_prefix(b"@") {
            Some(name) => Host::Abstract(SocketAddr::from_abstract_name(name)?),
            None => Host::Path(host.into()),
        };
        // By a descriptor, so that the address is short enough for any directory.
        let dir = fs::File::open(directory(state_dir))?;
        let path = PathBuf::from(format!(
            "/proc/self/fd/{}/{SOCKET}",
            std::os::fd::AsRawFd::as_raw_fd(&dir)
        ));
        match fs::remove_file(&path) {
            // What a `start` that was killed has left.
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o777))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, host })
    }

    /// Waits until the container is ready, or the process that `process` means has ended, and
    /// tells the service manager that `main` is the one to watch.
    ///
    /// # Errors
    /// poll(2)'s; the service manager does not listen.
    pub(crate) fn wait(&self, process: BorrowedFd<'_>, main: Pid) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(process, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let has_ended = fds[1].any().unwrap_or(false);
            if let Some(manager) = self.forward(main)? {
                return barrier(&manager);
            }
            if has_ended {
                return Ok(());
            }
        }
    }

    /// Passes on that the container is ready, if it has said so by now. Returns the
    /// connection then, after which there is nothing more to pass on.
    ///
    /// # Errors
    /// The service manager does not listen.
    pub(crate) fn forward(&self, main: Pid) -> io::Result<Option<UnixDatagram>> {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            let length = match self.socket.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                received => received?,
            };
            let Some(ready) = ready_line(&buffer[..length]) else {
                continue;
            };
            let manager = UnixDatagram::unbound()?;
            match &self.host {
                Host::Abstract(address) => manager.connect_addr(address)?,
                Host::Path(path) => manager.connect(&reach(path)?.path)?,
            }
            let message = [ready, format!("\nMAINPID={main}\n").as_bytes()].concat();
            manager.send(&message)?;
            return Ok(Some(manager));
        }
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The line of a message that says that its sender is ready.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message
        .split(|byte| *byte == b'\n')
        .find(|line| line.starts_with(b"READY="))
}

/// Waits until the service manager has read what was sent: it looks up whose process a sender
/// is, and must find it alive.
///
/// Spec: sd_notify_barrier(3)
fn barrier(manager: &UnixDatagram) -> io::Result<()> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    seqpacket::send(manager.as_fd(), b"BARRIER=1", Some(theirs.as_fd()))?;
    drop(theirs);
    let patience = PollTimeout::try_from(BARRIER_PATIENCE).unwrap_or(PollTimeout::MAX);
    // It closes its end, or does not know of barriers and is waited for in vain.
    loop {
        match poll(
            &mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)],
            patience,
        ) {
            Err(Errno::EINTR) => {}
            polled => return Ok(polled.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_being_ready_is_passed_on() {
        let cases: &[(&str, Option<&str>)] = &[
            ("READY=1", Some("READY=1")),
            ("STATUS=x\nREADY=1\nMAINPID=1", Some("READY=1")),
            ("STATUS=READY=1", None),
            ("WATCHDOG=1\n", None),
            ("", None),
        ];
        for (message, expected) in cases {
            let found = ready_line(message.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{message:?}");
        }
    }
}
