//! `checkpoint` and `restore`: their command lines are taken, and this version serves neither.

use std::path::Path;

use anyhow::bail;

use crate::container::state_dir;

const UNSERVED: &str = "this version of gocker-runc does not serve checkpoint and restore";

/// Refuses to save container `id`.
///
/// # Errors
/// There is no such container; or else that this is not served.
pub(crate) fn checkpoint(root: &Path, id: &str) -> anyhow::Result<()> {
    state_dir::existing(root, id)?;
    bail!(UNSERVED)
}

/// Refuses to bring container `id` back.
///
/// # Errors
/// There is such a container already; or else that this is not served.
pub(crate) fn restore(root: &Path, id: &str) -> anyhow::Result<()> {
    if state_dir::existing(root, id).is_ok() {
        return Err(state_dir::Error::Exists.into());
    }
    bail!(UNSERVED)
}
