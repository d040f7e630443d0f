//! `pause` and `resume`: by the cgroup's freezer.

use std::path::Path;

use anyhow::bail;

use super::status;
use crate::cgroups::Cgroup;
use crate::container::status::Status;

/// Stops every process of container `id`, and returns when all stand still.
///
/// # Errors
/// `container not running`, or the freezer's answer.
pub(crate) fn pause(root: &Path, id: &str) -> anyhow::Result<()> {
    let (_lock, state, status) = status::locked(root, id)?;
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
    let (_lock, state, status) = status::locked(root, id)?;
    if status != Status::Paused {
        bail!("container not paused");
    }
    Ok(Cgroup::from_record(&state.cgroup).thaw()?)
}
