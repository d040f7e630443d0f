//! Blobs that are not whole yet: what a broken or killed pull had fetched, for the next one.
//!
//! Nothing of it is trusted: who goes on with a partial blob hashes it from its
//! first byte. It is one file, `partial/sha256-<hex>`, held by a lock while
//! somebody writes to it, and removed when it is a week old.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lock::Lock;
use super::record::entries;
use super::{Store, StoreError, blob, layout};
use crate::digest::Digest;
use crate::errno::CallError;

/// How long a partial blob waits to be gone on with.
const LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A partial blob that nobody else writes to.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    /// What it becomes when it is whole.
    blob: PathBuf,
    file: File,
    bytes: u64,
    _lock: Lock,
}

/// Which partial blobs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Those that nobody came back for.
    Expired,
    /// All.
    Any,
}

impl Store {
    /// What there is of the blob `digest`, empty if nothing. None if another process fetches it.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn partial(&self, digest: &Digest) -> Result<Option<Partial>, StoreError> {
        let name = layout::name(digest);
        let Some(lock) = Lock::try_exclusive(&self.lock_path(&partial_lock(&name)))? else {
            return Ok(None);
        };
        let path = self.path.join("partial").join(name);
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let file = options
            .open(&path)
            .map_err(|error| CallError::new("open", &path, error))?;
        let metadata = file.metadata();
        let bytes = metadata
            .map_err(|error| CallError::new("stat", &path, error))?
            .len();
        Ok(Some(Partial {
            path,
            blob: layout::blob(&self.path, digest),
            file,
            bytes,
            _lock: lock,
        }))
    }

    /// Removes what there is of the blob `digest`, unless another process fetches it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_partial(&self, digest: &Digest) -> Result<(), StoreError> {
        let name = layout::name(digest);
        let path = self.path.join("partial").join(&name);
        if path.exists()
            && let Some(_lock) = Lock::try_exclusive(&self.lock_path(&partial_lock(&name)))?
        {
            blob::remove(&path)?;
        }
        Ok(())
    }

    /// Removes partial blobs that nobody fetches, and those of layers that are here: whoever
    /// finished one of these was killed before it was gone. Says how many.
    pub(super) fn sweep_partials(&self, age: Age) -> Result<usize, StoreError> {
        let mut swept = 0;
        let partials = entries(&self.path.join("partial"))?;
        let layers = if partials.is_empty() {
            Vec::new()
        } else {
            self.layers()?
        };
        for (name, path) in partials {
            if !is_partial(&name, &path) {
                continue;
            }
            let modified = path.metadata().and_then(|metadata| metadata.modified());
            // one that has vanished meanwhile is nobody's concern
            let Ok(modified) = modified else { continue };
            let is_old = SystemTime::now()
                .duration_since(modified)
                .is_ok_and(|age| age > LIFE);
            let is_done = layers.iter().any(|layer| layout::name(&layer.blob) == name);
            if (age == Age::Any || is_old || is_done)
                && let Some(_lock) = Lock::try_exclusive(&self.lock_path(&partial_lock(&name)))?
            {
                blob::remove(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// Whether a file in `partial/` is a partial blob; anything else is none of ours.
pub(super) fn is_partial(name: &str, path: &Path) -> bool {
    layout::digest(name).is_some() && !path.is_dir()
}

fn partial_lock(name: &str) -> String {
    format!("partial-{name}")
}

impl Partial {
    /// How many bytes there are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads what there is from its beginning.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn reader(&self) -> Result<File, StoreError> {
        let opened = File::open(&self.path);
        Ok(opened.map_err(|error| CallError::new("open", &self.path, error))?)
    }

    /// Adds bytes to its end.
    ///
    /// # Errors
    /// When the file system is full.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes a blob of it: all of its bytes were read, and have the digest that it is named by.
    /// Whoever wants the blob to stay holds it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(self) -> Result<(), StoreError> {
        let synced = self.file.sync_all();
        synced.map_err(|error| CallError::new("fsync", &self.path, error))?;
        if let Some(directory) = self.blob.parent() {
            super::make_dir(directory)?;
        }
        let renamed = fs::rename(&self.path, &self.blob);
        Ok(renamed.map_err(|error| CallError::new("rename", &self.blob, error))?)
    }

    /// Removes it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn discard(self) -> Result<(), StoreError> {
        let removed = fs::remove_file(&self.path);
        Ok(removed.map_err(|error| CallError::new("unlink", &self.path, error))?)
    }
}
