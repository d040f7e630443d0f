//! Where roots are mounted outside of a container, so that nothing takes them away meanwhile.
//!
//! ```text
//! mounts/sha256-<of what and where>.json   a record; written before the mount is made, and
//!                                          removed after it
//! mounts/sha256-<…>/                       where it is mounted, unless a user said where
//! ```
//!
//! A record without a mount holds no more than is needed: it goes by `umount` or `prune`, and a
//! record of an earlier boot, which no mount can have survived, counts for nothing.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};

use super::blob::Flush;
use super::lock::Lock;
use super::record::entries;
use super::{Store, StoreError, blob, layout, make_dir, mount_table};
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

/// Something that lies in `mounts/`.
#[derive(Debug)]
pub(super) enum MountEntry {
    /// The record of something that is mounted.
    Live(MountRecord),
    /// What is left of a mount that is no more, and the directory where it was.
    Gone(&'static str, PathBuf),
    /// What does not say what is mounted, and the directory where something is.
    Bad(String, Option<PathBuf>),
    /// Nothing of this program.
    Stranger,
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

    /// Whether something is mounted at its directory, in the mount namespace of this process.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn is_mounted(&self) -> Result<bool, CallError> {
        let table = mount_table::own()?;
        Ok(mount_table::points(&table).any(|point| point == self.directory))
    }

    fn file_name(&self) -> String {
        record_name(&self.directory)
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

    /// Takes `mount` away and forgets it. One that is not there is as good as gone.
    ///
    /// # Errors
    /// When it is in use, or its record cannot be removed.
    pub fn unmount(&self, mount: &MountRecord) -> Result<(), StoreError> {
        unbind(&mount.directory)?;
        let record = layout::record(&self.path, MOUNTS, &mount.file_name());
        self.forget_mount(&record, Some(&mount.directory))
    }

    /// Unmounts what is mounted at `directory`, and removes `path`, which is a record or the
    /// directory itself. False if it is in use.
    pub(super) fn repair_mount(
        &self,
        path: &Path,
        directory: Option<&Path>,
    ) -> Result<bool, StoreError> {
        let _lock = self.lock_mounts()?;
        match directory.map(unbind) {
            Some(Err(error)) if error.errno() == Some(Errno::EBUSY) => return Ok(false),
            Some(result) => result?,
            None => {}
        }
        self.forget_mount(path, directory)?;
        Ok(true)
    }

    /// Removes what is left of mounts that are no more. Says how much that was.
    pub(super) fn sweep_mounts(&self) -> Result<usize, StoreError> {
        if !self.path.join(MOUNTS).exists() {
            return Ok(0);
        }
        let _lock = self.lock_mounts()?;
        let mut swept = 0;
        for (path, entry) in self.mount_entries()? {
            if let MountEntry::Gone(_, directory) = entry {
                self.forget_mount(&path, Some(&directory))?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// All that lies in `mounts/`. The lock of mounts is held.
    pub(super) fn mount_entries(&self) -> Result<Vec<(PathBuf, MountEntry)>, StoreError> {
        let directory = self.path.join(MOUNTS);
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let (boot, mounted) = (boot()?, mount_table::points_everywhere()?);
        let mut found = Vec::new();
        for (name, path) in entries(&directory)? {
            let stem = name.strip_suffix(".json");
            let is_own = layout::digest(stem.unwrap_or(&name)).is_some();
            let entry = match stem {
                Some(stem) if is_own => Some(record_entry(stem, &path, &boot, &mounted)?),
                None if is_own && path.is_dir() => self.place_entry(&path, &mounted),
                _ => Some(MountEntry::Stranger),
            };
            found.extend(entry.map(|entry| (path, entry)));
        }
        Ok(found)
    }

    /// What is to be said of a place of the store's own; nothing if its record says it.
    fn place_entry(&self, path: &Path, mounted: &HashSet<PathBuf>) -> Option<MountEntry> {
        let record = layout::record(&self.path, MOUNTS, &record_name(path));
        if matches!(blob::read::<MountRecord>(&record), Ok(Some(_))) {
            return None;
        }
        let directory = path.to_owned();
        Some(if mounted.contains(path) {
            let problem = "it is mounted, and no record says of what";
            MountEntry::Bad(problem.to_owned(), Some(directory))
        } else {
            MountEntry::Gone("the place of a mount that is no more", directory)
        })
    }

    /// Removes `path` and, where it is the store's own, the directory that was a mount's.
    fn forget_mount(&self, path: &Path, directory: Option<&Path>) -> Result<(), StoreError> {
        if let Some(directory) = directory
            && directory.starts_with(self.path.join(MOUNTS))
            && directory.is_dir()
        {
            match fs::remove_dir(directory) {
                // what somebody has put there is none of ours
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                    return Err(CallError::new("rmdir", directory, error).into());
                }
                _ => {}
            }
        }
        Ok(blob::remove(path)?)
    }
}

/// What the record `stem` is.
fn record_entry(
    stem: &str,
    path: &Path,
    boot: &str,
    mounted: &HashSet<PathBuf>,
) -> Result<MountEntry, StoreError> {
    Ok(match blob::read::<MountRecord>(path) {
        Ok(Some(record)) if record.file_name() != stem => {
            MountEntry::Bad("it is the record of another mount".to_owned(), None)
        }
        Ok(Some(record)) if record.boot != boot => {
            MountEntry::Gone("a mount of before the last boot", record.directory)
        }
        Ok(Some(record)) if !mounted.contains(&record.directory) => {
            MountEntry::Gone("a mount that is no more", record.directory)
        }
        Ok(Some(record)) => MountEntry::Live(record),
        Ok(None) => MountEntry::Gone("an empty record", path.to_owned()),
        Err(StoreError::Record { source, .. }) => {
            MountEntry::Bad(format!("it is not a record: {source}"), None)
        }
        Err(error) => return Err(error),
    })
}

/// The name of the record of what is mounted at `directory`.
fn record_name(directory: &Path) -> String {
    layout::name(&Digest::of(directory.as_os_str().as_encoded_bytes()))
}

/// Takes a mount away; one that is not there is as good as gone.
fn unbind(target: &Path) -> Result<(), CallError> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(CallError::new("umount2", target, errno)),
    }
}

fn boot() -> Result<String, CallError> {
    let boot = fs::read_to_string(BOOT_ID);
    let boot = boot.map_err(|error| CallError::new("read", BOOT_ID, error))?;
    Ok(boot.trim().to_owned())
}
