//! What lies where in a tar archive that is a file, so that its members can be read in any order.

use std::fs::File;
use std::io::{BufReader, Seek};

use super::tar_stream::{Kind, TarError, TarStream};

/// The most members that an archive of images may have.
const MOST_MEMBERS: usize = 100_000;
/// The longest name of a member.
const LONGEST_NAME: usize = 4096;

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, neither normalised nor checked.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
}

/// What a member of an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A file: where its content begins, and how long it is.
    File {
        /// From the beginning of the archive.
        offset: u64,
        /// In bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// Another name of an earlier member, from the root of the archive.
    HardLink(Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A device, a pipe, or a file with holes.
    Other,
}

/// Why the members of an archive were not found.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is no tar archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Its name is too long.
    #[error("the name of a member has more than {LONGEST_NAME} bytes")]
    Name,
    /// It has too many.
    #[error("it has more than {MOST_MEMBERS} members")]
    TooMany,
}

/// Finds the members of the archive `file`, in their order.
///
/// # Errors
/// When it is none, or has more than an archive of images can have.
pub fn members(mut file: File) -> Result<Vec<Member>, IndexError> {
    let end = file
        .seek(std::io::SeekFrom::End(0))
        .map_err(TarError::Read)?;
    file.rewind().map_err(TarError::Read)?;
    let mut tar = TarStream::new(BufReader::with_capacity(64 << 10, file));
    let mut members = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        if entry.path.len() > LONGEST_NAME || entry.link.len() > LONGEST_NAME {
            return Err(IndexError::Name);
        }
        if members.len() == MOST_MEMBERS {
            return Err(IndexError::TooMany);
        }
        let kind = match entry.kind {
            Kind::Regular if entry.extents.is_none() => MemberKind::File {
                offset: tar.position,
                size: entry.size,
            },
            Kind::Directory => MemberKind::Directory,
            Kind::HardLink => MemberKind::HardLink(entry.link),
            Kind::Symlink => MemberKind::Symlink(entry.link),
            _ => MemberKind::Other,
        };
        let name = entry.path;
        members.push(Member { name, kind });
        tar.seek_over(end)?;
    }
    tar.finish()?;
    Ok(members)
}

impl TarStream<BufReader<File>> {
    /// Leaves the current entry's content out, in a file of `end` bytes.
    fn seek_over(&mut self, end: u64) -> Result<(), TarError> {
        let count = self.remaining.saturating_add(self.padding);
        let next = self.position.saturating_add(count);
        // some archivers leave out the padding of the last member
        if self.position.saturating_add(self.remaining) > end {
            return Err(TarError::Truncated(end));
        }
        let offset = i64::try_from(count).map_err(|_| TarError::Truncated(end))?;
        self.reader.seek_relative(offset).map_err(TarError::Read)?;
        (self.position, self.remaining, self.padding) = (next, 0, 0);
        Ok(())
    }
}
