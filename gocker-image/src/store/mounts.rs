//! Where roots are mounted outside of a container, so that nothing takes them away meanwhile.
//!
//! ```text
//! mounts/sha256-<of what and where>.json   a record; written before the mount is made, and
//!                                          removed after it
//! mounts/sha256-<…>/                       where it is mounted, unless a user said where
//! ```
//!
//! A record without a mount holds no more than is needed: it goes by `umount`, and a record of an
//! earlier boot, which no mount can have survived, counts for nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::blob::Flush;
use super::lock::Lock;
use super::{Store, StoreError, blob, layout, make_dir};
use crate::digest::Digest;
use crate::errno::CallError;

/// What says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The directory of the records.
const MOUNTS: &str = "mounts";

/// A root that is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// The image's name, or the bundle's id.
    pub name: String,
    /// The image, or the one that the bundle was made of.
    pub manifest: Digest,
    /// The bundle; None for an image.
    pub bundle: Option<String>,
    /// Where it is mounted.
    pub directory: PathBuf,
    /// When the machine was started.
    boot: String,
}

impl MountRecord {
    /// What is to be mounted. Where it is not said, it is a place of the store's own.
    ///
    /// # Errors
    /// When the kernel does not tell which boot this is.
    pub fn new(
        store: &Store,
        (name, manifest): (&str, &Digest),
        bundle: Option<&str>,
        directory: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let own = layout::name(&Digest::of(format!("{manifest} {bundle:?}").as_bytes()));
        Ok(Self {
            name: name.to_owned(),
            manifest: manifest.clone(),
            bundle: bundle.map(str::to_owned),
            directory: directory.map_or_else(|| store.path.join(MOUNTS).join(own), Path::to_owned),
            boot: boot()?,
        })
    }

    fn file_name(&self) -> String {
        layout::name(&Digest::of(self.directory.as_os_str().as_encoded_bytes()))
    }
}

impl Store {
    /// Keeps other commands from mounting and unmounting.
    ///
    /// # Errors
    /// When the lock cannot be had.
    pub fn lock_mounts(&self) -> Result<Lock, StoreError> {
        Ok(Lock::exclusive(&self.lock_path(MOUNTS))?)
    }

    /// All mounts that were made since the machine was started.
    ///
    /// # Errors
    /// When a record is unreadable.
    pub fn mounts(&self) -> Result<Vec<MountRecord>, StoreError> {
        if !self.path.join(MOUNTS).exists() {
            return Ok(Vec::new());
        }
        let mut mounts: Vec<MountRecord> = self.records(MOUNTS)?;
        if !mounts.is_empty() {
            let now = boot()?;
            mounts.retain(|mount| mount.boot == now);
        }
        Ok(mounts)
    }

    /// Notes that `mount` is about to be made. Makes its directory if that is the store's own.
    ///
    /// # Errors
    /// When something is mounted there, or the record cannot be written.
    pub fn put_mount(&self, mount: &MountRecord) -> Result<(), StoreError> {
        let directory = self.path.join(MOUNTS);
        make_dir(&directory)?;
        if mount.directory.starts_with(&directory) {
            make_dir(&mount.directory)?;
        }
        let path = layout::record(&self.path, MOUNTS, &mount.file_name());
        // one of an earlier boot
        blob::remove(&path)?;
        Ok(blob::write_new(&path, &blob::encode(mount)?, Flush::Now)?)
    }

    /// Forgets `mount`, which is no more.
    ///
    /// # Errors
    /// When its record cannot be removed.
    pub fn remove_mount(&self, mount: &MountRecord) -> Result<(), StoreError> {
        blob::remove(&layout::record(&self.path, MOUNTS, &mount.file_name()))?;
        if mount.directory.starts_with(self.path.join(MOUNTS)) {
            match fs::remove_dir(&mount.directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CallError::new("rmdir", &mount.directory, error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn boot() -> Result<String, CallError> {
    let boot = fs::read_to_string(BOOT_ID);
    let boot = boot.map_err(|error| CallError::new("read", BOOT_ID, error))?;
    Ok(boot.trim().to_owned())
}
