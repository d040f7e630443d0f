//! Fsck: whether the store is whole, and the removal of what is not.

use anyhow::Context;

use crate::store::{FsckOptions, FsckReport, Store};

/// Looks through the whole store, and removes what is damaged if that is asked for.
///
/// # Errors
/// When the store cannot be read, or something damaged cannot be removed.
pub fn fsck(store: &Store, options: FsckOptions) -> anyhow::Result<FsckReport> {
    store.fsck(options).context("fsck")
}
