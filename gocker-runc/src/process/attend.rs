//! A process in the foreground is attended to until it ends: signals are handed on, children
//! that have ended are collected, and its terminal is joined to the caller's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid};

use super::relay::Relay;
use crate::logging;
use crate::sys::pidfd;
use crate::sys::wait::{self, Ended};

/// The process that is attended to, a child of this one.
pub(crate) struct Attended<'a> {
    /// Its id.
    pub(crate) pid: Pid,
    /// It, and no later one of that id.
    pub(crate) pidfd: BorrowedFd<'a>,
}

/// Something else to take from a descriptor meanwhile.
pub(crate) struct Beside<'a> {
    /// The descriptor.
    pub(crate) fd: BorrowedFd<'a>,
    /// Takes what is there; returns whether there may be more.
    pub(crate) take: &'a mut dyn FnMut() -> bool,
}

/// The signals that are not acted on by the kernel but read.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal that can be handed on, to be read from here.
    ///
    /// # Errors
    /// sigprocmask(2)'s and signalfd(2)'s.
    pub(crate) fn block() -> Result<Self, Errno> {
        let mut set = SigSet::all();
        for own in [
            // Faults of this program's own.
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGABRT,
            Signal::SIGSYS,
            // A terminal sends them to who uses it out of turn, if they are not blocked.
            Signal::SIGTTIN,
            Signal::SIGTTOU,
        ] {
            set.remove(own);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// The next signal that has come, and its sender.
    fn next(&self) -> io::Result<Option<(i32, i32)>> {
        let info = self.0.read_signal()?;
        Ok(info.map(|info| {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            let sender = i32::try_from(info.ssi_pid).unwrap_or_default();
            (number, sender)
        }))
    }
}

/// Attends to `process`, whose terminal has this master, until it has ended. Returns how.
///
/// # Errors
/// The calls that wait, and those that make the caller's terminal raw.
pub(crate) fn attend(
    process: &Attended<'_>,
    master: Option<OwnedFd>,
    signals: &Signals,
    mut beside: Option<Beside<'_>>,
) -> io::Result<Ended> {
    let mut relay = master.map(Relay::new).transpose()?;
    loop {
        let mut fds = vec![
            PollFd::new(process.pidfd, PollFlags::POLLIN),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        let (joined, timeout) = match &relay {
            Some(relay) => relay.fds(&mut fds),
            None => (None, PollTimeout::NONE),
        };
        let other = fds.len();
        fds.extend(
            beside
                .iter()
                .map(|beside| PollFd::new(beside.fd, PollFlags::POLLIN)),
        );
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let revents = |index: usize| fds[index].revents().unwrap_or(PollFlags::empty());
        let (has_ended, has_signal) = (!revents(0).is_empty(), !revents(1).is_empty());
        let ready = joined.map(|joined| joined.ready(&revents));
        let has_other = beside.is_some() && !revents(other).is_empty();
        drop(fds);
        if has_other && !beside.as_mut().is_some_and(|beside| (beside.take)()) {
            beside = None;
        }
        let mut status = None;
        if has_signal {
            status = take_signals(process, signals, relay.as_ref())?;
        }
        if let (Some(relay), Some(ready)) = (&mut relay, ready) {
            relay.copy(ready);
        }
        if has_ended || status.is_some() {
            if let Some(relay) = &mut relay {
                finish(relay, signals)?;
            }
            return match status {
                Some(status) => Ok(status),
                None => Ok(wait::wait_for(process.pid)?),
            };
        }
    }
}

/// Acts on every signal that has come; returns how the process has ended, if it was collected.
fn take_signals(
    process: &Attended<'_>,
    signals: &Signals,
    relay: Option<&Relay>,
) -> io::Result<Option<Ended>> {
    let mut status = None;
    while let Some((signal, sender)) = signals.next()? {
        match signal {
            libc::SIGCHLD => status = status.or(collect(process.pid)),
            // What runc's own runtime sends to itself, so nobody counts on it.
            libc::SIGURG => {}
            libc::SIGWINCH if relay.is_some() => relay.iter().for_each(|relay| relay.take_size()),
            // A write of this program's own, which sees the error.
            libc::SIGPIPE if sender == getpid().as_raw() => {}
            signal => {
                hand_on(process, signal);
                if signal == libc::SIGTSTP {
                    stop(relay)?;
                }
                if signal == libc::SIGCONT {
                    // The shell has had the terminal meanwhile.
                    relay.map_or(Ok(()), Relay::resume)?;
                }
            }
        }
    }
    Ok(status)
}

fn hand_on(process: &Attended<'_>, signal: i32) {
    match pidfd::pidfd_send_signal(process.pidfd, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => logging::warn(&format!(
            "hand on signal {signal}: {}",
            crate::errors::chain(&errno)
        )),
    }
}

/// Stops this process, too, where there is a shell that can continue it: in a process group
/// without one the kernel does nothing.
fn stop(relay: Option<&Relay>) -> io::Result<()> {
    relay.iter().for_each(|relay| relay.restore());
    let mut set = SigSet::empty();
    set.add(Signal::SIGTSTP);
    set.thread_unblock()?;
    raise(Signal::SIGTSTP)?;
    set.thread_block()?;
    relay.map_or(Ok(()), Relay::resume)
}

/// Collects the children that have ended, which for a subreaper may be the container's
/// orphans; returns how the process that `attended` names has ended.
fn collect(attended: Pid) -> Option<Ended> {
    let mut found = None;
    while let Ok(Some((pid, ended))) = wait::collect_any() {
        found = found.or((pid == attended).then_some(ended));
    }
    found
}

/// What the process wrote last is still in its terminal when it has ended. A reader that does
/// not take it is waited for, until somebody wants this process to end.
fn finish(relay: &mut Relay, signals: &Signals) -> io::Result<()> {
    while relay.has_last_words() {
        let stdout = io::stdout();
        let mut fds = [
            PollFd::new(stdout.as_fd(), PollFlags::POLLOUT),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let can_write = fds[0].any().unwrap_or(false);
        if can_write {
            relay.write_output();
        }
        while let Some((signal, _)) = signals.next()? {
            if matches!(
                signal,
                libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT
            ) {
                return Ok(());
            }
        }
    }
    Ok(())
}
