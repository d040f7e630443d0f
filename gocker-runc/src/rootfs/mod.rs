//! The container's root filesystem, from the host's tree to a `/` of its own.
//!
//! ```text
//! prepare   propagation -> bind the root -> mounts in order -> /dev          (mounts are made)
//!           ... hooks run: the runtime's and the container's ...
//! conceal   read-only tmpfs -> read-only paths -> masked paths -> read-only root
//! enter     pivot_root
//! ```
//!
//! Spec: config.md#root, config.md#mounts, config-linux.md

mod cgroup_links;
mod copy_up;
pub(crate) mod devices;
pub(crate) mod error;
mod filesystem;
pub(crate) mod idmapped;
mod masked_paths;
pub(crate) mod mount;
pub(crate) mod mount_options;
pub(crate) mod pivot;
mod readonly_paths;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bundles::config::linux::Propagation;
use bundles::config::linux::devices::Device;
use nix::mount::{MsFlags, mount as mount2};
use nix::sys::stat::{Mode, umask};

pub(crate) use cgroup_links::Link;
use devices::Nodes;
pub(crate) use error::Error;
use error::in_root;
use mount::MountPlan;
use mount_options::Attributes;
use pivot::Pivot;

use crate::sys::Called;
use crate::sys::in_root::{Missing, RootFd};
use crate::sys::mount_api::{Call, Recursive, clone_tree, is_missing, move_mount};
use crate::sys::mount_by_path::make_stage;

/// Everything about the root filesystem, looked up before the clone.
#[derive(Debug)]
pub(crate) struct RootfsPlan {
    /// The host's path, without symlinks.
    pub(crate) path: PathBuf,
    /// Whether `/` is read-only in the end.
    pub(crate) readonly: bool,
    /// `linux.rootfsPropagation`.
    pub(crate) propagation: Option<Propagation>,
    /// The mounts, in order.
    pub(crate) mounts: Vec<MountPlan>,
    /// Those that [`prepare`] made and [`conceal`] finishes, by their place in `mounts`.
    pub(crate) unsealed: Vec<(usize, OwnedFd)>,
    /// Links beside the controllers' directories.
    pub(crate) links: Vec<Link>,
    /// How `/dev` is filled; None where the host's `/dev` is bound.
    pub(crate) dev: Option<Nodes>,
    /// `linux.devices`.
    pub(crate) devices: Vec<Device>,
    /// `linux.mountLabel`.
    pub(crate) mount_label: Option<CString>,
    /// `linux.maskedPaths`.
    pub(crate) masked_paths: Vec<String>,
    /// `linux.readonlyPaths`.
    pub(crate) readonly_paths: Vec<String>,
    /// How `/` is changed.
    pub(crate) pivot: Pivot,
}

/// Makes all mounts and nodes beneath the root, which becomes a mount of its own.
///
/// Runs in: container namespace.
///
/// # Errors
/// The step, the path and the call.
pub(crate) fn prepare(plan: &mut RootfsPlan) -> Result<RootFd, Error> {
    if plan.pivot == Pivot::Chroot {
        return RootFd::open(&plan.path).map_err(in_root("open the root"));
    }
    if plan.propagation == Some(Propagation::Shared) {
        // While they are still peers of the host's mounts.
        plan.mounts.iter_mut().try_for_each(mount::open_early)?;
    }
    set_host_propagation(plan.propagation)?;
    let root = bind_root(&plan.path)?;
    // Nodes get the modes that the configuration says.
    let old = umask(Mode::empty());
    let made = plan
        .mounts
        .iter()
        .enumerate()
        .try_for_each(|(index, one)| {
            let unsealed = mount::make(&root, one)?;
            plan.unsealed.extend(unsealed.map(|made| (index, made)));
            Ok(())
        })
        .and_then(|()| {
            cgroup_links::make(&root, &plan.links)?;
            plan.dev.map_or(Ok(()), |nodes| {
                devices::populate(&root, &plan.devices, nodes)
            })
        });
    umask(old);
    made.map(|()| root)
}

/// Takes away what the container may not write or see.
///
/// Runs in: container namespace, before pivot_root.
///
/// # Errors
/// The step, the path and the call.
pub(crate) fn conceal(plan: &RootfsPlan, root: &RootFd) -> Result<(), Error> {
    if plan.pivot == Pivot::Chroot {
        return Ok(());
    }
    for (index, mount) in &plan.unsealed {
        mount::seal(&plan.mounts[*index], mount)?;
    }
    readonly_paths::protect(root, &plan.readonly_paths)?;
    masked_paths::mask(root, &plan.masked_paths, plan.mount_label.as_deref())?;
    if plan.readonly {
        mount::set(root.as_fd(), Recursive::No, Attributes::READ_ONLY)
            .map_err(in_root("make the root read-only"))?;
    }
    Ok(())
}

/// Makes the root the process's `/`.
///
/// Runs in: container namespace.
///
/// # Errors
/// The call that failed.
pub(crate) fn enter(plan: &RootfsPlan, root: &RootFd) -> Result<(), Error> {
    pivot::enter(root, &plan.path, plan.pivot)?;
    let flag = match plan.propagation {
        Some(Propagation::Shared) => MsFlags::MS_SHARED,
        Some(Propagation::Unbindable) => MsFlags::MS_UNBINDABLE,
        Some(Propagation::Slave | Propagation::Private) | None => return Ok(()),
    };
    mount2(None::<&str>, "/", None::<&str>, flag, None::<&str>)
        .called(|| format!("mount(\"/\", {flag:?})"))
        .map_err(in_root("set the root's propagation"))
}

/// Makes the working directory where it is missing, as runc does.
///
/// # Errors
/// The call that failed.
pub(crate) fn make_cwd(root: &RootFd, cwd: &Path) -> Result<(), Error> {
    root.open_or_make(cwd, Missing::Directory)
        .map(drop)
        .map_err(error::at_path("make the working directory", cwd))
}

/// No mount of the container's reaches the host; what the host mounts later reaches the
/// container unless it asked for privacy.
fn set_host_propagation(propagation: Option<Propagation>) -> Result<(), Error> {
    let flag = match propagation {
        None | Some(Propagation::Slave) => MsFlags::MS_SLAVE,
        // Shared: the volumes were copied before, as peers of the host's mounts.
        Some(Propagation::Private | Propagation::Unbindable | Propagation::Shared) => {
            MsFlags::MS_PRIVATE
        }
    };
    mount2(
        None::<&str>,
        "/",
        None::<&str>,
        flag | MsFlags::MS_REC,
        None::<&str>,
    )
    .called(|| format!("mount(\"/\", {flag:?}|REC)"))
    .map_err(in_root("set the propagation of the host's mounts"))
}

/// pivot_root wants a mount, private, on a private one.
fn bind_root(path: &Path) -> Result<RootFd, Error> {
    let place = RootFd::open(path).map_err(in_root("open the root"))?;
    let clone = || clone_tree(place.as_fd(), c"", Recursive::Yes);
    let tree = match clone() {
        Err(errno) if is_missing(Call::OpenTree, errno) => {
            make_stage(path)
                .called(|| format!("mount(tmpfs, {path:?})"))
                .map_err(in_root("mount without open_tree(2)"))?;
            clone()
        }
        done => done,
    };
    let tree = tree
        .called(|| format!("open_tree({path:?}, CLONE|RECURSIVE)"))
        .map_err(in_root("bind the root"))?;
    move_mount(tree.as_fd(), place.as_fd())
        .called(|| format!("move_mount({path:?})"))
        .map_err(in_root("bind the root"))?;
    Ok(RootFd::from_fd(tree))
}
