//! The runtime's side of a container's terminal: the engine's socket, or the caller's own
//! terminal.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use crate::sys::{seqpacket, unix_socket};

/// Connects to an engine's console socket.
///
/// # Errors
/// connect(2)'s.
pub(crate) fn connect_console(path: &Path) -> Result<UnixStream, Errno> {
    unix_socket::connect_stream(path)
}

/// Sends the terminal's master, in one message with its name.
///
/// # Errors
/// sendmsg(2)'s.
pub(crate) fn send_console(socket: &UnixStream, name: &str, master: &OwnedFd) -> Result<(), Errno> {
    seqpacket::send(socket.as_fd(), name.as_bytes(), Some(master.as_fd()))
}

/// The caller's terminal: the first of the standard descriptors that is one.
///
/// # Errors
/// dup(2)'s; ENOTTY where none is.
pub(crate) fn own_terminal() -> io::Result<OwnedFd> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let all = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let terminal = all.into_iter().find(BorrowedFd::is_terminal);
    terminal
        .ok_or(io::Error::from(Errno::ENOTTY))?
        .try_clone_to_owned()
}

/// The caller's terminal in raw mode; Drop restores it.
pub(super) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Finds the terminal and makes it raw. In the background that stops this process, as it
    /// does every program that wants a terminal which is not its turn to have.
    ///
    /// # Errors
    /// tcsetattr(3)'s.
    pub(super) fn enter() -> io::Result<Self> {
        let terminal = own_terminal()?;
        let before = tcgetattr(&terminal)?;
        let raw = Self { terminal, before };
        raw.resume()?;
        Ok(raw)
    }

    /// The terminal.
    pub(super) fn terminal(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }

    /// Makes the terminal raw, again.
    ///
    /// # Errors
    /// tcsetattr(3)'s.
    pub(super) fn resume(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        Ok(tcsetattr(&self.terminal, SetArg::TCSANOW, &raw)?)
    }

    /// Gives the terminal its modes back, unless somebody else has it now.
    pub(super) fn restore(&self) {
        if tcgetpgrp(&self.terminal).is_ok_and(|group| group != getpgrp()) {
            return;
        }
        // The terminal may be gone by now; there is nobody to tell.
        tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before).ok();
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.restore();
    }
}
