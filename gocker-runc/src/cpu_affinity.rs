//! `process.execCPUAffinity`: the CPUs of a process that `exec` adds, before it enters the
//! container's cgroups and after.
//!
//! Spec: config.md#linux-process, `execCPUAffinity`; sched_setaffinity(2)

use bundles::FieldError;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use oci_spec::runtime::ExecCPUAffinity;

use crate::sys::{CallError, Called};

/// Both lists; None leaves the CPUs as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuAffinity {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
}

/// CPUs that the kernel does not give.
#[derive(Debug, thiserror::Error)]
#[error("process.execCPUAffinity.{field}")]
pub(crate) struct Error {
    field: &'static str,
    source: CallError,
}

impl CpuAffinity {
    /// Reads the lists.
    ///
    /// # Errors
    /// The list that is none.
    pub(crate) fn new(spec: Option<&ExecCPUAffinity>) -> Result<Self, FieldError> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        let set = |field: &str, list: &Option<String>| match list.as_deref() {
            None | Some("") => Ok(None),
            Some(list) => parse(list).map(Some).ok_or_else(|| {
                let problem = format!(
                    "{list:?} is no list of CPUs from 0 to {}, as 0-3,7 is one",
                    CpuSet::count() - 1
                );
                FieldError::new(format!("process.execCPUAffinity.{field}"), problem)
            }),
        };
        Ok(Self {
            initial: set("initial", spec.initial())?,
            last: set("final", spec.cpu_affinity_final())?,
        })
    }

    /// Sets the CPUs that the process begins on.
    ///
    /// Runs in: the runtime process, whose CPUs the next clone inherits.
    ///
    /// # Errors
    /// EINVAL where none of them may be used here.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        set("initial", self.initial.as_ref())
    }

    /// Sets the CPUs that the process stays on. Where nothing is asked for, those are all of
    /// its cgroup, whatever the runtime's own are.
    ///
    /// Runs in: the container's cgroups.
    ///
    /// # Errors
    /// EINVAL where none of them are the cgroup's.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        if *self == Self::default() {
            let source = |source| Error {
                field: "final",
                source,
            };
            return reset().map_err(source);
        }
        set("final", self.last.as_ref())
    }
}

/// Gives the calling process all CPUs of its cgroup. Since Linux 6.2 it would otherwise keep to
/// those of who started the runtime, such as a service with `CPUAffinity=`.
///
/// # Errors
/// sched_setaffinity(2)'s.
pub(crate) fn reset() -> Result<(), CallError> {
    let mut all = CpuSet::new();
    (0..CpuSet::count())
        .try_for_each(|cpu| all.set(cpu))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &all))
        .called(|| "sched_setaffinity(all)".into())
}

fn set(field: &'static str, cpus: Option<&CpuSet>) -> Result<(), Error> {
    let Some(cpus) = cpus else {
        return Ok(());
    };
    let done = sched_setaffinity(Pid::from_raw(0), cpus);
    done.called(|| "sched_setaffinity()".into())
        .map_err(|source| Error { field, source })
}

/// Numbers and ranges, with commas between.
fn parse(list: &str) -> Option<CpuSet> {
    let mut cpus = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<usize>().ok().filter(|_| is_digits)
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= CpuSet::count() {
            return None;
        }
        (first..=last).try_for_each(|cpu| cpus.set(cpu)).ok()?;
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let cases: &[(&str, &[usize])] = &[
            ("0", &[0]),
            ("0-3,7", &[0, 1, 2, 3, 7]),
            ("5,2-2", &[2, 5]),
            ("1023", &[1023]),
        ];
        for (list, expected) in cases {
            let cpus = parse(list).expect(list);
            let found: Vec<usize> = (0..CpuSet::count())
                .filter(|cpu| cpus.is_set(*cpu) == Ok(true))
                .collect();
            assert_eq!(found, *expected, "{list}");
        }
        for bad in [
            "", "x", "1-", "-1", "3-1", "1,,2", "+1", "1024", "0-99999", " 1",
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
