//! Links such as `cpu -> cpu,cpuacct` in a container's `/sys/fs/cgroup`.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::symlinkat;

use super::error::{Error, at_path};
use crate::sys::Called;
use crate::sys::in_root::{Missing, RootFd};

/// One symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where, inside the container.
    pub(crate) path: PathBuf,
    /// To what.
    pub(crate) target: PathBuf,
}

/// Makes the links beneath `root`.
///
/// # Errors
/// The link and the call.
pub(super) fn make(root: &RootFd, links: &[Link]) -> Result<(), Error> {
    for link in links {
        let (Some(parent), Some(name)) = (link.path.parent(), link.path.file_name()) else {
            continue;
        };
        let dir = root
            .open_or_make(parent, Missing::Directory)
            .map_err(at_path("link", &link.path))?;
        match symlinkat(&link.target, &dir, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            done => done
                .called(|| "symlinkat".into())
                .map_err(at_path("link", &link.path))?,
        }
    }
    Ok(())
}
