//! Blobs of layers, as they are transferred. They are kept only where a user asks for it, or
//! where there is no registry to fetch them from again; whether one is kept, its file says.
//!
//! ```text
//! blobs/sha256/<hex>   verified before it gets its name; named by the manifest of an image
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::errno::Errno;

use super::lock::Lock;
use super::{HoldKind, Store, StoreError, blob, layout};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::errno::CallError;
use crate::image::Descriptor;

/// A blob that is written and has no name yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct BlobDraft {
    file: File,
    directory: PathBuf,
    locks: PathBuf,
    hasher: Hasher,
    bytes: u64,
}

/// A blob that is kept, held so that garbage collection leaves it alone.
#[derive(Debug)]
pub struct KeptBlob {
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub bytes: u64,
    _hold: Lock,
}

impl Store {
    /// The blob of a layer, to be read from its beginning; None if it is not kept. Its size is
    /// right; whoever reads it verifies the digest.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn layer_blob(&self, blob: &Descriptor) -> Result<Option<File>, StoreError> {
        let path = layout::blob(&self.path, &blob.digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CallError::new("open", &path, error).into()),
        };
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| CallError::new("stat", &path, error))?;
        Ok((metadata.len() == blob.size).then_some(file))
    }

    /// Begins a blob whose digest need not be known yet.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new_blob(&self, algorithm: Algorithm) -> Result<BlobDraft, StoreError> {
        let directory = self.blob_directory(algorithm)?;
        Ok(BlobDraft {
            file: blob::nameless_file(&directory)?,
            directory,
            locks: self.path.join("locks"),
            hasher: Hasher::new(algorithm),
            bytes: 0,
        })
    }

    /// A file without a name on the store's file system, for what is too large for memory and
    /// needed only for a while.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> Result<File, StoreError> {
        Ok(blob::nameless_file(&self.path.join("partial"))?)
    }

    /// Removes the blob of a layer that turned out to be damaged.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_layer_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        Ok(blob::remove(&layout::blob(&self.path, digest))?)
    }

    fn blob_directory(&self, algorithm: Algorithm) -> Result<PathBuf, StoreError> {
        let directory = self.path.join("blobs").join(algorithm.name());
        super::make_dir(&directory)?;
        Ok(directory)
    }
}

impl BlobDraft {
    /// Gives it its name: its digest. It is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(self) -> Result<KeptBlob, StoreError> {
        let digest = self.hasher.finish();
        let hold = Lock::shared(&self.locks.join(HoldKind::Blob.lock(&digest)))?;
        let path = self.directory.join(digest.hex());
        let synced = self.file.sync_all();
        synced.map_err(|error| CallError::new("fsync", &path, error))?;
        // one of another size is no blob of that name, but what a broken disk left of it
        if path.metadata().is_ok_and(|old| old.len() != self.bytes) {
            blob::remove(&path)?;
        }
        match blob::give_name(&self.file, &path) {
            Ok(()) | Err(Errno::EEXIST) => Ok(KeptBlob {
                digest,
                bytes: self.bytes,
                _hold: hold,
            }),
            Err(errno) => Err(CallError::new("linkat", &path, errno).into()),
        }
    }

    /// How many bytes were written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of what was written so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// What was written, to be read from its beginning.
    ///
    /// # Errors
    /// When the file cannot be opened again.
    pub fn reader(&self) -> Result<File, StoreError> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(File::open(&path).map_err(|error| CallError::new("open", &path, error))?)
    }
}

impl Write for BlobDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
