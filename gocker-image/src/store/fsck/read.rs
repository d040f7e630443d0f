//! Reading what fsck looks at: blobs by their digests, trees file by file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Type;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::super::trees;
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

/// Reads every file beneath `root`, which lies at `path` in its tree.
pub(super) fn read_files(root: BorrowedFd<'_>, path: &Path) -> Result<(), CallError> {
    for (name, kind) in trees::list(root)? {
        let name = OsStr::from_bytes(name.as_bytes());
        let path = path.join(name);
        let open = |flags: OFlag| {
            let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = openat(root, name, flags, Mode::empty());
            opened.map_err(|errno| CallError::new("open", &path, errno))
        };
        match kind {
            // no layer is so deep that descriptors run out
            Some(Type::Directory) => read_files(open(OFlag::O_DIRECTORY)?.as_fd(), &path)?,
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
