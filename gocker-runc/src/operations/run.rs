//! `run`: `create` and `start` in one, and in the foreground waiting for the end, too.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, anyhow};
use nix::sys::prctl;
use nix::sys::wait::WaitStatus;

use super::create::{Created, Mode, Request, create};
use super::{delete, start, undo};
use crate::container::state_dir::StateDir;
use crate::process::attend::{Attended, Signals, attend};
use crate::process::handshake::{FromInit, RuntimeEnd, ToInit};

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
    if request.mode == Mode::Foreground && !afterwards.no_subreaper {
        prctl::set_child_subreaper(true).context("prctl(CHILD_SUBREAPER)")?;
    }
    let signals = match request.mode {
        // Before the clone, so that none is lost.
        Mode::Foreground => Some(Signals::block().context("signalfd")?),
        Mode::Create | Mode::Detached => None,
    };
    let Created {
        dir,
        state,
        pid,
        pidfd,
        end,
        master,
    } = create(request)?;
    if let Err(error) = execute(end) {
        if let Some(file) = request.pid_file {
            // There is no process that it could name.
            drop(std::fs::remove_file(file));
        }
        delete::kill_and_remove(dir, &state)?;
        return Err(error);
    }
    start::run_poststart(dir, &state)?;
    let Some(signals) = signals else { return Ok(0) };
    let attended = Attended {
        pid,
        pidfd: pidfd.as_fd(),
    };
    let status = match attend(&attended, master, &signals).context("attend the container") {
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

/// Lets init execute the process, and waits for the outcome.
fn execute(end: RuntimeEnd) -> anyhow::Result<()> {
    end.send(ToInit::Start)?;
    match end.receive()? {
        Some(FromInit::Failed(why)) => Err(anyhow!(why)),
        // The end of the conversation: execve(2) has closed init's side.
        _ => Ok(()),
    }
}

pub(super) fn exit_status(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => u8::try_from(code).unwrap_or(u8::MAX),
        WaitStatus::Signaled(_, signal, _) => u8::try_from(128 + signal as i32).unwrap_or(u8::MAX),
        _ => u8::MAX,
    }
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
