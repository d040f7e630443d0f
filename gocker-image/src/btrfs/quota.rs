//! Quotas of subvolumes by ioctl on descriptors. Every subvolume has a group of level 0 by its own
//! number, which the kernel makes with it while quotas are on.
//!
//! ```text
//! simple quotas  (Linux 6.7)  whoever writes an extent first pays for it, whoever shares it later
//! full quotas                 who else shares an extent is found out at each commit
//! ```

use std::collections::HashSet;
use std::fmt;
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
/// Where in a group's name its level begins, and the greatest number below.
const LEVEL_SHIFT: u32 = 48;
const LAST_NUMBER: u64 = (1 << LEVEL_SHIFT) - 1;
/// The group of the subvolume that the call is made on.
const OWN_GROUP: GroupId = GroupId(0);
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

/// The name of a quota group: its level and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(u64);

impl GroupId {
    /// The group that a subvolume has by itself.
    pub(super) fn of_subvolume(number: u64) -> Self {
        Self(number)
    }

    /// The group above that, which the groups of subvolumes made in it join.
    fn above(number: u64) -> Self {
        Self(1 << LEVEL_SHIFT | number)
    }

    /// The number of the subvolume.
    fn number(self) -> u64 {
        self.0 & LAST_NUMBER
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0 >> LEVEL_SHIFT, self.number())
    }
}

/// Limits what `subvolume` has alone to `bytes`. False if quotas are off.
///
/// # Errors
/// When the user may not.
pub fn limit_subvolume(subvolume: BorrowedFd<'_>, bytes: u64) -> Result<bool, CallError> {
    match set_limit(subvolume, OWN_GROUP, bytes) {
        Ok(()) => Ok(true),
        Err(Errno::ENOTCONN) => Ok(false),
        Err(errno) => Err(CallError::new("limit_quota_group", "", errno)),
    }
}

/// Limits what `subvolume` has together with the subvolumes that come to be made in it, which is
/// by a group above its own that theirs join. Full quotas know no such thing, and nothing is done.
///
/// # Errors
/// When the user may not.
pub fn limit_with_nested(subvolume: BorrowedFd<'_>, bytes: u64) -> Result<(), CallError> {
    if !is_simple(&search_groups(subvolume)?) {
        return Ok(());
    }
    let number = super::subvolume_id(subvolume)?;
    let above = GroupId::above(number);
    match change_group(subvolume, 1, above) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(CallError::new("create_quota_group", "", errno)),
    }
    let args = GroupAssignment {
        assign: 1,
        member: GroupId::of_subvolume(number).0,
        group: above.0,
    };
    // SAFETY: the kernel reads the three numbers of `args` during the call.
    match unsafe { raw::qgroup_assign(subvolume.as_raw_fd(), &raw const args) } {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(CallError::new("assign_quota_group", "", errno)),
    }
    set_limit(subvolume, above, bytes)
        .map_err(|errno| CallError::new("limit_quota_group", "", errno))
}

/// Takes away the limits of a subvolume that is to be deleted: to remove what lies in it takes room
/// as well.
pub(super) fn lift_limits(subvolume: BorrowedFd<'_>) -> Result<(), CallError> {
    let above = GroupId::above(super::subvolume_id(subvolume)?);
    for group in [OWN_GROUP, above] {
        match set_limit(subvolume, group, NO_LIMIT) {
            // there is none, or there are no quotas; who may not lift it may still delete
            Ok(()) | Err(Errno::ENOTCONN | Errno::ENOENT | Errno::EPERM) => {}
            Err(errno) => return Err(CallError::new("lift_quota_limit", "", errno)),
        }
    }
    Ok(())
}

fn set_limit(fd: BorrowedFd<'_>, group: GroupId, bytes: u64) -> Result<(), Errno> {
    let mut args = QuotaLimit {
        group: group.0,
        flags: LIMIT_EXCLUSIVE,
        referenced: 0,
        exclusive: bytes,
        reserved: [0; 2],
    };
    // SAFETY: the kernel reads the six numbers of `args` during the call.
    unsafe { raw::qgroup_limit(fd.as_raw_fd(), &raw mut args) }.map(drop)
}

/// Drops a quota group whose subvolume is deleted. False if it is still needed: the kernel has not
/// taken the subvolume apart yet, or others share what it wrote.
///
/// # Errors
/// When the user may not.
pub fn drop_quota_group(fd: BorrowedFd<'_>, group: GroupId) -> Result<bool, CallError> {
    match change_group(fd, 0, group) {
        // ENOTCONN: quotas are off. ENOENT: the group is gone already.
        Ok(()) | Err(Errno::ENOTCONN | Errno::ENOENT) => Ok(true),
        // From Linux 6.11 the cleaner, which is still at it, drops the group itself.
        Err(Errno::EBUSY | Errno::EINVAL) => Ok(false),
        Err(errno) => Err(CallError::new("drop_quota_group", "", errno)),
    }
}

/// Makes a group (`create` is 1) or drops it (0).
fn change_group(fd: BorrowedFd<'_>, create: u64, group: GroupId) -> Result<(), Errno> {
    let args = GroupChange {
        create,
        group: group.0,
    };
    // SAFETY: the kernel reads the two numbers of `args` during the call.
    unsafe { raw::qgroup_create(fd.as_raw_fd(), &raw const args) }.map(drop)
}

/// The groups of subvolumes that are gone, and those above them, the lower first. Such a group
/// stays if what its subvolume wrote was shared longer than the subvolume lived; while it still is,
/// the group is none of these.
///
/// # Errors
/// When the user may not look.
pub fn stale_quota_groups(fd: BorrowedFd<'_>) -> Result<Vec<GroupId>, CallError> {
    let mut stale = groups_without_subvolume(fd)?;
    if !stale.is_empty() {
        // a subvolume that is just being made has its group first, and is there after a commit
        super::sync(fd)?;
        let again = groups_without_subvolume(fd)?;
        stale.retain(|group| again.contains(group));
    }
    Ok(stale)
}

fn groups_without_subvolume(fd: BorrowedFd<'_>) -> Result<Vec<GroupId>, CallError> {
    let items = search_groups(fd)?;
    let is_simple = is_simple(&items);
    // what simple quotas still count by is needed
    let is_idle = |item: &&Item| !is_simple || item.number(INFO_REFERENCED_AT) == 0;
    let infos = items
        .iter()
        .filter(|item| item.key.kind == QUOTA_INFO_ITEM)
        .filter(is_idle);
    let mut groups: Vec<_> = infos.map(|item| GroupId(item.key.offset)).collect();
    groups.retain(|group| group.number() >= FIRST_SUBVOLUME);
    if !groups.is_empty() {
        let subvolumes = subvolumes(fd)?;
        groups.retain(|group| !subvolumes.contains(&group.number()));
    }
    Ok(groups)
}

/// The records of quotas and of the groups of the two lowest levels; none if quotas are off.
fn search_groups(fd: BorrowedFd<'_>) -> Result<Vec<Item>, CallError> {
    let key = |kind, offset| Key {
        object: 0,
        kind,
        offset,
    };
    let last = GroupId::above(LAST_NUMBER).0;
    let (first, last) = (key(QUOTA_STATUS_ITEM, 0), key(QUOTA_INFO_ITEM, last));
    Ok(search(fd, QUOTA_TREE, first, last)?.unwrap_or_default())
}

/// Whether the quotas that have these records are simple ones.
fn is_simple(items: &[Item]) -> bool {
    let status = items.iter().find(|item| item.key.kind == QUOTA_STATUS_ITEM);
    status.is_some_and(|item| item.number(STATUS_FLAGS_AT) & SIMPLE_MODE != 0)
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

/// `struct btrfs_ioctl_qgroup_assign_args`.
#[repr(C)]
pub(crate) struct GroupAssignment {
    assign: u64,
    member: u64,
    group: u64,
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
pub(crate) struct GroupChange {
    create: u64,
    group: u64,
}

/// The bare ioctls; each function with a pointer is unsafe because the kernel trusts it.
mod raw {
    use super::super::MAGIC;
    use super::{GroupAssignment, GroupChange, QuotaControl, QuotaLimit};

    nix::ioctl_readwrite!(quota_ctl, MAGIC, 40, QuotaControl);
    nix::ioctl_write_ptr!(qgroup_assign, MAGIC, 41, GroupAssignment);
    nix::ioctl_write_ptr!(qgroup_create, MAGIC, 42, GroupChange);
    // its number says that the kernel writes, but it only reads
    nix::ioctl_read!(qgroup_limit, MAGIC, 43, QuotaLimit);
    nix::ioctl_none!(quota_rescan_wait, MAGIC, 46);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_by_level_and_number() {
        for (group, text) in [
            (GroupId::of_subvolume(257), "0/257"),
            (GroupId::above(257), "1/257"),
        ] {
            assert_eq!(group.to_string(), text);
            assert_eq!(group.number(), 257);
        }
    }
}
