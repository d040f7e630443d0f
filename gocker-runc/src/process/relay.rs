//! Copies between the caller's terminal and the container's.
//!
//! ```text
//! stdin  --> to_container --> master      (read only when the last was written)
//! stdout <--  to_caller   <-- master
//! ```
//!
//! Neither direction waits for the other: a container that reads nothing must be able to
//! print, and a caller that reads nothing must be able to send it a signal.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{read, write};

use super::stdio::RawMode;
use crate::sys::tty;

/// How long the other side of the container's terminal stays closed before somebody looks
/// whether it was opened again, in milliseconds: a process may close it and open /dev/console.
const LOOK_AGAIN_MS: u8 = 100;

/// More than a terminal's buffers hold, in bytes: what comes later was not written by the
/// process that has ended.
const MAX_LAST_WORDS: usize = 128 * 1024;

/// End of file for a process that reads lines (termios(3), VEOF).
const END_OF_FILE: u8 = 4;

/// The container's terminal and the caller's, joined.
pub(super) struct Relay {
    /// None when the caller's terminal is gone: closing it hangs up the container's.
    master: Option<File>,
    raw: RawMode,
    stdin: io::Stdin,
    stdout: Stdout,
    to_container: Pending,
    to_caller: Pending,
    input_open: bool,
    /// Whether the last input ended a line.
    line_ended: bool,
    /// Whether nobody has the other side open.
    other_side_closed: bool,
    /// How much was read since the process has ended, in bytes.
    last_words: usize,
}

/// Where the relay's descriptors stand in a poll set.
#[derive(Default)]
pub(super) struct Joined {
    caller: usize,
    master: Option<usize>,
    stdin: Option<usize>,
    stdout: Option<usize>,
}

/// What can be done without waiting.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    hung_up: bool,
    master: bool,
    stdin: bool,
    stdout: bool,
}

impl Joined {
    /// Reads it off a polled set.
    pub(super) fn ready(&self, revents: &dyn Fn(usize) -> PollFlags) -> Ready {
        let is_ready = |place: Option<usize>| place.is_some_and(|place| !revents(place).is_empty());
        Ready {
            hung_up: revents(self.caller).intersects(PollFlags::POLLHUP | PollFlags::POLLERR),
            master: is_ready(self.master),
            stdin: is_ready(self.stdin),
            stdout: is_ready(self.stdout),
        }
    }
}

impl Relay {
    /// Joins the terminal of `master` with the caller's, which becomes raw.
    ///
    /// # Errors
    /// The caller has no terminal, or its modes cannot be set.
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        // The description is this process's own: nobody else waits on it.
        fcntl(
            &master,
            FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK),
        )?;
        let relay = Self {
            master: Some(master.into()),
            raw: RawMode::enter()?,
            stdin: io::stdin(),
            stdout: Stdout::of_this_process(),
            to_container: Pending::default(),
            to_caller: Pending::default(),
            input_open: true,
            line_ended: true,
            other_side_closed: false,
            last_words: 0,
        };
        relay.take_size();
        Ok(relay)
    }

    /// Adds what is to be waited for, and says for how long at most.
    pub(super) fn fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) -> (Option<Joined>, PollTimeout) {
        let Some(master) = &self.master else {
            return (None, PollTimeout::NONE);
        };
        let mut add = |fd, flags| {
            fds.push(PollFd::new(fd, flags));
            fds.len() - 1
        };
        let mut joined = Joined {
            // A hang-up is told unasked.
            caller: add(self.raw.terminal(), PollFlags::empty()),
            ..Joined::default()
        };
        if !self.to_caller.is_empty() {
            joined.stdout = Some(add(self.stdout.handle.as_fd(), PollFlags::POLLOUT));
        }
        if self.input_open && self.to_container.is_empty() {
            joined.stdin = Some(add(self.stdin.as_fd(), PollFlags::POLLIN));
        }
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.to_caller.is_empty());
        wanted.set(PollFlags::POLLOUT, !self.to_container.is_empty());
        if self.other_side_closed {
            return (Some(joined), PollTimeout::from(LOOK_AGAIN_MS));
        }
        if !wanted.is_empty() {
            joined.master = Some(add(master.as_fd(), wanted));
        }
        (Some(joined), PollTimeout::NONE)
    }

    /// Copies what can be copied without waiting.
    pub(super) fn copy(&mut self, ready: Ready) {
        if ready.hung_up {
            self.hang_up();
            return;
        }
        if ready.stdout {
            self.write_output();
        }
        if ready.stdin {
            self.read_input();
        }
        let look_again = std::mem::take(&mut self.other_side_closed);
        if ready.master || look_again {
            self.write_input();
            if self.to_caller.is_empty() {
                self.read_output();
            }
        }
    }

    /// Whether there is output that the process has left behind; reads it.
    pub(super) fn has_last_words(&mut self) -> bool {
        if self.to_caller.is_empty() && self.last_words < MAX_LAST_WORDS {
            self.last_words += self.read_output();
        }
        !self.to_caller.is_empty()
    }

    /// Gives the container's terminal the size of the caller's.
    pub(super) fn take_size(&self) {
        if let (Some(master), Ok(size)) = (&self.master, tty::window_size(self.raw.terminal())) {
            // A terminal that has just closed needs no size.
            tty::resize(master.as_fd(), size).ok();
        }
    }

    /// Gives the caller's terminal its modes back, while this process is stopped.
    pub(super) fn restore(&self) {
        self.raw.restore();
    }

    /// Takes the caller's terminal again.
    ///
    /// # Errors
    /// tcsetattr(3)'s.
    pub(super) fn resume(&self) -> io::Result<()> {
        if self.master.is_some() {
            self.raw.resume()?;
            self.take_size();
        }
        Ok(())
    }

    /// The caller is gone: the container's terminal is hung up, as if it had been the
    /// caller's own.
    fn hang_up(&mut self) {
        self.master = None;
        self.to_container.clear();
        self.to_caller.clear();
    }

    /// Reads from the container's terminal; how much.
    fn read_output(&mut self) -> usize {
        let Some(master) = &mut self.master else {
            return 0;
        };
        match master.read(self.to_caller.space()) {
            Ok(length) => self.to_caller.fill(length),
            // EIO: nobody has the other side open.
            Err(error) => {
                self.other_side_closed = error.raw_os_error() == Some(libc::EIO);
                0
            }
        }
    }

    /// Writes to standard output, which can take something.
    pub(super) fn write_output(&mut self) {
        match self.stdout.write(self.to_caller.bytes()) {
            Ok(length) => self.to_caller.take(length),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Nobody will ever see what the container prints.
            Err(_) => self.hang_up(),
        }
    }

    fn read_input(&mut self) {
        // Not through Rust's buffer, which poll(2) could not see into.
        match read(&self.stdin, self.to_container.space()) {
            Ok(0) => {
                self.input_open = false;
                // In the middle of a line the first one only ends the line's part.
                let signs = [END_OF_FILE; 2];
                let signs = &signs[usize::from(self.line_ended)..];
                self.to_container.space()[..signs.len()].copy_from_slice(signs);
                self.to_container.fill(signs.len());
            }
            Ok(length) => {
                self.to_container.fill(length);
                self.line_ended = self.to_container.bytes().last() == Some(&b'\n');
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // In the background of a shell that is gone there is no input.
            Err(_) => self.input_open = false,
        }
        self.write_input();
    }

    fn write_input(&mut self) {
        let Some(master) = self
            .master
            .as_mut()
            .filter(|_| !self.to_container.is_empty())
        else {
            return;
        };
        match master.write(self.to_container.bytes()) {
            Ok(length) => self.to_container.take(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Nobody has the other side open: what is typed is lost, as on any terminal.
            Err(_) => self.to_container.clear(),
        }
    }
}

/// Bytes that were read and not yet written.
struct Pending {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for Pending {
    fn default() -> Self {
        // More than a terminal gives at once.
        Self {
            buffer: vec![0; 8 * 1024],
            start: 0,
            end: 0,
        }
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Where to read to, when nothing is pending.
    fn space(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Says that the first `length` bytes of the space are to be written; returns `length`.
    fn fill(&mut self, length: usize) -> usize {
        (self.start, self.end) = (0, length);
        length
    }

    /// Says that the first `length` bytes were written.
    fn take(&mut self, length: usize) {
        self.start += length;
    }
}

/// This process's standard output, written to without waiting where that can be had. Its file
/// description is shared with whoever, so that it cannot be made non-blocking itself.
struct Stdout {
    handle: io::Stdout,
    way: Way,
}

/// How to write.
enum Way {
    /// A terminal, opened anew.
    Own(File),
    /// A pipe has room for this much when it is ready.
    Pipe,
    /// A socket can be told with each call.
    Socket,
    /// A file is always ready.
    Plain,
}

impl Stdout {
    fn of_this_process() -> Self {
        let handle = io::stdout();
        let kind = fstat(&handle).map_or(SFlag::empty(), |stat| {
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
        });
        let way = match kind {
            SFlag::S_IFIFO => Way::Pipe,
            SFlag::S_IFSOCK => Way::Socket,
            _ if handle.is_terminal() => {
                let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
                // Another user's terminal, after su(1), cannot be opened and is written to as
                // it is.
                options.open(path).map_or(Way::Plain, Way::Own)
            }
            _ => Way::Plain,
        };
        Self { handle, way }
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match &self.way {
            _ if bytes.is_empty() => Ok(0),
            Way::Own(file) => write(file, bytes),
            Way::Pipe => write(&self.handle, &bytes[..bytes.len().min(libc::PIPE_BUF)]),
            Way::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(self.handle.as_raw_fd(), bytes, flags)
            }
            Way::Plain => write(&self.handle, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_written_once_and_in_order() {
        let mut pending = Pending::default();
        assert!(pending.is_empty());
        pending.space()[..5].copy_from_slice(b"hello");
        assert_eq!(pending.fill(5), 5);
        pending.take(2);
        assert_eq!(pending.bytes(), b"llo");
        pending.take(3);
        assert!(pending.is_empty());
    }
}
