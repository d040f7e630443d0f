//! Unbundle: removes a bundle that [`bundle`](super::bundle()) made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::errno::CallError;
use crate::store::{BundleId, BundleRecord, Store, StoreError};

/// The bundle that `name` means: its id, or the directory of its config.json.
///
/// # Errors
/// When there is none.
pub fn find_bundle(store: &Store, name: &str) -> anyhow::Result<BundleRecord> {
    let found = look_for_bundle(store, name)?;
    found.ok_or_else(|| StoreError::NoBundle(name.to_owned()).into())
}

/// The same; None if there is no such bundle.
///
/// # Errors
/// When the store is unreadable.
pub fn look_for_bundle(store: &Store, name: &str) -> Result<Option<BundleRecord>, StoreError> {
    if let Ok(id) = name.parse::<BundleId>()
        && let Some(record) = store.bundle(&id)?
    {
        return Ok(Some(record));
    }
    let Some(directory) = real_path(Path::new(name)) else {
        return Ok(None);
    };
    let mut bundles = store.bundles()?.into_iter();
    Ok(bundles.find(|bundle| bundle.directory == directory))
}

/// Where `path` leads, though the last part of it may be gone: who has deleted a bundle's directory
/// still calls the bundle by it.
fn real_path(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|there| {
        let real = there.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(there).ok()?))
    })
}

/// Removes the bundle `name` (an id or a directory) and its root file system.
/// Of a directory outside of the store, `config.json` goes, and the directory
/// if nothing else is in it.
///
/// # Errors
/// When there is none, or its root is in use.
pub fn unbundle(store: &Store, name: &str) -> anyhow::Result<BundleRecord> {
    try_unbundle(store, name).with_context(|| format!("unbundle {name:?}"))
}

fn try_unbundle(store: &Store, name: &str) -> anyhow::Result<BundleRecord> {
    let record = find_bundle(store, name)?;
    let id: BundleId = record.id.parse()?;
    store.remove_bundle(&id)?;
    if !record.directory.starts_with(store.path()) {
        remove_outside(&record.directory)?;
    }
    Ok(record)
}

fn remove_outside(directory: &Path) -> Result<(), CallError> {
    let config = directory.join(bundles::Bundle::CONFIG_JSON);
    match fs::remove_file(&config) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(CallError::new("unlink", config, error));
        }
        _ => {}
    }
    match fs::remove_dir(directory) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(CallError::new("rmdir", directory, error))
        }
        _ => Ok(()),
    }
}
