//! Quotas of subvolumes by ioctl on descriptors. Every subvolume has a group of level 0 by its own
//! number, which the kernel makes with it while quotas are on.
//!
//! ```text
//! simple quotas  (Linux 6.7)  whoever writes an extent first pays for it, whoever shares it later
//! full quotas                 who else shares an extent is found out at each commit
//! ```

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::search::{Item, Key, search};
use crate::errno::CallError;

/// `BTRFS_QUOTA_CTL_ENABLE`.
const ENABLE: u64 = 1;
/// `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`.
const ENABLE_SIMPLE: u64 = 4;
/// `BTRFS_QGROUP_LIMIT_MAX_EXCL`.
const LIMIT_EXCLUSIVE: u64 = 1 << 1;

/// The limit that is none.
const NO_LIMIT: u64 = u64::MAX;
/// The tree of all trees, and in it the kind of a tree's own record.
const ROOT_TREE: u64 = 1;
const ROOT_ITEM: u32 = 132;
/// The least and the greatest number of a subvolume beside the top one.
const FIRST_SUBVOLUME: u64 = 256;
const LAST_SUBVOLUME: u64 = u64::MAX - 255;
/// The tree of quota groups, and in it the kinds of its own record and of those of groups.
const QUOTA_TREE: u64 = 8;
const QUOTA_STATUS_ITEM: u32 = 240;
const QUOTA_INFO_ITEM: u32 = 242;
/// The greatest number of a group of level 0: the level is in the upper sixteen bits.
const LAST_GROUP: u64 = (1 << 48) - 1;
/// `BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE`, and where in the record flags are.
const SIMPLE_MODE: u64 = 1 << 3;
const STATUS_FLAGS_AT: usize = 16;
/// Where in the record of a group it says how many bytes it has.
const INFO_REFERENCED_AT: usize = 8;

/// How a file system counts what subvolumes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaKind {
    /// By who wrote it.
    Simple,
    /// By who shares it.
    Full,
}

/// Turns quotas on for the whole file system of `fd`: simple ones, or full ones where the kernel
/// does not know those, and counts what is there.
///
/// # Errors
/// When the user may not, or the disk is full.
pub fn enable_quotas(fd: BorrowedFd<'_>) -> Result<QuotaKind, CallError> {
    let error = |errno| CallError::new("enable_quotas", "", errno);
    match control_quotas(fd, ENABLE_SIMPLE) {
        Ok(()) => return Ok(QuotaKind::Simple),
        // a command that this kernel does not know
        Err(Errno::EINVAL) => {}
        Err(errno) => return Err(error(errno)),
    }
    control_quotas(fd, ENABLE).map_err(error)?;
    // SAFETY: the call takes no pointer.
    unsafe { raw::quota_rescan_wait(fd.as_raw_fd()) }
        .map_err(|errno| CallError::new("wait_for_quota_rescan", "", errno))?;
    Ok(QuotaKind::Full)
}

fn control_quotas(fd: BorrowedFd<'_>, command: u64) -> Result<(), Errno> {
    let mut args = QuotaControl { command, status: 0 };
    // SAFETY: the kernel reads and writes the two numbers of `args` during the call.
    unsafe { raw::quota_ctl(fd.as_raw_fd(), &raw mut args) }.map(drop)
}

/// Limits what `subvolume` has alone to `bytes`. False if quotas are off.
///
/// # Errors
/// When the user may not.
pub fn limit_subvolume(subvolume: BorrowedFd<'_>, bytes: u64) -> Result<bool, CallError> {
    match set_limit(subvolume, bytes) {
        Ok(()) => Ok(true),
        Err(Errno::ENOTCONN) => Ok(false),
        Err(errno) => Err(CallError::new("limit_quota_group", "", errno)),
    }
}

/// Takes away the limit of a subvolume that is to be deleted: to remove what lies in it takes room
/// as well.
pub(super) fn lift_limit(subvolume: BorrowedFd<'_>) -> Result<(), CallError> {
    match set_limit(subvolume, NO_LIMIT) {
        // there is none, or there are no quotas; who may not lift it may still delete
        Ok(()) | Err(Errno::ENOTCONN | Errno::ENOENT | Errno::EPERM) => Ok(()),
        Err(errno) => Err(CallError::new("lift_quota_limit", "", errno)),
    }
}

fn set_limit(subvolume: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    let mut args = QuotaLimit {
        // that of the subvolume
        group: 0,
        flags: LIMIT_EXCLUSIVE,
        referenced: 0,
        exclusive: bytes,
        reserved: [0; 2],
    };
    // SAFETY: the kernel reads the six numbers of `args` during the call.
    unsafe { raw::qgroup_limit(subvolume.as_raw_fd(), &raw mut args) }.map(drop)
}

/// Drops the quota group of the subvolume `id`, which is deleted. False if it is still needed:
/// the kernel has not taken the subvolume apart yet, or others share what it wrote.
///
/// # Errors
/// When the user may not.
pub fn drop_quota_group(fd: BorrowedFd<'_>, id: u64) -> Result<bool, CallError> {
    let args = QuotaGroup { create: 0, id };
    // SAFETY: the kernel reads the two numbers of `args` during the call.
    match unsafe { raw::qgroup_create(fd.as_raw_fd(), &raw const args) } {
        // ENOTCONN: quotas are off. ENOENT: the group is gone already.
        Ok(_) | Err(Errno::ENOTCONN | Errno::ENOENT) => Ok(true),
        // From Linux 6.11 the cleaner, which is still at it, drops the group itself.
        Err(Errno::EBUSY | Errno::EINVAL) => Ok(false),
        Err(errno) => Err(CallError::new("drop_quota_group", "", errno)),
    }
}

/// The numbers of groups of level 0 that have no subvolume any more. Such a group stays if what
/// its subvolume wrote was shared longer than the subvolume lived; while it still is, the group is
/// none of these.
///
/// # Errors
/// When the user may not look.
pub fn stale_quota_groups(fd: BorrowedFd<'_>) -> Result<Vec<u64>, CallError> {
    let mut stale = groups_without_subvolume(fd)?;
    if !stale.is_empty() {
        // a subvolume that is just being made has its group first, and is there after a commit
        super::sync(fd)?;
        let again = groups_without_subvolume(fd)?;
        stale.retain(|id| again.contains(id));
    }
    Ok(stale)
}

fn groups_without_subvolume(fd: BorrowedFd<'_>) -> Result<Vec<u64>, CallError> {
    let mut groups = groups(fd)?;
    if !groups.is_empty() {
        let subvolumes = subvolumes(fd)?;
        groups.retain(|id| !subvolumes.contains(id));
    }
    Ok(groups)
}

/// The numbers of the groups of subvolumes, without those that simple quotas still count by.
fn groups(fd: BorrowedFd<'_>) -> Result<Vec<u64>, CallError> {
    let key = |kind, offset| Key {
        object: 0,
        kind,
        offset,
    };
    let (first, last) = (key(QUOTA_STATUS_ITEM, 0), key(QUOTA_INFO_ITEM, LAST_GROUP));
    // without a tree, quotas are off
    let items = search(fd, QUOTA_TREE, first, last)?.unwrap_or_default();
    let is_status = |item: &&Item| item.key.kind == QUOTA_STATUS_ITEM;
    let flags = items.iter().find(is_status);
    let is_simple = flags.is_some_and(|item| item.number(STATUS_FLAGS_AT) & SIMPLE_MODE != 0);
    let is_meant = |item: &&Item| {
        let counts = is_simple && item.number(INFO_REFERENCED_AT) > 0;
        item.key.kind == QUOTA_INFO_ITEM && item.key.offset >= FIRST_SUBVOLUME && !counts
    };
    let groups = items.iter().filter(is_meant);
    Ok(groups.map(|item| item.key.offset).collect())
}

/// The numbers of all subvolumes, and of those that are deleted and not yet taken apart.
fn subvolumes(fd: BorrowedFd<'_>) -> Result<HashSet<u64>, CallError> {
    let key = |object, offset| Key {
        object,
        kind: ROOT_ITEM,
        offset,
    };
    let (first, last) = (key(FIRST_SUBVOLUME, 0), key(LAST_SUBVOLUME, u64::MAX));
    let items = search(fd, ROOT_TREE, first, last)?.unwrap_or_default();
    let roots = items.iter().filter(|item| item.key.kind == ROOT_ITEM);
    Ok(roots.map(|item| item.key.object).collect())
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
pub(crate) struct QuotaControl {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
pub(crate) struct QuotaLimit {
    group: u64,
    flags: u64,
    referenced: u64,
    exclusive: u64,
    reserved: [u64; 2],
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
pub(crate) struct QuotaGroup {
    create: u64,
    id: u64,
}

/// The bare ioctls; each function with a pointer is unsafe because the kernel trusts it.
mod raw {
    use super::super::MAGIC;
    use super::{QuotaControl, QuotaGroup, QuotaLimit};

    nix::ioctl_readwrite!(quota_ctl, MAGIC, 40, QuotaControl);
    nix::ioctl_write_ptr!(qgroup_create, MAGIC, 42, QuotaGroup);
    // its number says that the kernel writes, but it only reads
    nix::ioctl_read!(qgroup_limit, MAGIC, 43, QuotaLimit);
    nix::ioctl_none!(quota_rescan_wait, MAGIC, 46);
}
