//! A walk through a tree, entry by entry, however deep it is.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::vec;

use nix::dir::Type;

use super::remove::list;
use crate::descent::{Descent, open_dir};
use crate::errno::CallError;

/// The entries of a tree, those of a directory after it itself.
#[derive(Debug)]
pub(in crate::store) struct Walk {
    descent: Descent,
    /// What is left of each directory from the root to the one in hand.
    levels: Vec<vec::IntoIter<(OsString, Option<Type>)>>,
    /// Of the entry in hand, or of the directory.
    path: PathBuf,
    is_at_entry: bool,
}

/// What a walk comes by.
#[derive(Debug)]
pub(in crate::store) enum Step {
    /// An entry of the directory in hand, and what the directory says that it is.
    Entry(OsString, Option<Type>),
    /// A directory that was entered is done; it is an entry of the one in hand.
    Left(OsString),
}

impl Walk {
    /// Begins with the entries of `root`.
    pub(in crate::store) fn of(root: BorrowedFd<'_>) -> Result<Self, CallError> {
        Ok(Self {
            descent: Descent::at(root)?,
            levels: vec![entries(root)?],
            path: PathBuf::new(),
            is_at_entry: false,
        })
    }

    /// The next step; None at the end.
    pub(in crate::store) fn step(&mut self) -> Result<Option<Step>, CallError> {
        if self.is_at_entry {
            self.path.pop();
            self.is_at_entry = false;
        }
        let Some(level) = self.levels.last_mut() else {
            return Ok(None);
        };
        if let Some((name, kind)) = level.next() {
            self.path.push(&name);
            self.is_at_entry = true;
            return Ok(Some(Step::Entry(name, kind)));
        }
        self.levels.pop();
        if self.levels.is_empty() {
            return Ok(None);
        }
        self.descent.leave()?;
        self.is_at_entry = true;
        let name = self.path.file_name().unwrap_or_default();
        Ok(Some(Step::Left(name.to_owned())))
    }

    /// Goes into the entry in hand, whose entries come next.
    pub(in crate::store) fn enter(&mut self) -> Result<(), CallError> {
        let name = self.path.file_name().unwrap_or_default();
        let error = |errno| CallError::new("openat", &self.path, errno);
        let directory = open_dir(self.descent.as_fd(), name).map_err(error)?;
        self.levels.push(entries(directory.as_fd())?);
        self.descent.enter(directory)?;
        self.is_at_entry = false;
        Ok(())
    }

    /// The path of the entry in hand beneath the root.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Walk {
    /// The directory in hand.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descent.as_fd()
    }
}

fn entries(dir: BorrowedFd<'_>) -> Result<vec::IntoIter<(OsString, Option<Type>)>, CallError> {
    let names = list(dir)?.into_iter();
    let names = names.map(|(name, kind)| (OsString::from_vec(name.into_bytes()), kind));
    Ok(names.collect::<Vec<_>>().into_iter())
}
