//! Makes one mount, on descriptors from its source to its destination.

use std::borrow::Cow;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::copy_up::{self, TopOwner};
use super::error::Error;
use super::filesystem::{self, Filesystem};
use super::idmapped::IdMap;
use super::mount_options::{Attributes, MountOptions};
use crate::sys::in_root::{Missing, RootFd, file_type};
use crate::sys::mount_api::{
    Call, MountAttr, Recursive, attr, clone_tree, is_missing, mount_setattr, move_mount,
    set_attributes,
};
use crate::sys::xattr::fsetxattr;
use crate::sys::{CallError, Called};

/// One mount to make.
#[derive(Debug)]
pub(crate) struct MountPlan {
    /// Where, inside the container.
    pub(crate) destination: PathBuf,
    /// What is mounted there.
    pub(crate) what: What,
    /// With which options.
    pub(crate) options: MountOptions,
    /// Whose owners are shown otherwise than the source has them, and how.
    pub(crate) id_map: Option<IdMap>,
}

/// What a mount shows.
#[derive(Debug)]
pub(crate) enum What {
    /// What the host has at `source`. `tree` is a copy of that mount where it had to be made
    /// before the clone.
    Bind {
        /// The host's path.
        source: PathBuf,
        /// The detached copy.
        tree: Option<OwnedFd>,
    },
    /// A filesystem of type `kind`.
    Filesystem {
        /// The type, as in /proc/filesystems.
        kind: CString,
        /// The device or label.
        source: CString,
        /// What is bound where the kernel refuses the filesystem (EPERM, EBUSY).
        fallback: Option<PathBuf>,
    },
    /// Nothing new: the mount that is there gets other attributes.
    Remount,
}

impl MountPlan {
    /// The source that was copied ahead of its turn.
    pub(crate) fn tree(&self) -> Option<&OwnedFd> {
        match &self.what {
            What::Bind { tree, .. } => tree.as_ref(),
            What::Filesystem { .. } | What::Remount => None,
        }
    }

    /// What an error message calls this mount's source.
    pub(crate) fn source_name(&self) -> String {
        match &self.what {
            What::Bind { source, .. } => source.display().to_string(),
            What::Filesystem { kind, .. } => kind.to_string_lossy().into_owned(),
            What::Remount => "remount".into(),
        }
    }
}

/// Makes the mount beneath `root`. A read-only tmpfs stays writable for now, because later
/// mounts may need directories in it: it is returned for [`seal`], which finishes it.
///
/// Runs in: container namespace, before pivot_root.
///
/// # Errors
/// [`Error::Mount`] with the call, [`Error::Destination`] for a place that is not allowed.
pub(crate) fn make(root: &RootFd, plan: &MountPlan) -> Result<Option<OwnedFd>, Error> {
    let named = |source| Error::Mount {
        source_name: plan.source_name(),
        destination: plan.destination.clone(),
        source,
    };
    match &plan.what {
        What::Bind { source, tree } => {
            let made;
            let tree = match tree {
                Some(tree) => tree,
                None => {
                    made = open_source(source, plan.options.bind).map_err(named)?;
                    &made
                }
            };
            let missing = missing_like(tree).map_err(named)?;
            let target = open_target(root, plan, missing, named)?;
            attach_bind(tree, &target, &plan.options).map_err(named)?;
            Ok(None)
        }
        What::Filesystem { kind, source, .. } => make_filesystem(root, plan, kind, source),
        What::Remount => remount(root, plan).map(|()| None).map_err(named),
    }
}

/// Changes the mount that is at the destination, and its filesystem's parameters.
fn remount(root: &RootFd, plan: &MountPlan) -> Result<(), CallError> {
    let mount = root.open_beneath(&plan.destination, OFlag::O_PATH)?;
    if !plan.options.data.is_empty() {
        filesystem::reconfigure(&mount, &plan.options.data)?;
    }
    set(mount.as_fd(), Recursive::No, plan.options.attributes)?;
    finish(&mount, &plan.options)
}

/// Makes a new filesystem and mounts it; or binds what stands in for it.
fn make_filesystem(
    root: &RootFd,
    plan: &MountPlan,
    kind: &CString,
    source: &CString,
) -> Result<Option<OwnedFd>, Error> {
    let named = |source| Error::Mount {
        source_name: plan.source_name(),
        destination: plan.destination.clone(),
        source,
    };
    let hidden = hidden_mode(root, plan, kind).map_err(named)?;
    let mode = hidden.map(|mode| (c"mode".to_owned(), Some(mode)));
    let own = &plan.options.data;
    let data = match mode {
        Some(mode) => Cow::Owned([std::slice::from_ref(&mode), own].concat()),
        None => Cow::Borrowed(own.as_slice()),
    };
    let wanted = Filesystem {
        kind,
        source,
        data: &data,
        attributes: at_first(plan),
    };
    let mount = match (filesystem::new(root, &wanted), &plan.what) {
        (
            Err(error),
            What::Filesystem {
                fallback: Some(path),
                ..
            },
        ) if matches!(error.errno, Errno::EPERM | Errno::EBUSY) => {
            let tree = open_source(path, Some(Recursive::No)).map_err(named)?;
            let target = open_target(root, plan, Missing::Directory, named)?;
            attach_bind(&tree, &target, &plan.options).map_err(named)?;
            return Ok(None);
        }
        (made, _) => made.map_err(named)?,
    };
    let target = open_target(root, plan, Missing::Directory, named)?;
    if plan.options.copy_up {
        let owner = top_owner(&plan.options);
        copy_up::copy(target.as_fd(), mount.as_fd(), owner).map_err(named)?;
    }
    if let Some(label) = &plan.options.label {
        set_selinux_label(&mount, label).map_err(named)?;
    }
    attach(&mount, &target).map_err(named)?;
    finish(&mount, &plan.options).map_err(named)?;
    Ok(is_sealed_late(plan).then_some(mount))
}

/// Labels the top of a filesystem that takes no `context` parameter.
fn set_selinux_label(mount: &OwnedFd, label: &CString) -> Result<(), CallError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let top = openat(mount, ".", flags, Mode::empty()).called(|| "openat(\".\")".into())?;
    fsetxattr(top.as_fd(), c"security.selinux", label.to_bytes_with_nul())
        .called(|| format!("fsetxattr(security.selinux, {label:?})"))
}

/// Copies a bind mount's source ahead of its turn.
///
/// # Errors
/// [`Error::Mount`] with the call.
pub(crate) fn open_early(plan: &mut MountPlan) -> Result<(), Error> {
    let recursive = plan.options.bind;
    if let What::Bind {
        source,
        tree: tree @ None,
    } = &mut plan.what
    {
        let opened = open_source(source, recursive).map_err(|error| Error::Mount {
            source_name: source.display().to_string(),
            destination: plan.destination.clone(),
            source: error,
        })?;
        *tree = Some(opened);
    }
    Ok(())
}

/// As [`open_early`], where it is possible: without open_tree(2) a mount can only be copied in
/// the mount namespace that it is in, so init does it.
///
/// # Errors
/// [`Error::Mount`] with the call.
pub(crate) fn open_ahead(plan: &mut MountPlan) -> Result<(), Error> {
    match open_early(plan) {
        Err(Error::Mount { source, .. }) if is_missing(Call::OpenTree, source.errno) => Ok(()),
        done => done,
    }
}

/// Makes `mount`, which [`make`] left writable, read-only.
///
/// # Errors
/// [`Error::Mount`] with the call.
pub(crate) fn seal(plan: &MountPlan, mount: &OwnedFd) -> Result<(), Error> {
    set(mount.as_fd(), Recursive::No, Attributes::READ_ONLY).map_err(|source| Error::Mount {
        source_name: plan.source_name(),
        destination: plan.destination.clone(),
        source,
    })
}

/// The attributes that a new filesystem begins with.
fn at_first(plan: &MountPlan) -> u64 {
    let attributes = plan.options.attributes.set;
    if is_sealed_late(plan) {
        attributes & !attr::RDONLY
    } else {
        attributes
    }
}

fn is_sealed_late(plan: &MountPlan) -> bool {
    matches!(&plan.what, What::Filesystem { kind, .. } if kind.as_bytes() == b"tmpfs")
        && plan.options.attributes.set & attr::RDONLY != 0
}

/// A detached copy of the mount at the host's path `source`.
///
/// # Errors
/// open_tree(2)'s.
pub(crate) fn open_source(
    source: &Path,
    recursive: Option<Recursive>,
) -> Result<OwnedFd, CallError> {
    let recursive = recursive.unwrap_or(Recursive::Yes);
    let path = c_path(source)?;
    clone_tree(AT_FDCWD, &path, recursive).called(|| {
        let recursive = if recursive == Recursive::Yes {
            "|RECURSIVE"
        } else {
            ""
        };
        format!("open_tree({source:?}, CLONE{recursive})")
    })
}

/// A file is mounted on a file, everything else on a directory.
fn missing_like(tree: &OwnedFd) -> Result<Missing, CallError> {
    let kind = file_type(tree).called(|| "fstat".into())?;
    Ok(if kind == SFlag::S_IFDIR {
        Missing::Directory
    } else {
        Missing::File
    })
}

/// The descriptor to mount on. The kernel's own filesystems must not be led astray by a
/// symlink, and nothing may cover a part of procfs but what shows numbers of the container.
fn open_target(
    root: &RootFd,
    plan: &MountPlan,
    missing: Missing,
    named: impl Fn(CallError) -> Error,
) -> Result<OwnedFd, Error> {
    let destination = &plan.destination;
    let refuse = |problem| Error::Destination {
        destination: destination.clone(),
        problem,
    };
    let inside_proc = destination.starts_with("/proc") && destination != Path::new("/proc");
    if is_kernel_filesystem(plan) || inside_proc {
        match root.open_without_symlinks(destination, OFlag::O_PATH) {
            Err(error) if error.errno == Errno::ELOOP => {
                return Err(refuse("the root filesystem has a symlink there"));
            }
            Err(error) if error.errno == Errno::ENOENT && !inside_proc => {}
            Err(error) => return Err(named(error)),
            Ok(target) => return allow_in_proc(target, destination).map_err(refuse),
        }
    }
    let target = root.open_or_make(destination, missing).map_err(&named)?;
    if root.is_at(&target).map_err(&named)? {
        return Err(refuse("a symlink leads it to the root itself"));
    }
    if !inside_proc && is_procfs(&target).map_err(named)? && destination != Path::new("/proc") {
        return Err(refuse("a symlink leads it into /proc"));
    }
    Ok(target)
}

fn is_kernel_filesystem(plan: &MountPlan) -> bool {
    matches!(&plan.what, What::Filesystem { kind, .. } if matches!(kind.as_bytes(), b"proc" | b"sysfs"))
}

/// Files of procfs that lxcfs and the like replace.
const REPLACEABLE_IN_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

fn allow_in_proc(target: OwnedFd, destination: &Path) -> Result<OwnedFd, &'static str> {
    let replaceable = REPLACEABLE_IN_PROC
        .iter()
        .any(|path| Path::new(path) == destination);
    let top = !destination.starts_with("/proc") || destination == Path::new("/proc");
    if top || replaceable {
        Ok(target)
    } else {
        Err("nothing may be mounted inside /proc")
    }
}

fn is_procfs(fd: &OwnedFd) -> Result<bool, CallError> {
    Ok(fstatfs(fd).called(|| "fstatfs".into())?.filesystem_type() == PROC_SUPER_MAGIC)
}

fn attach_bind(tree: &OwnedFd, target: &OwnedFd, options: &MountOptions) -> Result<(), CallError> {
    attach_with(tree, target, Recursive::No, options.attributes)?;
    finish(tree, options)
}

/// Attaches `mount` with `wanted`: nobody sees it without, unless the kernel only knows how to
/// change mounts that are attached.
pub(super) fn attach_with(
    mount: &OwnedFd,
    target: &OwnedFd,
    recursive: Recursive,
    wanted: Attributes,
) -> Result<(), CallError> {
    if wanted.is_empty() {
        return attach(mount, target);
    }
    match mount_setattr(mount, recursive, wanted.into()) {
        Err(errno) if is_missing(Call::MountSetattr, errno) => {
            attach(mount, target)?;
            set(mount.as_fd(), recursive, wanted)
        }
        done => {
            done.called(|| wanted.call())?;
            attach(mount, target)
        }
    }
}

/// move_mount(2).
pub(super) fn attach(mount: &OwnedFd, target: &OwnedFd) -> Result<(), CallError> {
    move_mount(mount.as_fd(), target.as_fd()).called(|| "move_mount".into())
}

/// What is set once the mount is in its place.
fn finish(mount: &OwnedFd, options: &MountOptions) -> Result<(), CallError> {
    set(mount.as_fd(), Recursive::Yes, options.recursive_attributes)?;
    for (flag, recursive) in &options.propagation {
        let attributes = MountAttr {
            propagation: *flag,
            ..MountAttr::default()
        };
        set_attributes(mount, *recursive, attributes)
            .called(|| format!("mount_setattr(propagation {flag:#x})"))?;
    }
    Ok(())
}

/// mount_setattr(2).
pub(super) fn set(
    mount: BorrowedFd<'_>,
    recursive: Recursive,
    wanted: Attributes,
) -> Result<(), CallError> {
    if wanted.is_empty() {
        return Ok(());
    }
    set_attributes(mount, recursive, wanted.into()).called(|| wanted.call())
}

/// The mode of the directory that a tmpfs is about to hide, in octal: the tmpfs gets it where
/// its options name none, as with runc. None where nothing is there yet.
fn hidden_mode(
    root: &RootFd,
    plan: &MountPlan,
    kind: &CString,
) -> Result<Option<CString>, CallError> {
    if kind.as_bytes() != b"tmpfs" || has_parameter(&plan.options, b"mode") {
        return Ok(None);
    }
    let hidden = match root.open_beneath(&plan.destination, OFlag::O_PATH) {
        Err(error) if error.errno == Errno::ENOENT => return Ok(None),
        hidden => hidden?,
    };
    let mode = fstat(&hidden).called(|| "fstat".into())?.st_mode & 0o7777;
    let mode = CString::new(format!("{mode:o}")).map_err(|_| Errno::EINVAL);
    mode.map(Some).called(|| "tmpfs: mode".into())
}

fn top_owner(options: &MountOptions) -> TopOwner {
    if has_parameter(options, b"uid") || has_parameter(options, b"gid") {
        TopOwner::Given
    } else {
        TopOwner::Copied
    }
}

fn has_parameter(options: &MountOptions, name: &[u8]) -> bool {
    options.data.iter().any(|(key, _)| key.as_bytes() == name)
}

/// A path as a C string.
///
/// # Errors
/// EINVAL for a NUL byte.
pub(super) fn c_path(path: &Path) -> Result<CString, CallError> {
    let text: &OsStr = path.as_os_str();
    CString::new(text.as_bytes()).map_err(|_| CallError {
        call: format!("path {path:?}"),
        errno: Errno::EINVAL,
    })
}
