//! `/dev`: the nodes and links that every container has, and those of `linux.devices`.
//!
//! Spec: config-linux.md#default-devices, runtime-linux.md#dev-symbolic-links

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bundles::config::linux::devices::{Device, DeviceKind};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, makedev, mknodat};
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
        make_node(dev.as_fd(), OsStr::new(name), &device, nodes)
            .map_err(at_path("make device", &device.path))?;
    }
    for (index, device) in extra.iter().enumerate() {
        let named = |source| Error::Device {
            index,
            path: device.path.clone(),
            source,
        };
        let parent = device.path.parent().unwrap_or(Path::new("/"));
        let name = device.path.file_name().unwrap_or_default();
        if parent == Path::new("/dev") {
            make_node(dev.as_fd(), name, device, nodes).map_err(named)?;
            continue;
        }
        let dir = root.open_or_make(parent, Missing::Directory);
        make_node(dir.map_err(named)?.as_fd(), name, device, nodes).map_err(named)?;
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
) -> Result<(), CallError> {
    match nodes {
        Nodes::Make => match mknod(dir, name, device) {
            // The runtime itself is in a user namespace, or lacks CAP_MKNOD.
            Err(error) if error.errno == Errno::EPERM => bind_node(dir, name, device),
            made => made,
        },
        Nodes::Bind => bind_node(dir, name, device),
    }
}

fn mknod(dir: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<(), CallError> {
    let (kind, number) = kind_and_number(device);
    match mknodat(
        dir,
        name,
        kind,
        Mode::from_bits_truncate(device.mode),
        number,
    ) {
        Err(Errno::EEXIST) => return same_node(dir, name, device),
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

fn kind_and_number(device: &Device) -> (SFlag, u64) {
    let kind = match device.kind {
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Char => SFlag::S_IFCHR,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    };
    (kind, makedev(device.major.into(), device.minor.into()))
}

/// Whether `found` is the node that `device` describes.
fn is_node(found: &FileStat, device: &Device) -> bool {
    let (kind, number) = kind_and_number(device);
    let same_kind = found.st_mode & SFlag::S_IFMT.bits() == kind.bits();
    same_kind && (kind == SFlag::S_IFIFO || found.st_rdev == number)
}

/// What an image brings along is good if it is what would have been made.
fn same_node(dir: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<(), CallError> {
    let found =
        fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).called(|| format!("fstatat({name:?})"))?;
    if is_node(&found, device) {
        return Ok(());
    }
    Err(Errno::EEXIST).called(|| format!("mknodat({name:?})"))
}

fn bind_node(dir: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<(), CallError> {
    if device.kind == DeviceKind::Fifo {
        return mknod(dir, name, device);
    }
    let path = c_path(&device.path)?;
    let tree: OwnedFd = clone_tree(nix::fcntl::AT_FDCWD, &path, Recursive::No)
        .called(|| format!("open_tree({:?}, CLONE)", device.path))?;
    if !is_node(&fstat(&tree).called(|| "fstat".into())?, device) {
        let (kind, major, minor) = (device.kind, device.major, device.minor);
        return Err(Errno::ENODEV).called(|| {
            format!(
                "the host's {:?} is not the {kind} device {major}:{minor}",
                device.path
            )
        });
    }
    attach(&tree, &place_for(dir, name, device)?)
}

/// What a node is bound on: a new file, or what is there already. That is not opened, as an
/// image's pipe would wait for a writer.
fn place_for(dir: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<OwnedFd, CallError> {
    let call = || format!("openat({name:?})");
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(dir, name, flags, Mode::from_bits_truncate(0o666)) {
        Err(Errno::EEXIST) => {}
        done => return done.called(call),
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let there = openat(dir, name, flags, Mode::empty()).called(call)?;
    let found = fstat(&there).called(|| "fstat".into())?;
    let is_file = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    if is_file || is_node(&found, device) {
        return Ok(there);
    }
    Err(Errno::EEXIST).called(call)
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
