//! Reading what fsck looks at: blobs by their digests, trees file by file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::super::trees::{Step, Walk};
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

/// Reads every file beneath `root`.
pub(super) fn read_files(root: BorrowedFd<'_>) -> Result<(), CallError> {
    let mut walk = Walk::of(root)?;
    while let Some(step) = walk.step()? {
        match step {
            Step::Entry(_, Some(Type::Directory)) => walk.enter()?,
            Step::Entry(name, Some(Type::File)) => read_file(walk.as_fd(), &name)
                .map_err(|(call, error)| CallError::new(call, shown(walk.path()), error))?,
            _ => {}
        }
    }
    Ok(())
}

/// Reads one file; the error comes with the call that failed.
fn read_file(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), (&'static str, io::Error)> {
    let flags = OFlag::O_NOATIME | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty());
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
