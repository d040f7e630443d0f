//! Files that come into being whole: blobs and records are written without a
//! name, and get one when they are complete. What a crash leaves has no name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Store, StoreError, layout};
use crate::digest::Digest;
use crate::errno::CallError;

impl Store {
    /// Keeps `bytes` under their digest, on disk when this returns.
    ///
    /// # Errors
    /// When they have another digest or cannot be written.
    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        verify(digest, bytes)?;
        let path = layout::blob(&self.path, digest);
        if let Some(directory) = path.parent() {
            super::make_dir(directory)?;
        }
        if path.exists() {
            return Ok(());
        }
        write_new(&path, bytes, Flush::Now)?;
        Ok(())
    }

    /// The bytes of `digest`, verified. None if they are not here.
    ///
    /// # Errors
    /// When they cannot be read, or are damaged.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = layout::blob(&self.path, digest);
        match fs::read(&path) {
            Ok(bytes) => {
                verify(digest, &bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CallError::new("read", &path, error).into()),
        }
    }
}

fn verify(expected: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
    let actual = Digest::with(expected.algorithm(), bytes);
    if actual == *expected {
        return Ok(());
    }
    let expected = expected.clone();
    Err(StoreError::Damaged { expected, actual })
}

/// When a file reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// Before it gets its name.
    Now,
    /// At some time. If the machine stops before, the file is empty or missing,
    /// and [`read`] takes both for none.
    Later,
}

/// Writes `bytes` to a file that gets the name `path` when it is complete. One
/// that has the name already stays.
pub(super) fn write_new(path: &Path, bytes: &[u8], flush: Flush) -> Result<(), CallError> {
    let file = nameless(path, bytes, flush)?;
    match give_name(&file, path) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(CallError::new("linkat", path, errno)),
    }
}

/// Writes `bytes` to `path`, which has the old content or the new one at any
/// time. The caller keeps others from doing the same.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CallError> {
    let mut name = std::ffi::OsString::from(layout::UNFINISHED);
    name.push(path.file_name().unwrap_or_default());
    let unfinished = path.with_file_name(name);
    remove(&unfinished)?;
    let file = nameless(path, bytes, Flush::Now)?;
    give_name(&file, &unfinished).map_err(|errno| CallError::new("linkat", path, errno))?;
    fs::rename(&unfinished, path).map_err(|error| CallError::new("rename", path, error))
}

fn nameless(path: &Path, bytes: &[u8], flush: Flush) -> Result<File, CallError> {
    let error = |call| move |error: io::Error| CallError::new(call, path, error);
    let mut file = nameless_file(path.parent().unwrap_or(path))?;
    file.write_all(bytes).map_err(error("write"))?;
    if flush == Flush::Now {
        file.sync_all().map_err(error("fsync"))?;
    }
    Ok(file)
}

/// An empty file in `directory` that has no name yet.
pub(super) fn nameless_file(directory: &Path) -> Result<File, CallError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE);
    let opened = options.open(directory);
    opened.map_err(|error| CallError::new("open", directory, error))
}

/// Gives a nameless file a name that nothing has.
pub(super) fn give_name(file: &File, path: &Path) -> nix::Result<()> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(
        AT_FDCWD,
        link.as_str(),
        AT_FDCWD,
        path,
        AtFlags::AT_SYMLINK_FOLLOW,
    )
}

/// Removes a file that need not exist.
pub(super) fn remove(path: &Path) -> Result<(), CallError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CallError::new("unlink", path, error))
        }
        _ => Ok(()),
    }
}

/// A record as JSON with a newline at its end.
pub(super) fn encode(record: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = serde_json::to_vec_pretty(record).map_err(StoreError::Encode)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads the record at `path`; None if there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        // nor is there one where a stranger's file lies in the place of a directory
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(CallError::new("read", path, error).into()),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    let record = serde_json::from_slice(&bytes);
    record.map(Some).map_err(|source| StoreError::Record {
        path: path.to_owned(),
        source,
    })
}
