//! Reading what fsck looks at: blobs by their digests, trees file by file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::super::trees;
use crate::digest::{Digest, DigestReader};
use crate::errno::CallError;

/// How much is read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How everything in a tree is opened.
const FLAGS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);

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

/// Reads every file beneath `root`. Directories wait by their paths, so that neither many of them
/// nor deep ones take more than a few descriptors.
pub(super) fn read_files(root: BorrowedFd<'_>) -> Result<(), CallError> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let directory = open_directory(root, &path)?;
        for (name, kind) in trees::list(directory.as_fd())? {
            let name = OsStr::from_bytes(name.as_bytes());
            match kind {
                Some(Type::Directory) => waiting.push(path.join(name)),
                Some(Type::File) => {
                    read_file(directory.as_fd(), name).map_err(|(call, error)| {
                        CallError::new(call, shown(&path.join(name)), error)
                    })?
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Opens the directory `path` beneath `root` step by step, for a path may be longer than one call
/// takes.
fn open_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, CallError> {
    let open = |directory: BorrowedFd<'_>, name: &OsStr| {
        openat(directory, name, FLAGS | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(|errno| CallError::new("open", shown(path), errno))
    };
    let mut directory = open(root, OsStr::new("."))?;
    for name in path {
        directory = open(directory.as_fd(), name)?;
    }
    Ok(directory)
}

/// Reads one file; the error comes with the call that failed.
fn read_file(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), (&'static str, io::Error)> {
    let file = openat(directory, name, FLAGS | OFlag::O_NOATIME, Mode::empty());
    let mut file = File::from(file.map_err(|errno| ("open", errno.into()))?);
    read_all(&mut file).map_err(|error| ("read", error))
}

/// A path in a tree, as the tree's user sees it.
fn shown(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

fn read_all(reader: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while reader.read(&mut buffer)? > 0 {}
    Ok(())
}
