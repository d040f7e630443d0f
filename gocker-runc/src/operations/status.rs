//! Finds out where a container stands.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};

use super::State;
use crate::cgroups::Cgroup;
use crate::container::state_dir::StateDir;
use crate::container::status::Status;
use crate::process::start_socket;

/// The status of the container in directory `dir`, whose lock the caller may hold.
///
/// # Errors
/// The freezer's answer.
pub(crate) fn of(dir: &Path, state: &State) -> anyhow::Result<Status> {
    let Some(init) = state.init else {
        return Ok(Status::Creating);
    };
    let Some(name) = init.name() else {
        return Ok(Status::Stopped);
    };
    if Cgroup::from_record(&state.cgroup).is_frozen()? {
        return Ok(Status::Paused);
    }
    if name.as_bytes() == start_socket::WAITING.to_bytes() && dir.join(start_socket::NAME).exists()
    {
        return Ok(Status::Created);
    }
    Ok(Status::Running)
}

/// The same without the lock: one that is being created by nobody any more is stopped.
///
/// # Errors
/// As [`of`].
pub(crate) fn seen_from_outside(dir: &Path, state: &State) -> anyhow::Result<Status> {
    match of(dir, state)? {
        Status::Creating if !is_locked(dir) => Ok(Status::Stopped),
        status => Ok(status),
    }
}

/// Container `id`, which nobody changes for as long as the lock is held, and its status.
///
/// # Errors
/// There is none, or its files cannot be read.
pub(super) fn locked(root: &Path, id: &str) -> anyhow::Result<(StateDir, State, Status)> {
    let dir = StateDir::open(root, id)?;
    let state: State = dir
        .read_state()?
        .context("container does not exist: its creation was cut short")?;
    let status = of(&dir.file(""), &state)?;
    Ok((dir, state, status))
}

fn is_locked(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}
