//! The ways to keep trees: the roots of layers and bundles, each of which begins as a copy of the
//! one below.
//!
//! | way | a copy is | read-only |
//! | --- | --- | --- |
//! | subvolumes | a snapshot (btrfs) | by the kernel |
//! | reflinks | every file, sharing its blocks (xfs and others) | by convention |
//! | copies | every file with its bytes (any file system) | by convention |

mod copy;
mod remove;
mod walk;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::btrfs::{self, Access};
use crate::descent::open_dir;
use crate::errno::CallError;

pub(super) use walk::{Step, Walk};

/// How a store keeps trees.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trees {
    /// As subvolumes of a btrfs.
    #[default]
    Subvolumes,
    /// As directories whose files share blocks.
    Reflinks,
    /// As directories with files of their own.
    Copies,
}

impl Trees {
    /// The best way to keep directories on the file system of `directory`, which is not to have
    /// subvolumes.
    pub(super) fn of_directories(directory: &Path) -> Result<Self, CallError> {
        let scratch = || {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).mode(0o600);
            let file = options.custom_flags(libc::O_TMPFILE).open(directory);
            file.map_err(|error| CallError::new("open", directory, error))
        };
        let (mut from, to) = (scratch()?, scratch()?);
        let written = from.write_all(&[1; 4096]);
        written.map_err(|error| CallError::new("write", directory, error))?;
        match rustix::fs::ioctl_ficlone(&to, &from) {
            Ok(()) => Ok(Self::Reflinks),
            Err(_) => Ok(Self::Copies),
        }
    }

    /// What is said of a store that keeps them so.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Subvolumes => "btrfs subvolumes",
            Self::Reflinks => "copies that share blocks (reflinks)",
            Self::Copies => "plain copies",
        }
    }

    /// Makes the empty tree `name` in `dir`, mode 0755, and opens it.
    pub(super) fn create(self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, CallError> {
        if self == Self::Subvolumes {
            return btrfs::create_subvolume(dir, name);
        }
        let error = |call| move |errno: Errno| CallError::new(call, name, errno);
        mkdirat(dir, name, Mode::S_IRWXU).map_err(error("mkdirat"))?;
        let root = open_dir(dir, name).map_err(error("openat"))?;
        fchmod(&root, Mode::from_bits_truncate(0o755)).map_err(error("fchmod"))?;
        Ok(root)
    }

    /// Makes `name` in `dir` a copy of the tree `source`, and opens it.
    pub(super) fn copy(
        self,
        source: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<OwnedFd, CallError> {
        match self {
            Self::Subvolumes => btrfs::snapshot(source, dir, name, Access::Writable),
            Self::Reflinks => copy::copy_tree(source, dir, name, copy::Blocks::Shared),
            Self::Copies => copy::copy_tree(source, dir, name, copy::Blocks::Own),
        }
    }

    /// Makes `name` in `dir` a copy of the tree `source` as it is in one moment, though a container
    /// may use it.
    ///
    /// # Errors
    /// [`StoreError::Moved`] when it did not hold still while it was copied.
    pub(super) fn freeze(
        self,
        source: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<OwnedFd, StoreError> {
        match self {
            Self::Subvolumes => Ok(self.copy(source, dir, name)?),
            Self::Reflinks => copy::copy_still_tree(source, dir, name, copy::Blocks::Shared),
            Self::Copies => copy::copy_still_tree(source, dir, name, copy::Blocks::Own),
        }
    }

    /// Puts what a copy was made of on disk. A snapshot has done so.
    pub(super) fn commit_source(self, dir: BorrowedFd<'_>) -> Result<(), CallError> {
        match self {
            Self::Subvolumes => Ok(()),
            Self::Reflinks | Self::Copies => self.sync(dir),
        }
    }

    /// Puts all that was written on disk.
    pub(super) fn sync(self, dir: BorrowedFd<'_>) -> Result<(), CallError> {
        match self {
            Self::Subvolumes => btrfs::sync(dir),
            Self::Reflinks | Self::Copies => {
                syncfs(dir).map_err(|errno| CallError::new("syncfs", "", errno))
            }
        }
    }

    /// Makes a tree read-only, where the file system can.
    pub(super) fn close(self, root: BorrowedFd<'_>) -> Result<(), CallError> {
        match self {
            Self::Subvolumes => btrfs::set_access(root, Access::ReadOnly),
            Self::Reflinks | Self::Copies => Ok(()),
        }
    }

    /// Removes the tree `name` in `dir`. False if there is none.
    pub(super) fn remove(self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, CallError> {
        if !btrfs::exists(dir, name)? {
            return Ok(false);
        }
        match self {
            Self::Subvolumes => btrfs::delete_subvolume(dir, name)?,
            Self::Reflinks | Self::Copies => remove::remove_tree(dir, name)?,
        }
        Ok(true)
    }

    /// What keeps `root` from being the root of a bundle; None if nothing does.
    pub(super) fn fault(self, root: &File) -> Result<Option<&'static str>, CallError> {
        Ok(match self {
            Self::Subvolumes if !btrfs::is_subvolume(root.as_fd())? => Some("is not a subvolume"),
            Self::Reflinks | Self::Copies if !is_directory(root)? => Some("is not a directory"),
            _ => None,
        })
    }

    /// What keeps `root` from being the root of a layer; None if nothing does.
    pub(super) fn layer_fault(self, root: &File) -> Result<Option<&'static str>, CallError> {
        if let Some(fault) = self.fault(root)? {
            return Ok(Some(fault));
        }
        let is_open = self == Self::Subvolumes && btrfs::access(root.as_fd())? == Access::Writable;
        Ok(is_open.then_some("is writable, and may have been changed"))
    }
}

fn is_directory(file: &File) -> Result<bool, CallError> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| CallError::new("fstat", "", error))?;
    Ok(metadata.is_dir())
}
