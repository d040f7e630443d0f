//! Quotas of subvolumes by ioctl on descriptors. Every subvolume has a group of level 0 by its own
//! number, which the kernel makes with it while quotas are on.
//!
//! ```text
//! simple quotas  (Linux 6.7)  whoever writes an extent first pays for it, whoever shares it later
//! full quotas                 who else shares an extent is found out at each commit
//! ```

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::errno::CallError;

/// `BTRFS_QUOTA_CTL_ENABLE`.
const ENABLE: u64 = 1;
/// `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`.
const ENABLE_SIMPLE: u64 = 4;
/// `BTRFS_QGROUP_LIMIT_MAX_EXCL`.
const LIMIT_EXCLUSIVE: u64 = 1 << 1;

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
    let args = QuotaLimit {
        // that of the subvolume
        group: 0,
        flags: LIMIT_EXCLUSIVE,
        referenced: 0,
        exclusive: bytes,
        reserved: [0; 2],
    };
    // SAFETY: the kernel reads the six numbers of `args` during the call.
    match unsafe { raw::qgroup_limit(subvolume.as_raw_fd(), (&raw const args).cast_mut()) } {
        Ok(_) => Ok(true),
        Err(Errno::ENOTCONN) => Ok(false),
        Err(errno) => Err(CallError::new("limit_quota_group", "", errno)),
    }
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
