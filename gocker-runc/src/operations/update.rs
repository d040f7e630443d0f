//! `update`: changes the limits of a living container.

use std::path::Path;

use anyhow::{Context, bail};
use bundles::config::linux::resources::Resources;
use bundles::config::parse;

use super::status;
use crate::cgroups::Cgroup;
use crate::container::status::Status;

/// Sets what `json`, an object as `linux.resources` is one, asks for; the rest stays.
///
/// # Errors
/// `container not running`; the field that is wrong or cannot be served, and then nothing has
/// changed; the file and the kernel's answer.
pub(crate) fn update(root: &Path, id: &str, json: &[u8]) -> anyhow::Result<()> {
    let (_lock, state, status) = status::locked(root, id)?;
    if matches!(status, Status::Stopped | Status::Creating) {
        bail!("container not running");
    }
    let spec = parse::resources(json).context("resources")?;
    let resources = Resources::from_spec(Some(&spec))?;
    let cgroup = Cgroup::from_record(&state.cgroup);
    Ok(cgroup.update(&resources, state.unit.as_ref())?)
}
