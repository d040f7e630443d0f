//! sched_setattr(2), ioprio_set(2) and personality(2), which nix lacks or has in part.
#![allow(unsafe_code, reason = "system calls that nix lacks")]

use nix::errno::Errno;
use nix::unistd::Pid;

/// `struct sched_attr`, include/uapi/linux/sched/types.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SchedAttr {
    /// Set by [`sched_setattr`].
    pub(crate) size: u32,
    /// `SCHED_*`.
    pub(crate) policy: u32,
    /// `SCHED_FLAG_*`.
    pub(crate) flags: u64,
    /// -20 to 19, of SCHED_OTHER and SCHED_BATCH.
    pub(crate) nice: i32,
    /// 1 to 99, of SCHED_FIFO and SCHED_RR.
    pub(crate) priority: u32,
    /// SCHED_DEADLINE, in nanoseconds.
    pub(crate) runtime: u64,
    /// SCHED_DEADLINE, in nanoseconds.
    pub(crate) deadline: u64,
    /// SCHED_DEADLINE, in nanoseconds.
    pub(crate) period: u64,
    /// No field of the configuration.
    pub(crate) util_min: u32,
    /// No field of the configuration.
    pub(crate) util_max: u32,
}

/// Sets how `pid` is scheduled.
///
/// # Errors
/// sched_setattr(2)'s; EPERM without CAP_SYS_NICE, EBUSY for a deadline that cannot be kept.
pub(crate) fn sched_setattr(pid: Pid, attr: SchedAttr) -> Result<(), Errno> {
    let size = u32::try_from(size_of::<SchedAttr>()).map_err(|_| Errno::E2BIG)?;
    let mut attr = SchedAttr { size, ..attr };
    // SAFETY: `attr` says its own size and outlives the call, which may write to it.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), &raw mut attr, 0) };
    Errno::result(done).map(drop)
}

/// Sets the I/O priority of `pid`: the class in the bits from 13 on, the level below.
///
/// # Errors
/// ioprio_set(2)'s; EPERM for the realtime class without CAP_SYS_ADMIN.
pub(crate) fn ioprio_set(pid: Pid, priority: u32) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the call takes plain numbers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            pid.as_raw(),
            priority,
        )
    };
    Errno::result(done).map(drop)
}

/// Sets the execution domain of this process.
///
/// # Errors
/// personality(2)'s.
pub(crate) fn personality(domain: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the call takes a plain number.
    Errno::result(unsafe { libc::personality(domain) }).map(drop)
}
