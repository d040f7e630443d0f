//! Runs programs as on an older kernel: a seccomp filter answers for the calls that it lacks.
//!
//! The filter is one thread's, and of every program that this thread starts.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// What a program reads from a call that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// ENOSYS: an old kernel, or a filter that speaks like one.
    NoSuchCall,
    /// EPERM: a filter that forbids what it does not know.
    Forbidden,
}

/// Linux 5.2: file systems and mounts as descriptors.
pub const MOUNT_API: &[i64] = &[
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
];

/// Linux 5.3.
pub const CLONE3: &[i64] = &[libc::SYS_clone3];

/// Linux 5.6.
pub const OPENAT2: &[i64] = &[libc::SYS_openat2];

/// Linux 5.8.
pub const FACCESSAT2: &[i64] = &[libc::SYS_faccessat2];

/// Linux 5.9.
pub const CLOSE_RANGE: &[i64] = &[libc::SYS_close_range];

/// Linux 5.12.
pub const MOUNT_SETATTR: &[i64] = &[libc::SYS_mount_setattr];

/// What Linux 5.4 has not.
#[must_use]
pub fn since_5_4() -> Vec<i64> {
    [OPENAT2, FACCESSAT2, CLOSE_RANGE, MOUNT_SETATTR].concat()
}

/// All of the above: what the oldest seccomp filters of engines do not know.
#[must_use]
pub fn newer_calls() -> Vec<i64> {
    [since_5_4(), MOUNT_API.into(), CLONE3.into()].concat()
}

/// Runs `work` in a thread, from which (and from whose programs) these calls get `answer`.
///
/// # Panics
/// With `work`; when the filter cannot be made.
pub fn without<T: Send>(calls: &[i64], answer: Answer, work: impl FnOnce() -> T + Send) -> T {
    let errno = match answer {
        Answer::NoSuchCall => libc::ENOSYS,
        Answer::Forbidden => libc::EPERM,
    };
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    under(&[filter(rules, errno)], work)
}

/// Runs `work` as on Linux 5.4, whose setns(2) joins one namespace at a time.
///
/// # Panics
/// As [`without`].
pub fn as_on_5_4<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let calls = since_5_4().iter().map(|call| (*call, Vec::new())).collect();
    let known = [
        0,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWNS,
    ];
    let other = known.map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, flag)
            .expect("a condition")
    });
    let several = SeccompRule::new(other.into()).expect("a rule");
    let setns = BTreeMap::from([(libc::SYS_setns, vec![several])]);
    let filters = [filter(calls, libc::ENOSYS), filter(setns, libc::EINVAL)];
    under(&filters, work)
}

fn under<T: Send>(filters: &[BpfProgram], work: impl FnOnce() -> T + Send) -> T {
    let run = || {
        for filter in filters {
            apply_filter(filter).expect("load a seccomp filter");
        }
        work()
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> BpfProgram {
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
    filter.expect("a filter").try_into().expect("a program")
}
