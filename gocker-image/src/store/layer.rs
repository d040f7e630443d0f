//! How a layer chain comes into the store: as a draft that nobody sees, then
//! under its name, then read-only, and with a record last of all.
//!
//! ```text
//! layers/.new-sha256-<hex>   a draft; its chain's lock is held
//! layers/sha256-<hex>        settled; without a record it counts for nothing
//! layers/sha256-<hex>.json   the record
//! ```
//!
//! A record promises that the layer is on disk. The snapshot that the next
//! layer begins with flushes the one below and commits it, so in a pull only
//! the topmost layer costs a sync of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use super::blob::Flush;
use super::lock::Lock;
use super::record::LayerRecord;
use super::{Store, StoreError, blob, layout};
use crate::digest::Digest;
use crate::errno::CallError;

/// Who looks for a layer finds it, or has to make it.
#[derive(Debug)]
pub enum Claim {
    /// It is here, and stays while this is held.
    Held(Held),
    /// It is not here, and nobody else makes it while this is held.
    ToMake(ToMake),
}

/// A layer that is here; garbage collection leaves it alone.
#[derive(Debug)]
pub struct Held {
    /// What is known of it.
    pub record: LayerRecord,
    _lock: Lock,
}

/// The right to make a layer.
#[derive(Debug)]
pub struct ToMake {
    chain_id: Digest,
    lock: Lock,
}

/// A layer in the making. Dropping it destroys it.
#[derive(Debug)]
pub struct Draft<'store> {
    store: &'store Store,
    to_make: Option<ToMake>,
    /// None only while it is dropped.
    root: Option<OwnedFd>,
}

/// A layer under its name, without a record yet. Dropping it leaves it to the
/// next sweep.
#[derive(Debug)]
pub struct Settled<'store> {
    store: &'store Store,
    made: ToMake,
}

impl Store {
    /// Finds or claims the chain `chain_id`. Waits while another process makes
    /// it; `waiting` is told then.
    ///
    /// # Errors
    /// When the record is unreadable or the lock cannot be had.
    pub fn claim(&self, chain_id: &Digest, waiting: &dyn Fn()) -> Result<Claim, StoreError> {
        let path = self.lock_path(&layer_lock(chain_id));
        let mut waited = false;
        loop {
            if waited || self.layer(chain_id)?.is_some() {
                // Shared, because its maker goes on holding it so.
                let lock = Lock::shared(&path)?;
                if let Some(record) = self.layer(chain_id)? {
                    return Ok(Claim::Held(Held {
                        record,
                        _lock: lock,
                    }));
                }
            }
            let Some(lock) = Lock::try_exclusive(&path)? else {
                if !waited {
                    waiting();
                }
                waited = true;
                continue;
            };
            waited = false;
            // Another process may have made it before the lock was had.
            if self.layer(chain_id)?.is_none() {
                let chain_id = chain_id.clone();
                return Ok(Claim::ToMake(ToMake { chain_id, lock }));
            }
        }
    }

    /// Begins a layer: a copy of `parent`, which is settled or recorded, or
    /// an empty tree.
    ///
    /// # Errors
    /// When the file system is full.
    pub fn begin_layer(
        &self,
        to_make: ToMake,
        parent: Option<&Digest>,
    ) -> Result<Draft<'_>, StoreError> {
        let name = layout::name(&to_make.chain_id);
        self.remove_layer_files(&name)?;
        let draft = OsString::from(format!("{}{name}", layout::UNFINISHED));
        let layers = self.open_dir("layers")?;
        let root = match parent {
            None => {
                let root = self.trees.create(layers.as_fd(), &draft)?;
                // Most images do not describe their root; it is of no date then.
                let epoch = TimeSpec::new(0, 0);
                futimens(&root, &epoch, &epoch)
                    .map_err(|errno| CallError::new("futimens", &draft, errno))?;
                root
            }
            Some(parent) => {
                let source = self.open_layer(parent)?;
                let root = self.trees.copy(source.as_fd(), layers.as_fd(), &draft)?;
                self.trees.commit_source(layers.as_fd())?;
                root
            }
        };
        Ok(Draft {
            store: self,
            to_make: Some(to_make),
            root: Some(root),
        })
    }

    /// A copy of the tree `rootfs` as it is in one moment, which goes when it is dropped.
    ///
    /// # Errors
    /// When the file system is full, or has no snapshots and the tree does not hold still while it
    /// is copied.
    pub fn freeze(&self, rootfs: &Path) -> Result<Draft<'_>, StoreError> {
        // a name that no chain of layers has
        let moment = SystemTime::now().duration_since(UNIX_EPOCH);
        let moment = moment.unwrap_or_default().as_nanos();
        let text = format!("{rootfs:?} {} {moment}", std::process::id());
        let Claim::ToMake(to_make) = self.claim(&Digest::of(text.as_bytes()), &|| {})? else {
            return Err(StoreError::Settled);
        };
        let source = File::open(rootfs).map_err(|e| CallError::new("open", rootfs, e))?;
        let name = layout::name(&to_make.chain_id);
        let draft = OsString::from(format!("{}{name}", layout::UNFINISHED));
        let layers = self.open_dir("layers")?;
        let mut frozen = Draft {
            store: self,
            to_make: Some(to_make),
            root: None,
        };
        let root = self.trees.freeze(source.as_fd(), layers.as_fd(), &draft)?;
        self.trees.close(root.as_fd())?;
        frozen.root = Some(root);
        Ok(frozen)
    }

    /// Takes the draft of `chain_id` away from under a thread of this process that works on it,
    /// because the process is about to end.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn abandon_draft(&self, chain_id: &Digest) -> Result<(), StoreError> {
        self.remove_layer_files(&layout::name(chain_id)).map(drop)
    }

    /// Opens the root of a settled layer.
    ///
    /// # Errors
    /// When it is not here.
    pub fn open_layer(&self, chain_id: &Digest) -> Result<File, StoreError> {
        let path = self.layer_path(chain_id);
        Ok(File::open(&path).map_err(|error| CallError::new("open", &path, error))?)
    }

    /// Where the root of the layer chain `chain_id` lies.
    #[must_use]
    pub fn layer_path(&self, chain_id: &Digest) -> PathBuf {
        self.path.join("layers").join(layout::name(chain_id))
    }

    /// Removes whatever there is of the layer `name`: its record first. Its
    /// lock is held exclusively.
    pub(super) fn remove_layer_files(&self, name: &str) -> Result<bool, StoreError> {
        let record = layout::record(&self.path, "layers", name);
        let mut found = record.exists();
        blob::remove(&record)?;
        let layers = self.open_dir("layers")?;
        let names = [format!("{}{name}", layout::UNFINISHED), name.to_owned()];
        for name in names.map(OsString::from) {
            found |= self.trees.remove(layers.as_fd(), &name)?;
        }
        Ok(found)
    }
}

/// The name of a layer's lock.
pub(super) fn layer_lock(chain_id: &Digest) -> String {
    format!("layer-{}", layout::name(chain_id))
}

impl<'store> Draft<'store> {
    /// What it is called in the store; None after it was settled.
    #[must_use]
    pub fn name(&self) -> Option<&Digest> {
        self.to_make.as_ref().map(|made| &made.chain_id)
    }

    /// The directory to unpack to.
    ///
    /// # Errors
    /// When this process has too many open files.
    pub fn root(&self) -> Result<OwnedFd, StoreError> {
        let root = self.root.as_ref().ok_or(StoreError::Settled)?;
        let clone = root.try_clone();
        Ok(clone.map_err(|error| CallError::new("dup", "", error))?)
    }

    /// Gives the layer, whose digests match, its name, and makes it read-only.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn settle(mut self) -> Result<Settled<'store>, StoreError> {
        let (Some(made), Some(root)) = (self.to_make.take(), self.root.take()) else {
            return Err(StoreError::Settled);
        };
        let path = self.store.layer_path(&made.chain_id);
        let name = layout::name(&made.chain_id);
        let draft = path.with_file_name(format!("{}{name}", layout::UNFINISHED));
        let store = self.store;
        let renamed = fs::rename(&draft, &path);
        let settled = renamed
            .map_err(|error| CallError::new("rename", &path, error))
            .and_then(|()| store.trees.close(root.as_fd()));
        if let Err(error) = settled {
            // What is left of a failure here, the next sweep removes.
            drop(root);
            drop(store.remove_layer_files(&name));
            return Err(error.into());
        }
        Ok(Settled { store, made })
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let Some(to_make) = &self.to_make else {
            return;
        };
        // The kernel frees nothing of what is still open.
        self.root = None;
        // What is left of a failure here, the next sweep removes.
        let name = layout::name(&to_make.chain_id);
        let removed = self.store.remove_layer_files(&name);
        if removed.is_ok() {
            // The next command may need the space at once.
            drop(self.store.wait_for_removed());
        }
    }
}

impl Settled<'_> {
    /// Writes the record of a layer that is on disk: by a snapshot of it, or by
    /// [`Store::sync`].
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn record(self, record: LayerRecord) -> Result<Held, StoreError> {
        let name = layout::name(&self.made.chain_id);
        let path = layout::record(&self.store.path, "layers", &name);
        let bytes = blob::encode(&record)?;
        blob::write_new(&path, &bytes, Flush::Later)?;
        let lock_path = self.store.lock_path(&layer_lock(&self.made.chain_id));
        self.made.lock.share(&lock_path)?;
        if !path.exists() {
            // Removed in the moment between the two locks.
            return Err(StoreError::Vanished(self.made.chain_id));
        }
        Ok(Held {
            record,
            _lock: self.made.lock,
        })
    }
}
