//! Free space: in the store, and around it where it lies in a sparse file.
//!
//! A sparse file that cannot grow any more is an I/O error to the file system in it, which is then
//! read-only until it is mounted again. So what is written into such a store is counted, and the
//! disk around it must have room for all that is not there yet.

use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::{Statvfs, statvfs};

use super::{Store, StoreError};
use crate::errno::CallError;
use crate::loop_device;

/// How often, and after which pause, free space is looked for again.
const RECLAIM_TRIES: u32 = 20;
const RECLAIM_PAUSE: Duration = Duration::from_millis(150);
/// With less free space than this, what failed is waited for until it is gone.
const LOW_BYTES: u64 = 64 << 20;
/// After so many bytes the disk around a store is looked at.
const STEP_BYTES: u64 = 8 << 20;
/// What is to be free around a store beyond what is on its way: for what the file system keeps of
/// its own, and for what else is written meanwhile.
const RESERVE_BYTES: u64 = 32 << 20;

/// What has no space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The file system that the store lies on.
    FileSystem,
    /// The file system in the store's own file.
    File,
    /// The file system that the store's own file lies on.
    Around,
}

impl Place {
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::FileSystem => "remove images that are not needed (rm, prune)",
            Self::File => {
                "remove images that are not needed (rm, prune), or make the store larger (grow)"
            }
            Self::Around => "free some space around the store, or remove images (rm, prune)",
        }
    }
}

impl Store {
    /// Checks that at least `needed` bytes are free, in the store and, where it
    /// is loop-backed, in the file system around it.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_free(&self, needed: u64) -> Result<(), StoreError> {
        self.wait_for(needed)?.map_or(Ok(()), Err)
    }

    /// Says of `source`, which found no space in the store, what is full.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn filled(
        &self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Result<StoreError, StoreError> {
        let stat = stat(&self.path)?;
        Ok(StoreError::Filled {
            path: self.root.clone(),
            place: self.inner_place(),
            size: stat.blocks().saturating_mul(stat.fragment_size()),
            source: Box::new(source),
        })
    }

    /// Waits for a moment, if little is free in the store, for what the kernel frees of removed
    /// subvolumes in the background.
    ///
    /// # Errors
    /// When the store cannot be looked at.
    pub(super) fn wait_for_removed(&self) -> Result<(), StoreError> {
        for _ in 0..RECLAIM_TRIES {
            if free_bytes(&self.path)? >= LOW_BYTES {
                break;
            }
            self.sync()?;
            std::thread::sleep(RECLAIM_PAUSE);
        }
        Ok(())
    }

    /// Waits for a moment, if `needed` bytes are not free, for what the kernel
    /// frees of removed subvolumes in the background. Says where they are not
    /// free after that.
    fn wait_for(&self, needed: u64) -> Result<Option<StoreError>, StoreError> {
        for _ in 0..RECLAIM_TRIES {
            if self.shortage(needed)?.is_none() {
                return Ok(None);
            }
            self.sync()?;
            std::thread::sleep(RECLAIM_PAUSE);
        }
        Ok(self.shortage(needed)?)
    }

    /// Where less than `needed` bytes are free, and how many are.
    fn shortage(&self, needed: u64) -> Result<Option<StoreError>, CallError> {
        let free = free_bytes(&self.path)?;
        if free < needed {
            let (path, place) = (self.path.clone(), self.inner_place());
            return Ok(Some(StoreError::Full {
                path,
                place,
                needed,
                free,
            }));
        }
        self.shortage_around(needed)
    }

    /// As [`Store::shortage`], for the file system around the store.
    fn shortage_around(&self, needed: u64) -> Result<Option<StoreError>, CallError> {
        let Some(file) = loop_device::file_size(&self.root).filter(|_| self.has_own_file_system())
        else {
            return Ok(None);
        };
        // what the file has already it need not get
        let needed = needed.min(file.bytes.saturating_sub(file.allocated_bytes));
        let free = free_bytes(&self.root)?;
        if free >= needed {
            return Ok(None);
        }
        let (path, place) = (self.root.clone(), Place::Around);
        Ok(Some(StoreError::Full {
            path,
            place,
            needed,
            free,
        }))
    }

    fn inner_place(&self) -> Place {
        if self.has_own_file_system() {
            Place::File
        } else {
            Place::FileSystem
        }
    }
}

/// The room that is left for what is written into a store.
#[derive(Debug)]
pub struct Room<'store> {
    store: &'store Store,
    /// What may not be on the disk yet.
    on_its_way: u64,
    /// What came after the disk was looked at.
    unlooked: u64,
}

impl<'store> Room<'store> {
    /// The room in `store`, before anything is written.
    #[must_use]
    pub fn new(store: &'store Store) -> Self {
        Self {
            store,
            on_its_way: 0,
            unlooked: 0,
        }
    }

    /// Counts `bytes` that are about to be written.
    ///
    /// # Errors
    /// When the disk around the store has no room for them.
    pub fn take(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.unlooked += bytes;
        if self.unlooked < STEP_BYTES || !self.store.has_own_file_system() {
            return Ok(());
        }
        self.on_its_way += std::mem::take(&mut self.unlooked);
        let needed = self.on_its_way + RESERVE_BYTES;
        if self.store.shortage_around(needed)?.is_none() {
            return Ok(());
        }
        // some of it may be there already
        self.store.sync()?;
        self.on_its_way = 0;
        let short = self.store.shortage_around(STEP_BYTES + RESERVE_BYTES)?;
        short.map_or(Ok(()), Err)
    }
}

fn stat(path: &Path) -> Result<Statvfs, CallError> {
    statvfs(path).map_err(|errno| CallError::new("statvfs", path, errno))
}

fn free_bytes(path: &Path) -> Result<u64, CallError> {
    let stat = stat(path)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}
