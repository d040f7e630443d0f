//! `update`: changes the limits of a living container.

use std::path::Path;

use anyhow::{Context, bail};
use bundles::config::linux::resources::Resources;
use bundles::config::parse;

use super::status;
use crate::cgroups::Cgroup;
use crate::container::status::Status;

/// What Intel RDT is to be changed to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rdt<'a> {
    /// `--l3-cache-schema`
    pub(crate) l3_cache_schema: Option<&'a str>,
    /// `--mem-bw-schema`
    pub(crate) mem_bw_schema: Option<&'a str>,
}

impl Rdt<'_> {
    fn is_given(&self) -> bool {
        self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some()
    }
}

/// Sets what `json`, an object as `linux.resources` is one, asks for; the rest stays.
///
/// # Errors
/// `container not running`; the field that is wrong or cannot be served, and then nothing has
/// changed; the file and the kernel's answer.
pub(crate) fn update(root: &Path, id: &str, json: &[u8], rdt: &Rdt<'_>) -> anyhow::Result<()> {
    let (_lock, state, status) = status::locked(root, id)?;
    if matches!(status, Status::Stopped | Status::Creating) {
        bail!("container not running");
    }
    let spec = parse::resources(json).context("resources")?;
    let resources = Resources::from_spec(Some(&spec))?;
    if rdt.is_given() {
        let groups = state.rdt.as_ref();
        let groups = groups
            .context("--l3-cache-schema, --mem-bw-schema: the container has no linux.intelRdt")?;
        groups.update(rdt.l3_cache_schema, rdt.mem_bw_schema)?;
    }
    let cgroup = Cgroup::from_record(&state.cgroup);
    Ok(cgroup.update(&resources, state.unit.as_ref())?)
}
