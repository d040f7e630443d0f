//! Usage: what the store takes, and how much more it may take.

use anyhow::Context;

use crate::store::{Store, Usage};

/// What everything in the store takes.
///
/// # Errors
/// When the store cannot be read.
pub fn usage(store: &Store) -> anyhow::Result<Usage> {
    store.usage().context("df")
}

/// Lets the file that the store lies in grow. Returns the size that it had.
///
/// # Errors
/// When there is no such file, it would shrink, or the disk around it is too small.
pub fn grow(store: &Store, size_bytes: u64) -> anyhow::Result<u64> {
    store.grow(size_bytes).context("grow")
}
