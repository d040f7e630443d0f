//! Prune: removes what nothing refers to.

use anyhow::Context;

use crate::store::{Removed, Store, Unused};

/// Removes the images that `unused` says, layers that no image needs, and what
/// killed commands left behind.
///
/// # Errors
/// When something cannot be removed.
pub fn prune(store: &Store, unused: Unused) -> anyhow::Result<Removed> {
    store.prune(unused).context("prune")
}
