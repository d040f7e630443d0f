//! Removing a tree of directories: never across a mount, however deep it is.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::super::layout::UNFINISHED;
use super::super::mount_table;
use crate::errno::CallError;

/// Deeper directories are moved up and removed in their turn: each level keeps a descriptor.
const DEPTH: usize = 100;

/// Removes the tree `name` in `dir`. It loses its name first, so that no half of it is taken for
/// the whole.
pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), CallError> {
    refuse_mounts(dir, name)?;
    let mut unfinished = OsString::from(UNFINISHED);
    unfinished.push(name);
    let doomed = if name.as_bytes().starts_with(UNFINISHED.as_bytes()) {
        name
    } else {
        remove_named(dir, &unfinished)?;
        renameat(dir, name, dir, unfinished.as_os_str())
            .map_err(|errno| CallError::new("renameat", name, errno))?;
        &unfinished
    };
    remove_named(dir, doomed)
}

/// Removes `name`, which need not exist.
fn remove_named(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), CallError> {
    let top = match open_beneath(dir, name) {
        Ok(top) => top,
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(CallError::new("openat2", name, errno)),
    };
    let mut moved = 0;
    while empty(top.as_fd(), top.as_fd(), 0, &mut moved)? {}
    unlinkat(dir, name, UnlinkatFlags::RemoveDir)
        .map_err(|errno| CallError::new("unlinkat", name, errno))
}

/// Removes what is in `dir`. True if something was moved up to `top` and is to be removed there.
fn empty(
    top: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    depth: usize,
    moved: &mut usize,
) -> Result<bool, CallError> {
    let mut has_moved = false;
    for (name, kind) in list(dir)? {
        let path = OsStr::from_bytes(name.as_bytes());
        let error = |call| move |errno: Errno| CallError::new(call, path, errno);
        if kind != Some(Type::Directory) {
            unlinkat(dir, path, UnlinkatFlags::NoRemoveDir).map_err(error("unlinkat"))?;
            continue;
        }
        if depth == DEPTH {
            *moved += 1;
            let up = format!("{UNFINISHED}{moved}");
            renameat(dir, path, top, up.as_str()).map_err(error("renameat"))?;
            has_moved = true;
            continue;
        }
        let child = open_beneath(dir, path).map_err(error("openat2"))?;
        has_moved |= empty(top, child.as_fd(), depth + 1, moved)?;
        drop(child);
        unlinkat(dir, path, UnlinkatFlags::RemoveDir).map_err(error("unlinkat"))?;
    }
    Ok(has_moved)
}

/// The names in a directory, and their types.
pub(super) fn list(dir: BorrowedFd<'_>) -> Result<Vec<(CString, Option<Type>)>, CallError> {
    let error = |errno| CallError::new("readdir", "", errno);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = Dir::openat(dir, ".", flags, nix::sys::stat::Mode::empty()).map_err(error)?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry.map_err(error)?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        names.push((entry.file_name().to_owned(), entry.file_type()));
    }
    Ok(names)
}

/// Opens a directory that is not mounted on.
fn open_beneath(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV);
    openat2(dir, name, how)
}

/// Refuses a tree in which something is mounted, before anything of it is removed.
fn refuse_mounts(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), CallError> {
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let tree = fs::read_link(&link)
        .map_err(|error| CallError::new("readlink", &link, error))?
        .join(name);
    match mount_beneath(&mount_table::own()?, &tree) {
        None => Ok(()),
        Some(point) => Err(CallError::new(
            "remove a tree with a mount",
            point,
            Errno::EBUSY,
        )),
    }
}

/// The first mount point at or beneath `tree`.
fn mount_beneath(table: &[u8], tree: &Path) -> Option<PathBuf> {
    mount_table::points(table).find(|point| point.starts_with(tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_a_tree_are_found_and_those_beside_it_are_not() {
        let table = b"22 1 0:1 / / rw - ext4 x rw\n\
            23 22 0:2 / /s/my\\040tree/a rw - tmpfs x rw\n\
            24 22 0:2 / /s/treetop rw - tmpfs x rw\n";
        for (tree, expected) in [
            ("/s/my tree", Some("/s/my tree/a")),
            ("/s/my tree/a", Some("/s/my tree/a")),
            ("/s/tree", None),
            ("/t", None),
        ] {
            let found = mount_beneath(table, Path::new(tree));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{tree}");
        }
    }

    #[test]
    fn trees_go_however_deep_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().join("tree");
        fs::create_dir(&path).unwrap();
        for _ in 0..3 {
            path.extend((0..DEPTH).map(|_| "d"));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("file"), "x").unwrap();
        }
        let fd = fs::File::open(dir.path()).unwrap();
        remove_tree(fd.as_fd(), OsStr::new("tree")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
