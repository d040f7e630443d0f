//! `linux.readonlyPaths`: paths that cannot be written.
//!
//! Spec: config-linux.md#readonly-paths

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::error::{Error, at_path};
use super::mount::attach_with;
use super::mount_options::Attributes;
use crate::sys::in_root::RootFd;
use crate::sys::mount_api::{Recursive, clone_tree};
use crate::sys::{CallError, Called};

/// Binds each of `paths` that exists onto itself, read-only, with all mounts below it.
///
/// Runs in: container namespace, before pivot_root.
///
/// # Errors
/// The path and the call.
pub(crate) fn protect(root: &RootFd, paths: &[String]) -> Result<(), Error> {
    for path in paths {
        let path = Path::new(path);
        match protect_one(root, path) {
            Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR) => {}
            done => done.map_err(at_path("make read-only", path))?,
        }
    }
    Ok(())
}

fn protect_one(root: &RootFd, path: &Path) -> Result<(), CallError> {
    let target = root.open_beneath(path, OFlag::O_PATH)?;
    let tree = clone_tree(target.as_fd(), c"", Recursive::Yes)
        .called(|| "open_tree(CLONE|RECURSIVE)".into())?;
    attach_with(&tree, &target, Recursive::Yes, Attributes::READ_ONLY)
}
