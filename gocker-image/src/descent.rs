//! A way down into a tree: the directories from its root to the one in hand, of which only the
//! lowest keep their descriptors, so that a tree may be of any depth.
//!
//! ```text
//! root / a / b / … / x / y / here
//! '-- numbers alone --' '- open -'      up again: "..", if it is the directory that it was
//! ```
//!
//! Whoever walks a tree keeps a list of what is left to do in each directory, and does not call
//! itself: neither descriptors nor the stack may end with the depth that an image chose.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use crate::errno::CallError;

/// How many directories above the one in hand are kept open.
const KEPT: usize = 32;

/// The directories from a root down to the one in hand.
#[derive(Debug)]
pub(crate) struct Descent {
    here: OwnedFd,
    above: Vec<Level>,
}

#[derive(Debug)]
enum Level {
    Open(OwnedFd),
    /// Its device and its number there.
    Closed(u64, u64),
}

impl Descent {
    /// Begins at `root`.
    ///
    /// # Errors
    /// When this process has too many open files.
    pub(crate) fn at(root: BorrowedFd<'_>) -> Result<Self, CallError> {
        let root = root.try_clone_to_owned();
        Ok(Self {
            here: root.map_err(|error| CallError::new("dup", "", error))?,
            above: Vec::new(),
        })
    }

    /// Goes into `directory`, which lies in the one in hand.
    ///
    /// # Errors
    /// When the kernel does not say which directory one is.
    pub(crate) fn enter(&mut self, directory: OwnedFd) -> Result<(), CallError> {
        let parent = std::mem::replace(&mut self.here, directory);
        self.above.push(Level::Open(parent));
        if let Some(index) = self.above.len().checked_sub(KEPT + 1)
            && let Level::Open(fd) = &self.above[index]
        {
            let (device, number) = identity(fd.as_fd())?;
            self.above[index] = Level::Closed(device, number);
        }
        Ok(())
    }

    /// Goes back to the directory above; at the root, nowhere.
    ///
    /// # Errors
    /// `ESTALE` when the directory in hand was moved to another one meanwhile.
    pub(crate) fn leave(&mut self) -> Result<(), CallError> {
        let (device, number) = match self.above.pop() {
            None => return Ok(()),
            Some(Level::Open(fd)) => {
                self.here = fd;
                return Ok(());
            }
            Some(Level::Closed(device, number)) => (device, number),
        };
        let parent = open_dir(self.here.as_fd(), OsStr::new(".."))
            .map_err(|errno| CallError::new("openat", "..", errno))?;
        if identity(parent.as_fd())? != (device, number) {
            return Err(CallError::new("openat", "..", Errno::ESTALE));
        }
        self.here = parent;
        Ok(())
    }
}

impl From<Descent> for OwnedFd {
    /// The directory in hand.
    fn from(descent: Descent) -> Self {
        descent.here
    }
}

impl AsFd for Descent {
    /// The directory in hand.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }
}

/// Opens the directory `name` in `parent`, which is no symlink.
///
/// # Errors
/// `ENOTDIR` or `ELOOP` when it is something else.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn identity(directory: BorrowedFd<'_>) -> Result<(u64, u64), CallError> {
    let stat = fstat(directory).map_err(|errno| CallError::new("fstat", "", errno))?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::{Path, PathBuf};

    use nix::sys::stat::mkdirat;

    use super::*;

    /// Goes down `depth` directories that are made on the way.
    fn down(root: &Path, depth: usize) -> Descent {
        let root = File::open(root).unwrap();
        let mut descent = Descent::at(root.as_fd()).unwrap();
        for _ in 0..depth {
            mkdirat(&descent, "d", Mode::S_IRWXU).unwrap();
            let inner = open_dir(descent.as_fd(), OsStr::new("d")).unwrap();
            descent.enter(inner).unwrap();
        }
        descent
    }

    fn is_open(level: &&Level) -> bool {
        matches!(level, Level::Open(_))
    }

    #[test]
    fn the_way_up_is_the_way_down() {
        let root = tempfile::tempdir().unwrap();
        let depth = 3 * KEPT;
        let mut descent = down(root.path(), depth);
        assert_eq!(descent.above.iter().filter(is_open).count(), KEPT);
        for _ in 0..depth {
            descent.leave().unwrap();
        }
        let top = File::open(root.path()).unwrap();
        let same = |fd: BorrowedFd<'_>| identity(fd).unwrap();
        assert_eq!(same(descent.as_fd()), same(top.as_fd()));
        descent.leave().unwrap();
        assert_eq!(same(descent.as_fd()), same(top.as_fd()));
    }

    #[test]
    fn a_directory_that_was_moved_does_not_lead_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let mut descent = down(root.path(), KEPT + 3);
        let way: PathBuf = ["d"; 3].iter().collect();
        fs::rename(root.path().join(way), root.path().join("moved")).unwrap();
        for _ in 0..KEPT {
            descent.leave().unwrap();
        }
        let error = descent.leave().unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ESTALE));
    }
}
