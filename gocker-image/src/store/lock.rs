//! Locks between processes: one file each in `locks/`, by `flock`, released by
//! the kernel however a process ends.
//!
//! Order, so that nobody waits in a circle: store (shared), blobs, images,
//! layers from the lowest up, bundles, mounts, refs. Who holds the store lock
//! exclusively holds it for moments, and never while it waits for a network or
//! unpacks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{BundleId, layout, quota};
use crate::errno::CallError;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// Waits until nobody holds `path` exclusively, and holds it with others.
    pub(super) fn shared(path: &Path) -> Result<Self, CallError> {
        Self::take(path, FlockArg::LockShared)
    }

    /// Waits until nobody holds `path`, and holds it alone.
    pub(super) fn exclusive(path: &Path) -> Result<Self, CallError> {
        Self::take(path, FlockArg::LockExclusive)
    }

    /// Holds `path` alone; None if anyone holds it.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>, CallError> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(CallError::new("flock", path, errno)),
        }
    }

    /// Lets others hold it too. There is a moment in between in which another
    /// may hold it exclusively, so what it protects is to be looked at again.
    pub(super) fn share(&self, path: &Path) -> Result<(), CallError> {
        let shared = self.0.relock(FlockArg::LockShared);
        shared.map_err(|errno| CallError::new("flock", path, errno))
    }

    /// Excludes others from a lock that is held with them; false if there are
    /// any, and then it may be lost.
    pub(super) fn try_alone(&self, path: &Path) -> Result<bool, CallError> {
        match self.0.relock(FlockArg::LockExclusiveNonblock) {
            Ok(()) => Ok(true),
            Err(Errno::EWOULDBLOCK) => Ok(false),
            Err(errno) => Err(CallError::new("flock", path, errno)),
        }
    }

    fn take(path: &Path, how: FlockArg) -> Result<Self, CallError> {
        let mut file = open(path)?;
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(Self(lock)),
                Err((same, Errno::EINTR)) => file = same,
                Err((_, errno)) => return Err(CallError::new("flock", path, errno)),
            }
        }
    }
}

/// Whether a lock is named so; anything else in `locks/` is none of ours.
pub(super) fn is_lock(name: &str) -> bool {
    match name.split_once('-') {
        None => ["store", "refs", "mounts", quota::LOCK].contains(&name),
        Some(("blob" | "image" | "layer" | "partial", digest)) => layout::digest(digest).is_some(),
        // of bundles, and of the containers that run in them
        Some(("bundle" | "run", id)) => id.parse::<BundleId>().is_ok(),
        Some(_) => false,
    }
}

fn open(path: &Path) -> Result<File, CallError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options
        .open(path)
        .map_err(|error| CallError::new("open", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_locks_exclude_and_shared_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::exclusive(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        first.share(&path).unwrap();
        let second = Lock::shared(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop((first, second));
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }
}
