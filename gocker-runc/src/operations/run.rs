//! `run`: `create` and `start` in one, and in the foreground waiting for the end, too.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, anyhow};
use nix::sys::prctl;
use nix::unistd::Pid;

use super::create::{Created, Mode, Request, create};
use super::{State, activation, delete, start, undo};
use crate::container::state_dir::StateDir;
use crate::process::attend::{Attended, Beside, Signals, attend};
use crate::process::handshake::{FromInit, RuntimeEnd, ToInit};
use crate::process::notify::Notify;
use crate::sys::wait::Ended;

/// What happens around the container in the foreground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Afterwards {
    /// `--keep`: the container stays when it has stopped.
    pub(crate) keep: bool,
    /// `--no-subreaper`: the container's orphans are somebody else's.
    pub(crate) no_subreaper: bool,
}

/// Makes and starts a container. Returns the exit status to pass on: the process's own in the
/// foreground, 0 when detached.
///
/// # Errors
/// As [`create`]'s, and what init says when the process cannot be executed.
pub(crate) fn run(request: &Request<'_>, afterwards: Afterwards) -> anyhow::Result<u8> {
    let signals = take_signals(request.mode, afterwards)?;
    let Created {
        dir,
        state,
        pid,
        pidfd,
        end,
        master,
    } = create(request)?;
    let listening = activation::listen(request.activation.notify_socket.as_ref(), &dir.file(""));
    let executed = listening.and_then(|notify| execute(end).map(|()| notify));
    let notify = match executed {
        Ok(notify) => notify,
        Err(error) => {
            if let Some(file) = request.pid_file {
                // There is no process that it could name.
                drop(std::fs::remove_file(file));
            }
            delete::kill_and_remove(dir, &state)?;
            return Err(error);
        }
    };
    let running = Running {
        dir,
        state,
        pid,
        pidfd,
        master,
        notify,
    };
    follow(request, running, signals, afterwards)
}

/// A container whose process runs.
pub(super) struct Running {
    /// Its locked directory.
    pub(super) dir: StateDir,
    /// What `state.json` says.
    pub(super) state: State,
    /// Its first process.
    pub(super) pid: Pid,
    /// That, and no later process of that id.
    pub(super) pidfd: OwnedFd,
    /// The terminal's master, in the foreground.
    pub(super) master: Option<OwnedFd>,
    /// Where it says that it is ready.
    pub(super) notify: Option<Notify>,
}

/// Prepares this process for one in the foreground, before there is any.
///
/// # Errors
/// The call that failed.
pub(super) fn take_signals(mode: Mode, afterwards: Afterwards) -> anyhow::Result<Option<Signals>> {
    if mode != Mode::Foreground {
        return Ok(None);
    }
    if !afterwards.no_subreaper {
        prctl::set_child_subreaper(true).context("prctl(CHILD_SUBREAPER)")?;
    }
    // Before the clone, so that none is lost.
    Signals::block().context("signalfd").map(Some)
}

/// What comes once the process runs: `poststart` hooks, and in the foreground, where there are
/// `signals`, to wait for its end. Returns the exit status to pass on.
///
/// # Errors
/// A hook that failed, or a call that waits.
pub(super) fn follow(
    request: &Request<'_>,
    running: Running,
    signals: Option<Signals>,
    afterwards: Afterwards,
) -> anyhow::Result<u8> {
    let Running {
        dir,
        state,
        pid,
        pidfd,
        master,
        notify,
    } = running;
    start::run_poststart(dir, &state)?;
    let Some(signals) = signals else {
        if let Some(notify) = notify {
            activation::warn_unheard(notify.wait(pidfd.as_fd(), pid));
        }
        return Ok(0);
    };
    // In the foreground it is this process that the service manager started and watches.
    let mut forward = || forward(notify.as_ref());
    let beside = notify.as_ref().map(|notify| Beside {
        fd: notify.as_fd(),
        take: &mut forward,
    });
    let attended = Attended {
        pid,
        pidfd: pidfd.as_fd(),
    };
    let status = match attend(&attended, master, &signals, beside).context("attend the container") {
        Ok(status) => exit_status(status),
        Err(error) => {
            // Nobody would be left to attend to it.
            undo::kill_and_wait(&pidfd)?;
            remove(request.root, request.id)?;
            return Err(error);
        }
    };
    if !afterwards.keep {
        remove(request.root, request.id)?;
    }
    undo::reap();
    Ok(status)
}

/// Passes on that the container is ready; returns whether there is more to wait for.
fn forward(notify: Option<&Notify>) -> bool {
    match notify.map_or(Ok(None), |notify| notify.forward(Pid::this())) {
        Ok(manager) => manager.is_none(),
        Err(error) => {
            activation::warn_unheard(Err(error));
            false
        }
    }
}

/// Lets init execute the process, and waits for the outcome.
fn execute(end: RuntimeEnd) -> anyhow::Result<()> {
    end.send(ToInit::Start)?;
    match end.receive()? {
        Some(FromInit::Failed(why)) => Err(anyhow!(why)),
        // The end of the conversation: execve(2) has closed init's side.
        _ => Ok(()),
    }
}

pub(super) fn exit_status(ended: Ended) -> u8 {
    let status = match ended {
        Ended::Exited(status) => status,
        Ended::Killed(signal) => 128 + signal,
    };
    u8::try_from(status).unwrap_or(u8::MAX)
}

/// Somebody else may have deleted it meanwhile.
fn remove(root: &Path, id: &str) -> anyhow::Result<()> {
    use crate::container::state_dir::Error;
    let dir = match StateDir::open(root, id) {
        Err(Error::Missing) => return Ok(()),
        opened => opened?,
    };
    match dir.read_state()? {
        Some(state) => delete::remove(dir, &state),
        None => Ok(dir.remove()?),
    }
}
