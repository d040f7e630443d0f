//! Which bytes of the disk trees use: sets of places, so that what is shared counts once.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use super::super::trees::{Step, Walk};
use crate::btrfs::{self, Extent};
use crate::errno::CallError;

/// Places that no disk has, for files whose file system does not tell theirs.
const NOWHERE: u64 = 1 << 62;

/// A set of places on a disk.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// From and to, in order, apart from one another.
    runs: Vec<(u64, u64)>,
}

impl Places {
    pub(super) fn of(extents: impl IntoIterator<Item = Extent>) -> Self {
        let runs = extents.into_iter();
        let mut runs: Vec<_> = runs
            .map(|extent| (extent.physical, extent.physical + extent.length))
            .collect();
        runs.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (start, end) in runs {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        Self { runs: joined }
    }

    /// What is in any of `sets`.
    pub(super) fn union<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let runs = sets.into_iter().flat_map(|set| &set.runs);
        Self::of(runs.map(|(start, end)| Extent {
            physical: *start,
            length: end - start,
        }))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.runs.iter().map(|(start, end)| end - start).sum()
    }

    /// How many bytes are in this set and not in `other`.
    pub(super) fn bytes_without(&self, other: &Self) -> u64 {
        Self::union([self, other]).bytes() - other.bytes()
    }
}

/// Finds the places that trees use.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// How many bytes have places that no disk has.
    nowhere: u64,
}

impl Finder {
    /// The places of all files beneath `root`.
    pub(super) fn tree(&mut self, root: BorrowedFd<'_>) -> Result<Places, CallError> {
        let (mut extents, mut seen) = (Vec::new(), HashSet::new());
        let mut walk = Walk::of(root)?;
        while let Some(step) = walk.step()? {
            match step {
                Step::Entry(_, Some(Type::Directory)) => match walk.enter() {
                    Err(error) if !has_gone(&error) => return Err(error),
                    _ => {}
                },
                Step::Entry(name, Some(Type::File)) => {
                    let flags = OFlag::O_NOATIME | OFlag::O_NONBLOCK;
                    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    // a container may remove what it has at any time
                    let Ok(fd) = openat(&walk, name.as_os_str(), flags, Mode::empty()) else {
                        continue;
                    };
                    let stat = fstat(&fd).map_err(|errno| CallError::new("fstat", name, errno))?;
                    if stat.st_nlink == 1 || seen.insert(stat.st_ino) {
                        extents.extend(self.file(fd.as_fd())?);
                    }
                }
                _ => {}
            }
        }
        Ok(Places::of(extents))
    }

    /// The places of one file.
    pub(super) fn file(&mut self, file: BorrowedFd<'_>) -> Result<Vec<Extent>, CallError> {
        if let Some(extents) = btrfs::extents(file)? {
            return Ok(extents);
        }
        let stat = fstat(file).map_err(|errno| CallError::new("fstat", "", errno))?;
        let physical = NOWHERE + self.nowhere;
        let length = stat.st_blocks.cast_unsigned() * 512;
        self.nowhere += length + 1;
        Ok(vec![Extent { physical, length }])
    }
}

/// Whether a directory was removed, or replaced, before it could be looked into.
fn has_gone(error: &CallError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(runs: &[(u64, u64)]) -> Places {
        Places::of(runs.iter().map(|(physical, length)| Extent {
            physical: *physical,
            length: *length,
        }))
    }

    #[test]
    fn what_is_shared_counts_once() {
        // two sets, the bytes of both together, and of the first without the second
        for (one, two, both, without) in [
            (&[(0, 10)][..], &[(10, 10)][..], 20, 10),
            (&[(0, 10)], &[(5, 10)], 15, 5),
            (&[(0, 10), (0, 10)], &[], 10, 10),
            (&[(0, 4), (8, 4)], &[(2, 8)], 12, 4),
            (&[], &[(1, 1)], 1, 0),
        ] {
            let (one, two) = (places(one), places(two));
            assert_eq!(Places::union([&one, &two]).bytes(), both);
            assert_eq!(one.bytes_without(&two), without);
        }
    }
}
