//! Finds out where a container stands.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::State;
use crate::cgroups::Cgroup;
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
    if !init.is_alive() {
        return Ok(Status::Stopped);
    }
    if Cgroup::from_record(&state.cgroup).is_frozen()? {
        return Ok(Status::Paused);
    }
    if dir.join(start_socket::NAME).exists() {
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

fn is_locked(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}
