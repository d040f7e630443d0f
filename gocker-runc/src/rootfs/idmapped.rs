//! Id-mapped mounts: the owners of a bind mount's files are shown by a mapping.
//!
//! The runtime maps a detached copy of the source before the container process is made: only
//! who has power over the filesystem may, and only while the mount is nowhere attached.
//!
//! Spec: config.md#linux-mount-options, mount_setattr(2)

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use bundles::FieldError;
use bundles::config::linux::id_mappings::IdMapping;
use nix::errno::Errno;

use super::mount::{MountPlan, What, open_source};
use crate::sys::errno::describe;
use crate::sys::mount_api::{MountAttr, Recursive, attr, mount_setattr};

/// How the owners of one mount are shown.
#[derive(Debug)]
pub(crate) struct IdMap {
    /// The mount's place in config.json.
    pub(crate) mount: usize,
    /// This mount alone, or all below it, too.
    pub(crate) recursive: Recursive,
    /// The mapping.
    pub(crate) ids: Ids,
}

/// Where a mapping comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Users and groups, listed.
    Mapped(Vec<IdMapping>, Vec<IdMapping>),
    /// As the user namespace that this file is.
    OfNamespace(PathBuf),
}

/// Copies the source of `plan` and shows its owners as the user namespace `ids` maps them.
///
/// Runs in: runtime namespace, before the clone.
///
/// # Errors
/// The mount's field, and why the filesystem or the kernel refuses.
pub(crate) fn open_mapped(plan: &mut MountPlan, ids: &OwnedFd) -> Result<(), FieldError> {
    let (Some(map), What::Bind { source, tree }) = (&plan.id_map, &mut plan.what) else {
        return Ok(());
    };
    let field = |name: &str| format!("mounts[{}].{name}", map.mount);
    let opened = open_source(source, plan.options.bind)
        .map_err(|error| FieldError::new(field("source"), error.to_string()))?;
    let namespace = u64::try_from(ids.as_raw_fd()).unwrap_or(u64::MAX);
    let attributes = MountAttr {
        set: attr::IDMAP,
        user_namespace: namespace,
        ..MountAttr::default()
    };
    mount_setattr(&opened, map.recursive, attributes).map_err(|errno| {
        let why = match errno {
            Errno::EINVAL => ": a filesystem there cannot be id-mapped on this kernel",
            Errno::EPERM => ": it is id-mapped already, or its filesystem belongs to somebody else",
            Errno::ENOSYS => ": id-mapped mounts need Linux 5.12 or later",
            _ => "",
        };
        let problem = format!("{source:?}: mount_setattr(IDMAP): {}{why}", describe(errno));
        FieldError::new(field("options"), problem)
    })?;
    *tree = Some(opened);
    Ok(())
}
