//! `/dev`: the nodes and links that every container has, and those of `linux.devices`.
//!
//! Spec: config-linux.md#default-devices, runtime-linux.md#dev-symbolic-links

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bundles::config::linux::devices::{Device, DeviceKind};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat, makedev, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::error::{Error, at_path};
use super::mount::{attach, c_path};
use crate::sys::in_root::{Missing, RootFd};
use crate::sys::mount_api::{Recursive, clone_tree};
use crate::sys::{CallError, Called};

/// How a node comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nodes {
    /// By mknod(2).
    Make,
    /// By binding the host's: in a user namespace mknod(2) is refused.
    Bind,
}

/// Name, major and minor number of the nodes that every container has, mode 0666.
const DEFAULT_NODES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Name and target of the links that every container has.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The paths of the nodes that every container has.
pub(crate) fn default_paths() -> impl Iterator<Item = PathBuf> {
    let dev = Path::new("/dev");
    DEFAULT_NODES.iter().map(move |(name, ..)| dev.join(name))
}

/// Makes the default nodes, the links and `extra` beneath `root`, whose `/dev` is in place.
///
/// Runs in: container namespace, before pivot_root, umask 0.
///
/// # Errors
/// The node and the call.
pub(crate) fn populate(root: &RootFd, extra: &[Device], nodes: Nodes) -> Result<(), Error> {
    // Pinned once: a /dev that is a symlink is resolved inside the root, and everything
    // below is made in the directory that was found.
    let dev = root
        .open_or_make(Path::new("/dev"), Missing::Directory)
        .map_err(at_path("open", "/dev"))?;
    for (name, major, minor) in DEFAULT_NODES {
        let path = Path::new("/dev").join(name);
        // A node of linux.devices takes the place of a default one.
        if extra.iter().any(|device| device.path == path) {
            continue;
        }
        let device = Device {
            path,
            kind: DeviceKind::Char,
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        };
        make_node(dev.as_fd(), OsStr::new(name), &device, nodes)?;
    }
    for device in extra {
        let parent = device.path.parent().unwrap_or(Path::new("/"));
        let name = device.path.file_name().unwrap_or_default();
        if parent == Path::new("/dev") {
            make_node(dev.as_fd(), name, device, nodes)?;
            continue;
        }
        let dir = root
            .open_or_make(parent, Missing::Directory)
            .map_err(at_path("make the directory of device", &device.path))?;
        make_node(dir.as_fd(), name, device, nodes)?;
    }
    for (name, target) in LINKS {
        link(dev.as_fd(), name, target)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(dev.as_fd(), "core", "/proc/kcore")?;
    }
    relink_ptmx(dev.as_fd())
}

fn make_node(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    device: &Device,
    nodes: Nodes,
) -> Result<(), Error> {
    let made = match nodes {
        Nodes::Make => match mknod(dir, name, device) {
            // The runtime itself is in a user namespace, or lacks CAP_MKNOD.
            Err(error) if error.errno == Errno::EPERM => bind_node(dir, name, device),
            made => made,
        },
        Nodes::Bind => bind_node(dir, name, device),
    };
    made.map_err(at_path("make device", &device.path))
}

fn mknod(dir: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<(), CallError> {
    let kind = match device.kind {
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Char => SFlag::S_IFCHR,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    };
    let number = makedev(device.major.into(), device.minor.into());
    match mknodat(
        dir,
        name,
        kind,
        Mode::from_bits_truncate(device.mode),
        number,
    ) {
        Err(Errno::EEXIST) => return same_node(dir, name, kind, number),
        done => done.called(|| format!("mknodat({name:?})"))?,
    }
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    fchownat(
        dir,
        name,
        Some(uid),
        Some(gid),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .called(|| format!("fchownat({name:?})"))
}

/// What an image brings along is good if it is what would have been made.
fn same_node(dir: BorrowedFd<'_>, name: &OsStr, kind: SFlag, number: u64) -> Result<(), CallError> {
    let found =
        fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).called(|| format!("fstatat({name:?})"))?;
    let found_kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
    if found_kind == kind && (kind == SFlag::S_IFIFO || found.st_rdev == number) {
        return Ok(());
    }
    Err(CallError {
        call: format!("mknodat({name:?})"),
        errno: Errno::EEXIST,
    })
}

fn bind_node(dir: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<(), CallError> {
    if device.kind == DeviceKind::Fifo {
        return mknod(dir, name, device);
    }
    let flags = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target = openat(dir, name, flags, Mode::from_bits_truncate(0o666))
        .called(|| format!("openat({name:?})"))?;
    let path = c_path(&device.path)?;
    let tree: OwnedFd = clone_tree(nix::fcntl::AT_FDCWD, &path, Recursive::No)
        .called(|| format!("open_tree({:?}, CLONE)", device.path))?;
    attach(&tree, &target)
}

fn link(dev: BorrowedFd<'_>, name: &str, target: &str) -> Result<(), Error> {
    match symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::Path {
            step: "link",
            path: Path::new("/dev").join(name),
            source: CallError {
                call: format!("symlinkat({target:?})"),
                errno,
            },
        }),
    }
}

/// /dev/ptmx is the container's own: an image's node would be the host's multiplexer.
fn relink_ptmx(dev: BorrowedFd<'_>) -> Result<(), Error> {
    match unlinkat(dev, "ptmx", UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => link(dev, "ptmx", "pts/ptmx"),
        Err(errno) => Err(Error::Path {
            step: "replace",
            path: "/dev/ptmx".into(),
            source: CallError {
                call: "unlinkat(\"ptmx\")".into(),
                errno,
            },
        }),
    }
}
