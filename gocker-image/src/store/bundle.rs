//! A bundle's directory in the store: the writable snapshot, `config.json` if
//! it lies here, and the record that is written last.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::blob::Flush;
use super::lock::Lock;
use super::record::BundleRecord;
use super::{BundleId, MountRecord, Store, StoreError, blob, layout, make_dir};
use crate::digest::Digest;
use crate::errno::CallError;

/// The name of the root file system in a bundle's directory.
pub(super) const ROOTFS: &str = "rootfs";

/// A bundle in the making. Dropping it destroys it.
#[derive(Debug)]
pub struct BundleDraft<'store> {
    store: &'store Store,
    id: BundleId,
    directory: PathBuf,
    rootfs: OwnedFd,
    finished: bool,
    _lock: Lock,
}

impl Store {
    /// Begins the bundle `id`: a writable snapshot of the chain `top`, or an
    /// empty root if there is none. Waits while another command makes or removes one of that id.
    ///
    /// # Errors
    /// When there is such a bundle, or the file system is full.
    pub fn begin_bundle(
        &self,
        id: &BundleId,
        top: Option<&Digest>,
    ) -> Result<BundleDraft<'_>, StoreError> {
        let check = || match self.bundle(id)? {
            None => Ok(()),
            Some(_) => Err(StoreError::BundleExists(id.to_string())),
        };
        // before it is waited for, since a command that uses it may hold it for long
        check()?;
        let lock = Lock::exclusive(&self.lock_path(&bundle_lock(id.as_str())))?;
        check()?;
        self.remove_bundle_files(id)?;
        let directory = self.path.join("bundles").join(id.as_str());
        make_dir(&directory)?;
        let dir = File::open(&directory).map_err(|e| CallError::new("open", &directory, e))?;
        let name = OsStr::new(ROOTFS);
        let rootfs = match top {
            None => self.trees.create(dir.as_fd(), name),
            Some(top) => {
                let source = self.open_layer(top)?;
                self.trees.copy(source.as_fd(), dir.as_fd(), name)
            }
        };
        let rootfs = match rootfs {
            Ok(rootfs) => rootfs,
            Err(error) => {
                self.remove_bundle_files(id)?;
                return Err(error.into());
            }
        };
        Ok(BundleDraft {
            store: self,
            id: id.clone(),
            directory,
            rootfs,
            finished: false,
            _lock: lock,
        })
    }

    /// The bundle `id`; None if there is none.
    ///
    /// # Errors
    /// When its record is unreadable.
    pub fn bundle(&self, id: &BundleId) -> Result<Option<BundleRecord>, StoreError> {
        let directory = self.path.join("bundles").join(id.as_str());
        blob::read(&directory.join(layout::BUNDLE_RECORD))
    }

    /// Holds the bundle `id`, so that nobody removes it meanwhile. Waits while another command
    /// makes or removes it.
    ///
    /// # Errors
    /// When there is none.
    pub fn hold_bundle(&self, id: &BundleId) -> Result<(BundleRecord, Lock), StoreError> {
        let lock = Lock::shared(&self.lock_path(&bundle_lock(id.as_str())))?;
        let record = self.bundle(id)?;
        let record = record.ok_or_else(|| StoreError::NoBundle(id.to_string()))?;
        Ok((record, lock))
    }

    /// Removes the bundle `id`, root file system and all.
    ///
    /// # Errors
    /// When there is none, or something is mounted in its root.
    pub fn remove_bundle(&self, id: &BundleId) -> Result<BundleRecord, StoreError> {
        let _lock = self.lock_bundle(id)?;
        let Some(record) = self.bundle(id)? else {
            return Err(StoreError::NoBundle(id.to_string()));
        };
        let of_this = |mount: &MountRecord| mount.bundle.as_deref() == Some(id.as_str());
        if let Some(mount) = self.mounts()?.into_iter().find(of_this) {
            return Err(StoreError::Mounted(id.to_string(), mount.directory));
        }
        // Whoever is killed from here on leaves a bundle without a record, which the next sweep
        // removes. If its root is in use, it is a bundle again.
        let directory = self.path.join("bundles").join(id.as_str());
        let path = directory.join(layout::BUNDLE_RECORD);
        let going = directory.join(format!("{}{}", layout::UNFINISHED, layout::BUNDLE_RECORD));
        rename(&path, &going)?;
        if let Err(error) = self.remove_bundle_files(id) {
            rename(&going, &path)?;
            return Err(error);
        }
        Ok(record)
    }

    /// Locks a bundle that is to go. Who makes, removes or sweeps it is waited for, who uses it
    /// is not.
    fn lock_bundle(&self, id: &BundleId) -> Result<Lock, StoreError> {
        let path = self.lock_path(&bundle_lock(id.as_str()));
        let lock = Lock::shared(&path)?;
        if lock.try_alone(&path)? {
            return Ok(lock);
        }
        Err(StoreError::BundleBusy(id.to_string()))
    }

    /// Removes whatever there is of the bundle `id`: the root first, since that
    /// alone can fail while a container uses it, and then the directory. The
    /// lock is held.
    pub(super) fn remove_bundle_files(&self, id: &BundleId) -> Result<bool, StoreError> {
        let directory = self.path.join("bundles").join(id.as_str());
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_DIRECTORY);
        let Ok(dir) = options.open(&directory) else {
            return Ok(false);
        };
        self.trees.remove(dir.as_fd(), OsStr::new(ROOTFS))?;
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CallError::new("rmdir", &directory, error).into())
            }
            _ => Ok(true),
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), CallError> {
    fs::rename(from, to).map_err(|error| CallError::new("rename", to, error))
}

/// The name of a bundle's lock.
pub(super) fn bundle_lock(id: &str) -> String {
    format!("bundle-{id}")
}

impl BundleDraft<'_> {
    /// The store that it lies in.
    pub(super) fn store(&self) -> &Store {
        self.store
    }

    /// The bundle's directory in the store.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the root file system lies.
    #[must_use]
    pub fn rootfs_path(&self) -> PathBuf {
        self.directory.join(ROOTFS)
    }

    /// The root file system.
    #[must_use]
    pub fn rootfs(&self) -> &OwnedFd {
        &self.rootfs
    }

    /// Writes the record: from now on the bundle exists.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn finish(mut self, record: &BundleRecord) -> Result<(), StoreError> {
        let bytes = blob::encode(record)?;
        blob::write_new(
            &self.directory.join(layout::BUNDLE_RECORD),
            &bytes,
            Flush::Now,
        )?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for BundleDraft<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // What is left of a failure here, the next sweep removes.
            drop(self.store.remove_bundle_files(&self.id));
        }
    }
}
