//! `tmpcopyup`: a new tmpfs begins with what lies below its mount point.
//!
//! Everything goes by descriptors, from one open directory to another, and no symlink is
//! followed: the content is the image's.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use crate::sys::{CallError, Called};

/// As deep as directories are followed.
const MAX_DEPTH: usize = 256;

/// Whom the new filesystem's top belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopOwner {
    /// To the owner of the directory that it hides.
    Copied,
    /// To whom the mount's options say.
    Given,
}

/// Copies what is in directory `from` into directory `to`, with owners, modes and times. The
/// mode of `to` itself stays.
///
/// # Errors
/// The entry and the call.
pub(super) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    owner: TopOwner,
) -> Result<(), CallError> {
    // O_PATH descriptors can neither be listed nor given an owner.
    let (from, to) = (open_dir(from, c".")?, open_dir(to, c".")?);
    let own = fstat(&from).called(|| "fstat".into())?;
    copy_entries(from, to.as_fd(), 0)?;
    match owner {
        TopOwner::Copied => copy_owner(to.as_fd(), &own),
        TopOwner::Given => Ok(()),
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, CallError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty()).called(|| format!("openat({name:?})"))
}

fn copy_dir(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<(), CallError> {
    let own = fstat(&from).called(|| "fstat".into())?;
    copy_entries(from, to, depth)?;
    copy_owner(to, &own)?;
    fchmod(to, Mode::from_bits_truncate(own.st_mode)).called(|| "fchmod".into())
}

fn copy_entries(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<(), CallError> {
    if depth > MAX_DEPTH {
        return Err(CallError {
            call: "tmpcopyup".into(),
            errno: Errno::ELOOP,
        });
    }
    let mut dir = Dir::from_fd(from).called(|| "fdopendir".into())?;
    let entries: Vec<_> = dir
        .iter()
        .collect::<Result<_, _>>()
        .called(|| "getdents".into())?;
    for entry in entries {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == Some(Type::Directory) {
            mkdirat(to, name, Mode::from_bits_truncate(0o700))
                .called(|| format!("mkdirat({name:?})"))?;
            let (from, to) = (open_dir(dir.as_fd(), name)?, open_dir(to, name)?);
            copy_dir(from, to.as_fd(), depth + 1)?;
        } else {
            copy_entry(dir.as_fd(), to, name)?;
        }
    }
    Ok(())
}

fn copy_owner(to: BorrowedFd<'_>, own: &FileStat) -> Result<(), CallError> {
    let (uid, gid) = (Uid::from_raw(own.st_uid), Gid::from_raw(own.st_gid));
    fchown(to, Some(uid), Some(gid)).called(|| "fchown".into())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), CallError> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .called(|| format!("fstatat({name:?})"))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let mode = Mode::from_bits_truncate(stat.st_mode);
    match kind {
        SFlag::S_IFLNK => {
            let target = readlinkat(from, name).called(|| format!("readlinkat({name:?})"))?;
            symlinkat(target.as_os_str(), to, name).called(|| format!("symlinkat({name:?})"))?;
        }
        SFlag::S_IFREG => copy_file(from, to, name).called(|| format!("copy {name:?}"))?,
        _ => {
            mknodat(to, name, kind, mode, stat.st_rdev).called(|| format!("mknodat({name:?})"))?;
        }
    }
    restore(to, name, &stat, kind).called(|| format!("restore the attributes of {name:?}"))
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut source = File::from(openat(from, name, read, Mode::empty())?);
    let mut copy = File::from(openat(to, name, write, Mode::from_bits_truncate(0o600))?);
    io::copy(&mut source, &mut copy).map(drop)
}

/// Owner before mode: changing the owner clears the set-user-id bit.
fn restore(to: BorrowedFd<'_>, name: &CStr, stat: &FileStat, kind: SFlag) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind != SFlag::S_IFLNK {
        let mode = Mode::from_bits_truncate(stat.st_mode);
        // No symlink can be here: the tmpfs is mounted nowhere yet.
        fchmodat(to, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(
        to,
        name,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )
}
