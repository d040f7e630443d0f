//! `process.scheduler`, `process.ioPriority` and `linux.personality`.
//!
//! Spec: config.md#linux-process, config-linux.md#personality

use bundles::config::process::Process;
use nix::unistd::Pid;
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, Scheduler,
};

use crate::sys::scheduling::{SchedAttr, ioprio_set, personality, sched_setattr};
use crate::sys::{CallError, Called};

/// What the kernel does not grant.
#[derive(Debug, thiserror::Error)]
#[error("{field}")]
pub(crate) struct Error {
    field: &'static str,
    source: CallError,
}

/// Whether anything is to be set by [`set`].
pub(crate) fn is_given(process: &Process) -> bool {
    process.scheduler.is_some() || process.io_priority.is_some()
}

/// Sets how `pid` gets its share of processors and disks.
///
/// Runs in: runtime namespace, whose CAP_SYS_NICE and CAP_SYS_ADMIN are what counts.
///
/// # Errors
/// The field, and the kernel's answer.
pub(crate) fn set(pid: Pid, process: &Process) -> Result<(), Error> {
    if let Some(scheduler) = &process.scheduler {
        sched_setattr(pid, attributes(scheduler))
            .called(|| format!("sched_setattr({})", scheduler.policy()))
            .map_err(failed("process.scheduler"))?;
    }
    if let Some(priority) = &process.io_priority {
        ioprio_set(pid, io_priority(priority))
            .called(|| format!("ioprio_set({}, {})", priority.class(), priority.priority()))
            .map_err(failed("process.ioPriority"))?;
    }
    Ok(())
}

/// Sets the execution domain of this process, which its program inherits.
///
/// # Errors
/// personality(2)'s.
pub(crate) fn set_personality(domain: LinuxPersonalityDomain) -> Result<(), Error> {
    // linux/personality.h: PER_LINUX, PER_LINUX32.
    let number = match domain {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    personality(number)
        .called(|| format!("personality({domain})"))
        .map_err(failed("linux.personality"))
}

fn failed(field: &'static str) -> impl FnOnce(CallError) -> Error {
    move |source| Error { field, source }
}

/// `bundles` has checked the ranges.
fn attributes(scheduler: &Scheduler) -> SchedAttr {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let flags = scheduler.flags().iter().flatten().map(flag);
    SchedAttr {
        policy,
        flags: flags.fold(0, |all, flag| all | flag),
        nice: scheduler.nice().unwrap_or_default(),
        priority: u32::try_from(scheduler.priority().unwrap_or_default()).unwrap_or_default(),
        runtime: scheduler.runtime().unwrap_or_default(),
        deadline: scheduler.deadline().unwrap_or_default(),
        period: scheduler.period().unwrap_or_default(),
        ..SchedAttr::default()
    }
}

fn io_priority(priority: &LinuxIOPriority) -> u32 {
    let class: u32 = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << 13 | u32::try_from(priority.priority()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        let scheduler = r#"{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3,
            "flags":["SCHED_RESET_ON_FORK","SCHED_FLAG_RECLAIM","SCHED_FLAG_D_L_OVERRUN"]}"#;
        let scheduler: Scheduler = serde_json::from_str(scheduler).expect("JSON");
        let expected = SchedAttr {
            policy: 6,
            flags: 7,
            runtime: 1,
            deadline: 2,
            period: 3,
            ..SchedAttr::default()
        };
        assert_eq!(attributes(&scheduler), expected);
        let priority = r#"{"class":"IOPRIO_CLASS_IDLE","priority":7}"#;
        let priority = serde_json::from_str(priority).expect("JSON");
        assert_eq!(io_priority(&priority), 0x6007);
    }
}
