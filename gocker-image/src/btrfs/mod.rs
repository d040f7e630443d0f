//! Btrfs subvolumes by ioctl on descriptors: create, snapshot, make read-only,
//! delete with everything nested in them. No program is run.
//!
//! Names given here are single components, resolved by the kernel in the
//! directory of the descriptor; they are never paths.
//!
//! Layouts and numbers: Linux, include/uapi/linux/btrfs.h.

#![expect(
    unsafe_code,
    reason = "btrfs is driven by ioctls, for which nix has macros but no safe functions"
)]

mod extents;
mod quota;
mod search;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};

use crate::errno::CallError;

pub use extents::{Extent, extents};
pub use quota::{
    GroupId, QuotaKind, drop_quota_group, enable_quotas, limit_subvolume, limit_with_nested,
    stale_quota_groups,
};

/// The type of all ioctls of btrfs.
const MAGIC: u8 = 0x94;
/// The inode number of the top directory of every subvolume.
const SUBVOLUME_INODE: u64 = 256;
/// `BTRFS_SUBVOL_RDONLY`.
const SUBVOLUME_READ_ONLY: u64 = 1 << 1;

/// Whether a snapshot may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It keeps its content until the flag is cleared.
    ReadOnly,
    /// It is an ordinary subvolume.
    Writable,
}

/// Whether `fd` lies on btrfs.
///
/// # Errors
/// When the kernel does not tell.
pub fn is_btrfs(fd: BorrowedFd<'_>) -> Result<bool, CallError> {
    match fstatfs(fd) {
        Ok(stat) => Ok(stat.filesystem_type() == BTRFS_SUPER_MAGIC),
        Err(errno) => Err(CallError::new("fstatfs", "", errno)),
    }
}

/// Whether `fd` is the top directory of a subvolume.
///
/// # Errors
/// When the kernel does not tell.
pub fn is_subvolume(fd: BorrowedFd<'_>) -> Result<bool, CallError> {
    let stat = fstat(fd).map_err(|errno| CallError::new("fstat", "", errno))?;
    Ok(stat.st_ino == SUBVOLUME_INODE && is_btrfs(fd)?)
}

/// Makes the empty subvolume `name` in `dir`, mode 0755, and opens it.
///
/// # Errors
/// When `name` exists, is too long, or the file system is full.
pub fn create_subvolume(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, CallError> {
    let error = |errno| CallError::new("create_subvolume", name, errno);
    let args = VolArgs::new(0, name).map_err(error)?;
    // SAFETY: `args` outlives the call, which only reads it; the kernel takes
    // at most the 4096 bytes that the structure has.
    unsafe { raw::subvol_create(dir.as_raw_fd(), &raw const args) }.map_err(error)?;
    let subvolume = open_child(dir, name)?;
    // The kernel applied the umask to 0777.
    fchmod(&subvolume, Mode::from_bits_truncate(0o755))
        .map_err(|errno| CallError::new("fchmod", name, errno))?;
    Ok(subvolume)
}

/// Makes `name` in `dir` a snapshot of the subvolume `source`, and opens it.
///
/// # Errors
/// When `source` is no subvolume, `name` exists, or they lie on different
/// file systems.
pub fn snapshot(
    source: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    access: Access,
) -> Result<OwnedFd, CallError> {
    let error = |errno| CallError::new("snapshot", name, errno);
    let mut args = VolArgsV2::new(i64::from(source.as_raw_fd()), name).map_err(error)?;
    if access == Access::ReadOnly {
        args.flags = SUBVOLUME_READ_ONLY;
    }
    // SAFETY: `args` outlives the call, which only reads it; `args.fd` is a
    // descriptor that `source` keeps open.
    unsafe { raw::snap_create_v2(dir.as_raw_fd(), &raw const args) }.map_err(error)?;
    open_child(dir, name)
}

/// Puts all that was written on disk, and sets the kernel to reclaiming the
/// space of deleted subvolumes.
///
/// # Errors
/// When it cannot be written.
pub fn sync(fd: BorrowedFd<'_>) -> Result<(), CallError> {
    // SAFETY: the call takes no pointer.
    unsafe { raw::sync(fd.as_raw_fd()) }.map_err(|errno| CallError::new("sync", "", errno))?;
    Ok(())
}

/// Lets the file system have all of its device, which has grown.
///
/// # Errors
/// When `fd` is not on btrfs.
pub fn grow_to_device(fd: BorrowedFd<'_>) -> Result<(), CallError> {
    let error = |errno| CallError::new("resize", "", errno);
    let args = VolArgs::new(0, OsStr::new("max")).map_err(error)?;
    // SAFETY: `args` outlives the call, which only reads it.
    unsafe { raw::resize(fd.as_raw_fd(), &raw const args) }.map_err(error)?;
    Ok(())
}

/// Whether a subvolume is read-only or writable.
///
/// # Errors
/// When `subvolume` is none.
pub fn access(subvolume: BorrowedFd<'_>) -> Result<Access, CallError> {
    let flags = flags(subvolume)?;
    Ok(match flags & SUBVOLUME_READ_ONLY {
        0 => Access::Writable,
        _ => Access::ReadOnly,
    })
}

/// Sets or clears the read-only flag of a subvolume.
///
/// # Errors
/// When `subvolume` is none.
pub fn set_access(subvolume: BorrowedFd<'_>, access: Access) -> Result<(), CallError> {
    let old = flags(subvolume)?;
    let new = match access {
        Access::ReadOnly => old | SUBVOLUME_READ_ONLY,
        Access::Writable => old & !SUBVOLUME_READ_ONLY,
    };
    if new == old {
        return Ok(());
    }
    // SAFETY: the kernel reads one u64 behind the pointer during the call.
    unsafe { raw::subvol_setflags(subvolume.as_raw_fd(), &raw const new) }
        .map_err(|errno| CallError::new("set_subvolume_flags", "", errno))?;
    Ok(())
}

fn flags(subvolume: BorrowedFd<'_>) -> Result<u64, CallError> {
    let mut flags = 0;
    // SAFETY: the kernel writes one u64 behind the pointer during the call.
    unsafe { raw::subvol_getflags(subvolume.as_raw_fd(), &raw mut flags) }
        .map_err(|errno| CallError::new("get_subvolume_flags", "", errno))?;
    Ok(flags)
}

/// Deletes the subvolume `name` in `dir`, read-only or not, with all
/// subvolumes nested in it, and their quota groups where quotas are on.
///
/// # Errors
/// When `name` is no subvolume, or one in it is in use as a swap file or the
/// root of a send.
pub fn delete_subvolume(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), CallError> {
    let subvolume = open_child(dir, name)?;
    if !is_subvolume(subvolume.as_fd())? {
        return Err(CallError::new("delete_subvolume", name, Errno::EINVAL));
    }
    delete_nested(subvolume.as_fd())?;
    let id = subvolume_id(subvolume.as_fd())?;
    drop(subvolume);
    let error = |errno| CallError::new("delete_subvolume", name, errno);
    let args = VolArgs::new(0, name).map_err(error)?;
    // SAFETY: `args` outlives the call, which only reads it.
    unsafe { raw::snap_destroy(dir.as_raw_fd(), &raw const args) }.map_err(error)?;
    drop_quota_group(dir, GroupId::of_subvolume(id)).map(drop)
}

/// Deletes the subvolumes directly beneath `subvolume`, each with its own.
fn delete_nested(subvolume: BorrowedFd<'_>) -> Result<(), CallError> {
    loop {
        let mut refs = RootRefs::new();
        // SAFETY: the kernel reads and writes the 4096 bytes of `refs` during
        // the call.
        let result = unsafe { raw::get_subvol_rootref(subvolume.as_raw_fd(), &raw mut refs) };
        match result {
            // More than one answer holds: they are deleted, then asked again.
            Ok(_) | Err(Errno::EOVERFLOW) => {}
            Err(errno) => return Err(CallError::new("get_subvolume_rootref", "", errno)),
        }
        let found = usize::from(refs.count).min(refs.items.len());
        if found == 0 {
            return Ok(());
        }
        // Removing an entry from a read-only parent is refused.
        set_access(subvolume, Access::Writable)?;
        quota::lift_limits(subvolume)?;
        for item in &refs.items[..found] {
            delete_nested_one(subvolume, item)?;
        }
        if result.is_ok() {
            return Ok(());
        }
    }
}

/// Deletes the subvolume that `item` names in some directory of `subvolume`.
fn delete_nested_one(subvolume: BorrowedFd<'_>, item: &RootRef) -> Result<(), CallError> {
    let mut lookup = LookupUser::new(item);
    // SAFETY: the kernel reads and writes the 4096 bytes of `lookup` during
    // the call.
    unsafe { raw::ino_lookup_user(subvolume.as_raw_fd(), &raw mut lookup) }
        .map_err(|errno| CallError::new("look up nested subvolume", "", errno))?;
    let name = OsStr::from_bytes(until_nul(&lookup.name));
    let path = match until_nul(&lookup.path) {
        [] => Path::new("."),
        path => Path::new(OsStr::from_bytes(path)),
    };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let parent =
        openat2(subvolume, path, how).map_err(|errno| CallError::new("openat2", path, errno))?;
    delete_subvolume(parent.as_fd(), name)
}

/// The number of the subvolume that `fd` lies in.
fn subvolume_id(fd: BorrowedFd<'_>) -> Result<u64, CallError> {
    let mut lookup = Lookup {
        tree: 0,
        object: SUBVOLUME_INODE,
        name: [0; 4080],
    };
    // SAFETY: the kernel reads and writes the 4096 bytes of `lookup` during
    // the call.
    unsafe { raw::ino_lookup(fd.as_raw_fd(), &raw mut lookup) }
        .map_err(|errno| CallError::new("get_subvolume_id", "", errno))?;
    Ok(lookup.tree)
}

fn open_child(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, CallError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(dir, name, flags, Mode::empty())
        .map_err(|errno| CallError::new("openat", name, errno))
}

/// Whether `name` exists in `dir`, of whatever type.
///
/// # Errors
/// When the kernel does not tell.
pub fn exists(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, CallError> {
    match nix::sys::stat::fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(CallError::new("fstatat", name, errno)),
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

/// Copies `name` with a NUL behind it.
fn copy_name(target: &mut [u8], name: &OsStr) -> Result<(), Errno> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(Errno::EINVAL);
    }
    if bytes.len() >= target.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    target[..bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
pub(crate) struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

impl VolArgs {
    fn new(fd: i64, name: &OsStr) -> Result<Self, Errno> {
        let mut args = Self {
            fd,
            name: [0; 4088],
        };
        copy_name(&mut args.name, name)?;
        Ok(args)
    }
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
pub(crate) struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

impl VolArgsV2 {
    fn new(fd: i64, name: &OsStr) -> Result<Self, Errno> {
        let mut args = Self {
            fd,
            transid: 0,
            flags: 0,
            unused: [0; 4],
            name: [0; 4040],
        };
        copy_name(&mut args.name, name)?;
        Ok(args)
    }
}

/// One entry of [`RootRefs`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RootRef {
    tree: u64,
    dir: u64,
}

/// `struct btrfs_ioctl_get_subvol_rootref_args`.
#[repr(C)]
pub(crate) struct RootRefs {
    min_tree: u64,
    items: [RootRef; 255],
    count: u8,
    align: [u8; 7],
}

impl RootRefs {
    fn new() -> Self {
        Self {
            min_tree: 0,
            items: [RootRef { tree: 0, dir: 0 }; 255],
            count: 0,
            align: [0; 7],
        }
    }
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
pub(crate) struct Lookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_ino_lookup_user_args`.
#[repr(C)]
pub(crate) struct LookupUser {
    dir: u64,
    tree: u64,
    name: [u8; 256],
    path: [u8; 3824],
}

impl LookupUser {
    fn new(item: &RootRef) -> Self {
        Self {
            dir: item.dir,
            tree: item.tree,
            name: [0; 256],
            path: [0; 3824],
        }
    }
}

const _: () = {
    assert!(size_of::<VolArgs>() == 4096);
    assert!(size_of::<VolArgsV2>() == 4096);
    assert!(size_of::<RootRefs>() == 4096);
    assert!(size_of::<Lookup>() == 4096);
    assert!(size_of::<LookupUser>() == 4096);
};

/// The bare ioctls; each function is unsafe because the kernel trusts its
/// pointer.
mod raw {
    use super::{Lookup, LookupUser, MAGIC, RootRefs, VolArgs, VolArgsV2};

    nix::ioctl_write_ptr!(resize, MAGIC, 3, VolArgs);
    nix::ioctl_none!(sync, MAGIC, 8);
    nix::ioctl_write_ptr!(subvol_create, MAGIC, 14, VolArgs);
    nix::ioctl_write_ptr!(snap_destroy, MAGIC, 15, VolArgs);
    nix::ioctl_readwrite!(ino_lookup, MAGIC, 18, Lookup);
    nix::ioctl_write_ptr!(snap_create_v2, MAGIC, 23, VolArgsV2);
    nix::ioctl_read!(subvol_getflags, MAGIC, 25, u64);
    nix::ioctl_write_ptr!(subvol_setflags, MAGIC, 26, u64);
    nix::ioctl_readwrite!(get_subvol_rootref, MAGIC, 61, RootRefs);
    nix::ioctl_readwrite!(ino_lookup_user, MAGIC, 62, LookupUser);
}
