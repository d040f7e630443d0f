//! Owner, mode and times of a new entry, set only where they differ from what
//! the kernel gave it.
//!
//! The order is fixed: chown clears set-user-id bits and capabilities, so mode
//! and attributes come after it, and times last.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::tar_stream::{Entry, Timestamp};
use crate::errno::CallError;

/// The mode to make `entry` with, for kernels calls that mask it by 0777.
pub(super) fn creation_mode(entry: &Entry) -> Mode {
    Mode::from_bits_truncate(entry.mode & 0o777)
}

/// What the kernel gave a new entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Born {
    /// Owner 0:0 and the mode that was asked for.
    Plain,
    /// Something of its parent's, or what it had before.
    Unknown,
}

/// Sets owner and mode of an open file or directory.
pub(super) fn own(fd: BorrowedFd<'_>, entry: &Entry, born: Born) -> Result<(), CallError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let chown = born == Born::Unknown || entry.uid != 0 || entry.gid != 0;
    if chown {
        fchown(fd, Some(uid), Some(gid)).map_err(|errno| CallError::new("fchown", "", errno))?;
    }
    if born == Born::Unknown || entry.mode & !0o777 != 0 {
        fchmod(fd, Mode::from_bits_truncate(entry.mode))
            .map_err(|errno| CallError::new("fchmod", "", errno))?;
    }
    Ok(())
}

/// Whether [`own_at`] sets a mode: symlinks have none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HasMode {
    Yes,
    No,
}

/// Sets owner and mode of `name` in `dir`, which was just made and is not
/// followed.
pub(super) fn own_at(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    born: Born,
    has_mode: HasMode,
) -> Result<(), CallError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    if born == Born::Unknown || entry.uid != 0 || entry.gid != 0 {
        fchownat(
            dir,
            name,
            Some(uid),
            Some(gid),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .map_err(|errno| CallError::new("fchownat", name, errno))?;
    }
    let chmod = born == Born::Unknown || entry.mode & !0o777 != 0;
    if chmod && has_mode == HasMode::Yes {
        let mode = Mode::from_bits_truncate(entry.mode);
        fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)
            .map_err(|errno| CallError::new("fchmodat", name, errno))?;
    }
    Ok(())
}

/// The times of `entry`: access, or if it says none, modification; and
/// modification.
pub(super) fn times(entry: &Entry) -> (TimeSpec, TimeSpec) {
    let spec = |time: Timestamp| TimeSpec::new(time.seconds, i64::from(time.nanoseconds));
    (spec(entry.atime.unwrap_or(entry.mtime)), spec(entry.mtime))
}

/// Sets the times of an open file.
pub(super) fn date(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), CallError> {
    let (atime, mtime) = times(entry);
    futimens(fd, &atime, &mtime).map_err(|errno| CallError::new("futimens", "", errno))
}

/// Sets the times of `name` in `dir`, not following it.
pub(super) fn date_at(dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), CallError> {
    let (atime, mtime) = times(entry);
    utimensat(dir, name, &atime, &mtime, UtimensatFlags::NoFollowSymlink)
        .map_err(|errno| CallError::new("utimensat", name, errno))
}
