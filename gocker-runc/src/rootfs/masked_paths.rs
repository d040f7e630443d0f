//! `linux.maskedPaths`: paths that show nothing.
//!
//! Spec: config-linux.md#masked-paths

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat, makedev};

use super::error::{Error, at_path, in_root};
use super::filesystem::{self, Filesystem};
use super::mount::attach;
use crate::sys::in_root::{RootFd, file_type, open_host_path};
use crate::sys::mount_api::{Recursive, attr, clone_tree};
use crate::sys::{CallError, Called};
use std::os::fd::AsFd;

/// Covers each of `paths` that exists: a file with /dev/null, a directory with one empty
/// read-only tmpfs that all of them share.
///
/// Runs in: container namespace, before pivot_root.
///
/// # Errors
/// The path and the call; `/dev/null` that is not the null device.
pub(crate) fn mask(root: &RootFd, paths: &[String], label: Option<&CStr>) -> Result<(), Error> {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let path = Path::new(path);
        let target = match root.open_beneath(path, OFlag::O_PATH) {
            Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR) => continue,
            opened => opened.map_err(at_path("mask", path))?,
        };
        let kind = file_type(&target)
            .called(|| "fstat".into())
            .map_err(at_path("mask", path))?;
        if kind == SFlag::S_IFDIR {
            let tree = match &empty {
                // A detached mount cannot be copied; the attached one can.
                Some(attached) => copy(attached),
                None => empty_directory(root, label),
            };
            let tree = tree.map_err(at_path("mask", path))?;
            attach(&tree, &target).map_err(at_path("mask", path))?;
            empty.get_or_insert(tree);
        } else {
            let null = match &null {
                Some(null) => null,
                None => null.insert(open_null().map_err(in_root("mask paths"))?),
            };
            let tree = copy(null).map_err(at_path("mask", path))?;
            attach(&tree, &target).map_err(at_path("mask", path))?;
        }
    }
    Ok(())
}

/// The host's null device, checked by its number (CVE-2025-31133).
fn open_null() -> Result<OwnedFd, CallError> {
    let fd = open_host_path(Path::new("/dev/null"))?;
    let stat = fstat(&fd).called(|| "fstat(/dev/null)".into())?;
    let is_char = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    if !is_char || stat.st_rdev != makedev(1, 3) {
        return Err(CallError {
            call: "/dev/null is not the character device 1:3".into(),
            errno: Errno::ENODEV,
        });
    }
    Ok(fd)
}

fn copy(mount: &OwnedFd) -> Result<OwnedFd, CallError> {
    clone_tree(mount.as_fd(), c"", Recursive::No).called(|| "open_tree(CLONE)".into())
}

fn empty_directory(root: &RootFd, label: Option<&CStr>) -> Result<OwnedFd, CallError> {
    let mut data = vec![
        (c"nr_inodes".to_owned(), Some(c"1".to_owned())),
        (c"mode".to_owned(), Some(c"555".to_owned())),
    ];
    data.extend(label.map(|label| (c"context".to_owned(), Some(label.to_owned()))));
    let wanted = Filesystem {
        kind: c"tmpfs",
        source: c"tmpfs",
        data: &data,
        attributes: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
    };
    filesystem::new(root, &wanted)
}
