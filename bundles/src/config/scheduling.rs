//! `process.scheduler` and `process.ioPriority`: which fields go with which policy.
//!
//! Spec: config.md#linux-process; sched_setattr(2), ioprio_set(2)

use oci_spec::runtime::{LinuxIOPriority, LinuxSchedulerPolicy, Scheduler};

use crate::validate::FieldError;

/// sched(7): the shortest runtime of SCHED_DEADLINE that the kernel takes, in nanoseconds.
const MIN_RUNTIME: u64 = 1024;

/// Checks that the fields fit the policy.
///
/// # Errors
/// The field that is out of range, or that the policy would pass over or miss.
pub(crate) fn check_scheduler(scheduler: &Scheduler) -> Result<(), FieldError> {
    use LinuxSchedulerPolicy::{
        SchedBatch, SchedDeadline, SchedFifo, SchedIso, SchedOther, SchedRr,
    };
    let policy = *scheduler.policy();
    let wrong = |field: &str, problem: String| {
        Err(FieldError::new(
            format!("process.scheduler.{field}"),
            problem,
        ))
    };
    if policy == SchedIso {
        return wrong("policy", format!("{policy} is none that Linux implements"));
    }
    let nice = scheduler.nice().unwrap_or_default();
    match policy {
        SchedOther | SchedBatch if !(-20..=19).contains(&nice) => {
            return wrong("nice", format!("{nice} is outside -20 to 19"));
        }
        SchedOther | SchedBatch => {}
        _ if nice != 0 => return wrong("nice", format!("is given, and {policy} has none")),
        _ => {}
    }
    let priority = scheduler.priority().unwrap_or_default();
    match policy {
        SchedFifo | SchedRr if !(1..=99).contains(&priority) => {
            let problem = format!("{priority} is outside 1 to 99, which {policy} needs");
            return wrong("priority", problem);
        }
        SchedFifo | SchedRr => {}
        _ if priority != 0 => {
            return wrong("priority", format!("is given, and {policy} has none"));
        }
        _ => {}
    }
    let times = [
        ("runtime", *scheduler.runtime()),
        ("deadline", *scheduler.deadline()),
        ("period", *scheduler.period()),
    ];
    let given = |(name, value): &(&'static str, Option<u64>)| {
        (value.unwrap_or_default() != 0).then_some(*name)
    };
    match (policy, times.iter().find_map(given)) {
        (SchedDeadline, _) => check_times(times.map(|(_, value)| value.unwrap_or_default())),
        (_, Some(name)) => wrong(name, format!("is given, and {policy} has none")),
        (_, None) => Ok(()),
    }
}

/// `runtime <= deadline <= period`; a period of 0 is the deadline.
fn check_times([runtime, deadline, period]: [u64; 3]) -> Result<(), FieldError> {
    let (field, problem) = if runtime < MIN_RUNTIME {
        let problem = format!("{runtime} ns is less than {MIN_RUNTIME} ns");
        ("runtime", problem)
    } else if deadline < runtime {
        let problem = format!("{deadline} ns is less than the runtime of {runtime} ns");
        ("deadline", problem)
    } else if period != 0 && period < deadline {
        let problem = format!("{period} ns is less than the deadline of {deadline} ns");
        ("period", problem)
    } else if period.max(deadline) >> 63 != 0 {
        ("period", "is over 2^63 ns".to_owned())
    } else {
        return Ok(());
    };
    let field = format!("process.scheduler.{field}");
    Err(FieldError::new(field, problem))
}

/// Checks the level.
///
/// # Errors
/// A level that no class has.
pub(crate) fn check_io_priority(priority: &LinuxIOPriority) -> Result<(), FieldError> {
    let level = priority.priority();
    if (0..=7).contains(&level) {
        return Ok(());
    }
    let problem = format!("{level} is outside 0 to 7");
    Err(FieldError::new("process.ioPriority.priority", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        let scheduler: Scheduler = serde_json::from_str(text).expect(text);
        check_scheduler(&scheduler).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn fields_that_fit_their_policy() {
        for text in [
            r#"{"policy":"SCHED_OTHER","nice":-20}"#,
            r#"{"policy":"SCHED_BATCH","nice":19,"priority":0}"#,
            r#"{"policy":"SCHED_IDLE","nice":0}"#,
            r#"{"policy":"SCHED_FIFO","priority":99}"#,
            r#"{"policy":"SCHED_RR","priority":1}"#,
            r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":2000,"period":2000}"#,
            r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":1024}"#,
        ] {
            assert_eq!(check(text), "", "{text}");
        }
    }

    #[test]
    fn fields_that_do_not_are_named() {
        let cases = [
            (r#"{"policy":"SCHED_ISO"}"#, "policy: "),
            (
                r#"{"policy":"SCHED_OTHER","nice":20}"#,
                "nice: 20 is outside",
            ),
            (r#"{"policy":"SCHED_BATCH","nice":-21}"#, "nice: "),
            (
                r#"{"policy":"SCHED_FIFO","nice":1,"priority":1}"#,
                "nice: is given",
            ),
            (r#"{"policy":"SCHED_IDLE","nice":1}"#, "nice: is given"),
            (r#"{"policy":"SCHED_FIFO"}"#, "priority: 0 is outside"),
            (r#"{"policy":"SCHED_RR","priority":100}"#, "priority: 100"),
            (
                r#"{"policy":"SCHED_OTHER","priority":1}"#,
                "priority: is given",
            ),
            (r#"{"policy":"SCHED_IDLE","period":1}"#, "period: is given"),
            (
                r#"{"policy":"SCHED_RR","priority":1,"runtime":1}"#,
                "runtime: is given",
            ),
            (
                r#"{"policy":"SCHED_DEADLINE","deadline":5000}"#,
                "runtime: 0 ns is less",
            ),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":5000}"#,
                "deadline: 0 ns is less than the runtime",
            ),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":5000,"deadline":6000,"period":5500}"#,
                "period: 5500 ns is less than the deadline",
            ),
        ];
        for (text, expected) in cases {
            let expected = format!("process.scheduler.{expected}");
            assert!(
                check(text).starts_with(&expected),
                "{text}: {}",
                check(text)
            );
        }
    }

    #[test]
    fn levels() {
        let of = |level: i64| {
            let text = format!(r#"{{"class":"IOPRIO_CLASS_BE","priority":{level}}}"#);
            let priority: LinuxIOPriority = serde_json::from_str(&text).expect("JSON");
            check_io_priority(&priority).is_ok()
        };
        assert!(of(0) && of(7) && !of(8) && !of(-1));
    }
}
