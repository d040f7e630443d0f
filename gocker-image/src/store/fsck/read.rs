//! Reading what fsck looks at: blobs by their digests, trees file by file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::digest::{Digest, DigestReader};
use crate::errno::CallError;

/// How much is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The digest of the bytes in the file at `path`, by the algorithm of `expected`. None if there
/// is no such file any more.
pub(super) fn digest_of(path: &Path, expected: &Digest) -> Result<Option<Digest>, CallError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CallError::new("open", path, error)),
    };
    let mut reader = DigestReader::new(file, expected.algorithm());
    read_all(&mut reader).map_err(|error| CallError::new("read", path, error))?;
    let (_, digest, _) = reader.finish();
    Ok(Some(digest))
}

/// Reads every file beneath `root`. Returns the first that cannot be read, by its path in there.
pub(super) fn unreadable_file(root: File) -> Option<CallError> {
    let mut pending = vec![(OwnedFd::from(root), PathBuf::from("/"))];
    while let Some((directory, path)) = pending.pop() {
        if let Err(error) = read_directory(directory, &path, &mut pending) {
            return Some(error);
        }
    }
    None
}

fn read_directory(
    directory: OwnedFd,
    path: &Path,
    pending: &mut Vec<(OwnedFd, PathBuf)>,
) -> Result<(), CallError> {
    let error = |errno| CallError::new("readdir", path, errno);
    let mut entries = Dir::from_fd(directory).map_err(error)?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry.map_err(error)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    for (name, kind) in names {
        let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let open = |flags: OFlag| {
            let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = openat(&entries, name.as_c_str(), flags, Mode::empty());
            opened.map_err(|errno| CallError::new("open", &path, errno))
        };
        match kind {
            Some(Type::Directory) => pending.push((open(OFlag::O_DIRECTORY)?, path)),
            Some(Type::File) => {
                let mut file = File::from(open(OFlag::O_NOATIME)?);
                read_all(&mut file).map_err(|error| CallError::new("read", &path, error))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_all(reader: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while reader.read(&mut buffer)? > 0 {}
    Ok(())
}
