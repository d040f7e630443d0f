//! The runtime's side of a container's terminal and standard descriptors.
//!
//! ```text
//! --console-socket   master --SCM_RIGHTS--> engine
//! foreground         stdin --> master --> stdout, in raw mode, until the process ends
//! ```

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::sys::{pidfd, seqpacket, tty};

/// Connects to an engine's console socket.
///
/// # Errors
/// connect(2)'s.
pub(crate) fn connect_console(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

/// Sends the terminal's master, in one message with its name.
///
/// # Errors
/// sendmsg(2)'s.
pub(crate) fn send_console(socket: &UnixStream, name: &str, master: &OwnedFd) -> Result<(), Errno> {
    seqpacket::send(socket.as_fd(), name.as_bytes(), Some(master.as_fd()))
}

/// The signals that a foreground runtime hands on, and SIGCHLD, SIGWINCH.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal that can be handed on, to be read from here.
    ///
    /// # Errors
    /// sigprocmask(2)'s and signalfd(2)'s.
    pub(crate) fn block() -> Result<Self, Errno> {
        let mut set = SigSet::all();
        for fault in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGABRT,
            Signal::SIGSYS,
        ] {
            set.remove(fault);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }
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
struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    fn enter() -> io::Result<Self> {
        let terminal = own_terminal()?;
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone by now; there is nobody to tell.
        tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before).ok();
    }
}

/// Copies between the user's and the container's terminal and hands signals on, until the
/// process that `process` means has ended.
///
/// # Errors
/// poll(2)'s, and those of the standard descriptors.
pub(crate) fn attend(
    process: BorrowedFd<'_>,
    master: Option<OwnedFd>,
    signals: &Signals,
) -> io::Result<()> {
    let mut terminal = master.map(Terminal::new).transpose()?;
    loop {
        let ready = wait(process, terminal.as_ref(), signals)?;
        if ready.signal {
            forward_signals(process, signals, terminal.as_ref())?;
        }
        if let Some(terminal) = &mut terminal {
            if ready.output {
                terminal.copy_output()?;
            }
            if ready.input {
                terminal.copy_input()?;
            }
        }
        if ready.ended {
            if let Some(terminal) = &mut terminal {
                terminal.drain()?;
            }
            return Ok(());
        }
    }
}

struct Ready {
    ended: bool,
    signal: bool,
    output: bool,
    input: bool,
}

fn wait(
    process: BorrowedFd<'_>,
    terminal: Option<&Terminal>,
    signals: &Signals,
) -> io::Result<Ready> {
    let stdin = io::stdin();
    let mut fds = vec![
        PollFd::new(process, PollFlags::POLLIN),
        PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
    ];
    let output = terminal
        .filter(|terminal| terminal.output_open)
        .map(|terminal| {
            fds.push(PollFd::new(terminal.master.as_fd(), PollFlags::POLLIN));
            fds.len() - 1
        });
    let input = terminal.filter(|terminal| terminal.input_open).map(|_| {
        fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        fds.len() - 1
    });
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let is_ready = |index: usize| fds[index].any().unwrap_or(false);
    Ok(Ready {
        ended: is_ready(0),
        signal: is_ready(1),
        output: output.is_some_and(is_ready),
        input: input.is_some_and(is_ready),
    })
}

fn forward_signals(
    process: BorrowedFd<'_>,
    signals: &Signals,
    terminal: Option<&Terminal>,
) -> io::Result<()> {
    while let Some(info) = signals.0.read_signal()? {
        let signal = i32::try_from(info.ssi_signo).unwrap_or_default();
        match signal {
            libc::SIGCHLD | libc::SIGURG => {}
            libc::SIGWINCH => {
                if let Some(terminal) = terminal {
                    terminal.take_size();
                }
            }
            // Job control is the user's own shell's affair.
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU | libc::SIGCONT => {}
            signal => match pidfd::pidfd_send_signal(process, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            },
        }
    }
    Ok(())
}

/// The container's terminal in the foreground.
struct Terminal {
    master: File,
    output_open: bool,
    input_open: bool,
    raw: RawMode,
}

impl Terminal {
    fn new(master: OwnedFd) -> io::Result<Self> {
        let terminal = Self {
            master: master.into(),
            output_open: true,
            input_open: true,
            raw: RawMode::enter()?,
        };
        terminal.take_size();
        Ok(terminal)
    }

    /// Gives the container's terminal the size of the caller's.
    fn take_size(&self) {
        if let Ok(size) = tty::window_size(self.raw.terminal.as_fd()) {
            // A terminal that has just closed needs no size.
            tty::resize(self.master.as_fd(), size).ok();
        }
    }

    fn copy_output(&mut self) -> io::Result<()> {
        let mut buffer = [0; 32 * 1024];
        match self.master.read(&mut buffer) {
            Ok(0) => self.output_open = false,
            // EIO: the last one who had the other side open has closed it.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => self.output_open = false,
            Ok(length) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&buffer[..length])?;
                stdout.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn copy_input(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        // Not through Rust's buffer, which poll(2) could not see into.
        match nix::unistd::read(io::stdin(), &mut buffer) {
            Ok(0) => {
                self.input_open = false;
                // End of file for a process that reads lines (termios(3), VEOF).
                self.write_input(&[4])
            }
            Ok(length) => self.write_input(&buffer[..length]),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(()),
            Err(Errno::EIO) => {
                self.input_open = false;
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_input(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.master.write_all(bytes) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                self.input_open = false;
                Ok(())
            }
            done => done,
        }
    }

    /// What the process wrote last is still in the terminal when it has ended.
    fn drain(&mut self) -> io::Result<()> {
        while self.output_open {
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::ZERO) {
                Ok(0) => return Ok(()),
                Ok(_) => self.copy_output()?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
