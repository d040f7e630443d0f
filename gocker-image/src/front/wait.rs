//! Waiting for the runtime's process, and passing on the signals that are
//! meant for the container.

use std::process::{Child, ExitStatus};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// What is passed on. SIGKILL and SIGSTOP cannot be.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// Signals that wait to be read instead of ending this program.
pub(crate) struct HeldSignals(SignalFd);

impl HeldSignals {
    /// Holds all that is passed on, and the one that says that a child ended.
    /// To be called before the child is started, and with no other thread.
    pub(crate) fn hold() -> anyhow::Result<Self> {
        let mut held: SigSet = PASSED_ON.into_iter().collect();
        held.add(Signal::SIGCHLD);
        held.thread_block().context("hold signals")?;
        let signals = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC).context("hold signals")?;
        Ok(Self(signals))
    }

    /// Waits for the end of `child`.
    pub(crate) fn wait(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait().context("wait for the runtime")? {
                return Ok(status);
            }
            let info = match self.0.read_signal() {
                Ok(Some(info)) => info,
                Ok(None) | Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno).context("read a signal"),
            };
            // the terminal sends its signals to the whole foreground group, so
            // the runtime has got those already
            let from_terminal = info.ssi_code == libc::SI_KERNEL;
            let signal = i32::try_from(info.ssi_signo)
                .ok()
                .and_then(|number| Signal::try_from(number).ok());
            if let Some(signal) =
                signal.filter(|signal| *signal != Signal::SIGCHLD && !from_terminal)
            {
                pass_on(child, signal)?;
            }
        }
    }
}

fn pass_on(child: &Child, signal: Signal) -> anyhow::Result<()> {
    // not reaped yet, so the pid is still the child's
    let pid = Pid::from_raw(i32::try_from(child.id()).context("the runtime's pid")?);
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("pass on {signal}")),
    }
}
