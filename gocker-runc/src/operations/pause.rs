//! `pause` and `resume`: by the cgroup's freezer.

use std::path::Path;

use anyhow::{Context, bail};

use super::{State, status};
use crate::cgroups::Cgroup;
use crate::container::state_dir::StateDir;
use crate::container::status::Status;

/// Stops every process of container `id`, and returns when all stand still.
///
/// # Errors
/// `container not running`, or the freezer's answer.
pub(crate) fn pause(root: &Path, id: &str) -> anyhow::Result<()> {
    let (_lock, state, status) = look(root, id)?;
    if !matches!(status, Status::Running | Status::Created) {
        bail!("container not running");
    }
    Ok(Cgroup::from_record(&state.cgroup).freeze()?)
}

/// Lets every process of container `id` go on.
///
/// # Errors
/// `container not paused`, or the freezer's answer.
pub(crate) fn resume(root: &Path, id: &str) -> anyhow::Result<()> {
    let (_lock, state, status) = look(root, id)?;
    if status != Status::Paused {
        bail!("container not paused");
    }
    Ok(Cgroup::from_record(&state.cgroup).thaw()?)
}

/// The container, which nobody deletes for as long as the lock is held.
fn look(root: &Path, id: &str) -> anyhow::Result<(StateDir, State, Status)> {
    let dir = StateDir::open(root, id)?;
    let state: State = dir
        .read_state()?
        .context("container does not exist: its creation was cut short")?;
    let status = status::of(&dir.file(""), &state)?;
    Ok((dir, state, status))
}
