//! Diff: what a bundle's root has that the image has not that it was made of.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::Context;

use super::roots::{Rooted, hold_root};
use crate::pack::{Change, Kinship, compare};
use crate::store::Store;

/// What has changed in the root of `name` since `base`: the image that a bundle was made of, or
/// the layers below an image's topmost one, unless another is given.
///
/// # Errors
/// When one of them is not here or cannot be read.
pub fn diff(store: &Store, name: &Rooted, base: Option<&Rooted>) -> anyhow::Result<Vec<Change>> {
    let changes = match base {
        None => of_own(store, name),
        Some(base) => between(store, name, base),
    };
    changes.with_context(|| format!("diff {:?}", name.to_string()))
}

fn of_own(store: &Store, name: &Rooted) -> anyhow::Result<Vec<Change>> {
    let root = hold_root(store, name)?;
    let base = root.base.as_ref().map(|base| store.open_layer(base));
    // both bundles and layers begin as copies of what is below them
    changes(root.fd.as_ref(), base.transpose()?.as_ref(), Kinship::Copy)
}

fn between(store: &Store, name: &Rooted, base: &Rooted) -> anyhow::Result<Vec<Change>> {
    let root = hold_root(store, name)?;
    let other = hold_root(store, base).with_context(|| format!("{:?}", base.to_string()))?;
    let kinship = if other.chain.is_some() && other.chain == root.base {
        Kinship::Copy
    } else {
        Kinship::None
    };
    changes(root.fd.as_ref(), other.fd.as_ref(), kinship)
}

fn changes(
    new: Option<&File>,
    old: Option<&File>,
    kinship: Kinship,
) -> anyhow::Result<Vec<Change>> {
    let Some(new) = new else {
        return Ok(Vec::new());
    };
    Ok(compare(old.map(AsFd::as_fd), new.as_fd(), kinship)?)
}
