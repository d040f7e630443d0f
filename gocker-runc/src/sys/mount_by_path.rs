//! mount(2) on descriptors: what stands in for the mount API of Linux 5.2 and 5.12 where a
//! kernel, or the seccomp filter of a container around this program, is too old to have it.
//!
//! The paths that mount(2) gets are `/proc/self/fd/N`, so it acts on what a descriptor refers
//! to, and nothing is resolved again. It cannot make a mount that is nowhere, so each is made
//! in a stage first, a tmpfs that only this process has a descriptor of, and moved from there:
//!
//! ```text
//! ROOT (the host's path)     tmpfs, unbindable: the stage
//!   0, 1, 2, ...             a mount each, until it is moved to its destination
//! ROOT again                 the container's root, moved on top of the stage
//! ```
//!
//! See mount(2), proc_pid_mountinfo(5).
#![allow(unsafe_code, reason = "flags that nix leaves out")]

use std::cell::{Cell, OnceCell};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use super::in_root::file_type;
use super::mount_api::{
    MountAttr, Recursive, attr, clone_tree, fsconfig_create, fsconfig_string, fsmount, fsopen,
    move_mount,
};
use super::mount_flags::{ST_NOSYMFOLLOW, attributes_of, mount_flags, superblock};

/// A place for mounts that are not where they belong yet.
struct Stage {
    dir: OwnedFd,
    next: Cell<u32>,
}

/// mount(2) cuts text that is longer, without a word.
const DATA_MAX: usize = 4095;

thread_local! {
    static STAGE: OnceCell<Stage> = const { OnceCell::new() };
}

/// Whether mounts are made on a stage.
pub(crate) fn has_stage() -> bool {
    STAGE.with(|stage| stage.get().is_some())
}

/// Makes the stage, at the host's directory `path`; from here on the calls of
/// [`super::mount_api`] that make and move mounts use it.
///
/// Runs in: container namespace, in which no mount is shared.
///
/// # Errors
/// mount(2)'s.
pub(crate) fn make_stage(path: &Path) -> Result<(), Errno> {
    check_proc()?;
    let text = Some("tmpfs");
    mount(text, path, text, MsFlags::empty(), Some("mode=0700"))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = nix::fcntl::open(path, flags, Mode::empty())?;
    // No copy of the tree that it is in has it.
    change(dir.as_fd(), MsFlags::MS_UNBINDABLE)?;
    let next = Cell::new(0);
    STAGE.with(|stage| stage.set(Stage { dir, next }).map_err(|_| Errno::EBUSY))
}

/// A copy of the mount at `path`, on the stage.
///
/// # Errors
/// open(2)'s and mount(2)'s.
pub(super) fn bind(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: Recursive,
) -> Result<OwnedFd, Errno> {
    let opened;
    let source = if path.is_empty() {
        dir
    } else {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        opened = openat(dir, path, flags, Mode::empty())?;
        opened.as_fd()
    };
    let mut flags = MsFlags::MS_BIND;
    if recursive == Recursive::Yes {
        flags |= MsFlags::MS_REC;
    }
    let is_dir = file_type(source)? == SFlag::S_IFDIR;
    let none = None::<&str>;
    STAGE.with(|stage| {
        stage.get().ok_or(Errno::ENOSYS)?.put(is_dir, |slot| {
            mount(Some(path_of(source).as_str()), slot, none, flags, none)
        })
    })
}

/// A new filesystem, on the stage. `data` is what fsconfig(2) would be told.
///
/// # Errors
/// mount(2)'s.
pub(crate) fn new_filesystem(
    kind: &CStr,
    source: &CStr,
    data: &[(CString, Option<CString>)],
    attributes: u64,
) -> Result<OwnedFd, Errno> {
    STAGE.with(|stage| {
        let stage = stage.get().ok_or(Errno::ENOSYS)?;
        mount_on_stage(stage, kind, source, data, attributes)
    })
}

/// As [`new_filesystem`], detached: where the calls of [`super::mount_api`] are there, but only
/// mount(2) can make it. The directory `place` is covered by a stage meanwhile.
///
/// Runs in: container namespace, in which no mount is shared.
///
/// # Errors
/// As [`new_filesystem`].
pub(crate) fn new_filesystem_over(
    place: BorrowedFd<'_>,
    kind: &CStr,
    source: &CStr,
    data: &[(CString, Option<CString>)],
    attributes: u64,
) -> Result<OwnedFd, Errno> {
    check_proc()?;
    let fs = fsopen(c"tmpfs")?;
    fsconfig_string(&fs, c"mode", c"0700")?;
    fsconfig_create(&fs)?;
    let dir = fsmount(&fs, 0)?;
    move_mount(dir.as_fd(), place)?;
    let next = Cell::new(0);
    let stage = Stage { dir, next };
    let made = mount_on_stage(&stage, kind, source, data, attributes)
        .and_then(|mounted| clone_tree(mounted.as_fd(), c"", Recursive::No));
    umount2(path_of(stage.dir.as_fd()).as_str(), MntFlags::MNT_DETACH)?;
    made
}

fn mount_on_stage(
    stage: &Stage,
    kind: &CStr,
    source: &CStr,
    data: &[(CString, Option<CString>)],
    attributes: u64,
) -> Result<OwnedFd, Errno> {
    let (flags, text) = superblock(data);
    if text.len() > DATA_MAX {
        return Err(Errno::E2BIG);
    }
    let flags = flags | mount_flags(attributes);
    stage.put(true, |slot| {
        mount(Some(source), slot, Some(kind), flags, Some(text.as_slice()))
    })
}

/// mount(2) with MS_REMOUNT: other parameters for the filesystem of a mount, which keeps its
/// attributes.
///
/// # Errors
/// mount(2)'s.
pub(crate) fn reconfigure(
    mounted: BorrowedFd<'_>,
    data: &[(CString, Option<CString>)],
) -> Result<(), Errno> {
    check_proc()?;
    let (flags, text) = superblock(data);
    let flags = flags | MsFlags::MS_REMOUNT | mount_flags(attributes_of(flags_of(mounted)?));
    let (none, text) = (None::<&str>, Some(text.as_slice()));
    mount(none, path_of(mounted).as_str(), none, flags, text)
}

/// Moves a mount from the stage on what `target` refers to.
///
/// # Errors
/// mount(2)'s.
pub(super) fn attach(mounted: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let none = None::<&str>;
    let (from, to) = (path_of(mounted), path_of(target));
    mount(
        Some(from.as_str()),
        to.as_str(),
        none,
        MsFlags::MS_MOVE,
        none,
    )
}

/// What mount_setattr(2) does, on a mount that is attached.
///
/// # Errors
/// mount(2)'s; EOPNOTSUPP for what this kernel does not know.
pub(super) fn set_attributes(
    mounted: BorrowedFd<'_>,
    recursive: Recursive,
    wanted: MountAttr,
) -> Result<(), Errno> {
    check_proc()?;
    if wanted.propagation != 0 {
        let mut flags = MsFlags::from_bits_retain(wanted.propagation);
        if recursive == Recursive::Yes {
            flags |= MsFlags::MS_REC;
        }
        change(mounted, flags)?;
    }
    if wanted.set | wanted.clear == 0 {
        return Ok(());
    }
    remount(mounted, wanted)?;
    if recursive == Recursive::No {
        return Ok(());
    }
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|_| Errno::EIO)?;
    let below = mounts_below(&table, mount_id(mounted)?);
    below.iter().try_for_each(|(id, path)| {
        let inner = open_mount(mounted, path)?;
        // Whatever is there now, it is not what the table told.
        if mount_id(inner.as_fd())? != *id {
            return Err(Errno::EAGAIN);
        }
        remount(inner.as_fd(), wanted)
    })
}

/// The id of the mount that `fd` is on, as in mountinfo.
///
/// # Errors
/// ENOENT where `/proc` is no procfs that shows this process.
pub(super) fn mount_id(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
        .map_err(|_| Errno::ENOENT)?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or(Errno::ENOENT)
}

impl Stage {
    /// Runs `make` on a new entry, and opens what is mounted there then.
    fn put(
        &self,
        is_dir: bool,
        make: impl FnOnce(&str) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        let name = self.next.get().to_string();
        self.next.set(self.next.get() + 1);
        let name = name.as_str();
        if is_dir {
            mkdirat(&self.dir, name, Mode::S_IRWXU)?;
        } else {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            drop(openat(&self.dir, name, flags, Mode::S_IRWXU)?);
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let slot = openat(&self.dir, name, flags, Mode::empty())?;
        make(&path_of(slot.as_fd()))?;
        openat(&self.dir, name, flags, Mode::empty())
    }
}

/// mount(2) with flags alone.
fn change(mounted: BorrowedFd<'_>, flags: MsFlags) -> Result<(), Errno> {
    let none = None::<&str>;
    mount(none, path_of(mounted).as_str(), none, flags, none)
}

/// Gives one mount other attributes and keeps those that are not named: mount(2) sets all.
fn remount(mounted: BorrowedFd<'_>, wanted: MountAttr) -> Result<(), Errno> {
    let now = attributes_of(flags_of(mounted)?);
    let attributes = now & !wanted.clear | wanted.set;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | mount_flags(attributes);
    change(mounted, flags)?;
    // A kernel passes over a flag that it does not know.
    let refused = wanted.set & attr::NOSYMFOLLOW != 0 && flags_of(mounted)? & ST_NOSYMFOLLOW == 0;
    if refused {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(())
}

/// The flags that statvfs(3) tells: nix leaves out those that it does not know.
fn flags_of(mounted: BorrowedFd<'_>) -> Result<libc::c_ulong, Errno> {
    // SAFETY: plain data, for which zero is a value.
    let mut told: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and `told` outlives the call.
    let done = unsafe { libc::fstatvfs(mounted.as_raw_fd(), &raw mut told) };
    Errno::result(done).map(|_| told.f_flag)
}

fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The paths of this module lead through `/proc`.
fn check_proc() -> Result<(), Errno> {
    if statfs("/proc/self/fd")?.filesystem_type() == PROC_SUPER_MAGIC {
        Ok(())
    } else {
        Err(Errno::ENOENT)
    }
}

/// Ids of the mounts below mount `top`, outer ones first, and where they are in it.
fn mounts_below(table: &str, top: u32) -> Vec<(u32, PathBuf)> {
    let lines: Vec<(u32, u32, PathBuf)> = table.lines().filter_map(line_of).collect();
    let Some((_, _, base)) = lines.iter().find(|(id, _, _)| *id == top) else {
        return Vec::new();
    };
    let mut found: Vec<u32> = vec![top];
    let mut below = Vec::new();
    // A mount comes after the one that it is on, unless that one was moved: so once more.
    loop {
        let before = below.len();
        for (id, parent, point) in &lines {
            if found.contains(parent) && !found.contains(id) {
                found.push(*id);
                let inside = point.strip_prefix(base).unwrap_or(point);
                below.push((*id, inside.to_owned()));
            }
        }
        if below.len() == before {
            return below;
        }
    }
}

/// A mount's id, its parent's, and its mount point.
fn line_of(line: &str) -> Option<(u32, u32, PathBuf)> {
    let mut fields = line.split(' ');
    let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((id, parent, unescape(fields.nth(2)?)))
}

/// A path of mountinfo, as it is.
pub(crate) fn unescape(field: &str) -> PathBuf {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
        .into()
}

/// What is mounted at `path` in the mount `top`, by names that are no symlinks.
fn open_mount(top: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut here = top.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    for name in path {
        here = openat(&here, name, flags, Mode::empty())?;
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_mount() {
        let table = "\
            30 1 0:1 / / rw - ext4 x rw\n\
            41 40 0:3 / /r/a/b\\040c rw - tmpfs x rw\n\
            40 35 0:2 / /r/a rw - tmpfs x rw\n\
            35 30 0:1 /x /r rw - ext4 x rw\n\
            50 30 0:4 / /other rw - tmpfs x rw\n";
        let expected = vec![(40, PathBuf::from("a")), (41, PathBuf::from("a/b c"))];
        assert_eq!(mounts_below(table, 35), expected);
        assert_eq!(mounts_below(table, 99), Vec::new());
    }
}
