//! What a command costs: the processor time of all processes that it started,
//! and the time on the clock.
//!
//! The measuring process is a subreaper. Processes that ended and were waited
//! for are in `getrusage(RUSAGE_CHILDREN)`; one that lives on, a container's
//! init, is asked by its schedstat file.

use std::fs;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// The cost of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// User and system time of the whole tree.
    pub cpu: Duration,
    /// Time on the clock until the command itself ended.
    pub wall: Duration,
}

/// Runs a command to its end and tells what it cost; `init` is the process that
/// outlives it, when there is one already.
///
/// # Panics
/// When the command cannot be started.
pub fn cost_of(command: &mut Command, init: Option<i32>) -> (Cost, ExitStatus) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let before = cpu_time(init);
    let start = Instant::now();
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let wall = start.elapsed();
    reap();
    let cpu = cpu_time(init).saturating_sub(before);
    (Cost { cpu, wall }, status)
}

/// The processor time of all children that were waited for, and of one that
/// still lives.
///
/// # Panics
/// When the kernel does not tell.
#[must_use]
pub fn cpu_time(living: Option<i32>) -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    let living = living.map_or(Duration::ZERO, scheduled_time);
    duration(usage.user_time()) + duration(usage.system_time()) + living
}

/// The largest resident set, in KiB, of any child that was waited for. It is at
/// least the size of the measuring process, of which each child begins as a
/// copy.
///
/// # Panics
/// When the kernel does not tell.
#[must_use]
pub fn peak_kib() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN)
        .expect("getrusage")
        .max_rss()
}

/// Waits for all children that have ended.
pub fn reap() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("waitpid: {error}"),
        }
    }
}

/// The middle one of values; the upper one of two.
#[must_use]
pub fn median(mut values: Vec<Duration>) -> Option<Duration> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// How long a process has been on a processor; zero when it is gone.
fn scheduled_time(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let first = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

fn duration(time: TimeVal) -> Duration {
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let ms = Duration::from_millis;
        for (values, expected) in [
            (vec![], None),
            (vec![ms(3)], Some(ms(3))),
            (vec![ms(9), ms(1), ms(5)], Some(ms(5))),
            (vec![ms(4), ms(1), ms(3), ms(2)], Some(ms(3))),
        ] {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn a_busy_command_costs_processor_time() {
        let busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let (cost, status) = cost_of(Command::new("/bin/sh").args(["-c", busy]), None);
        assert!(status.success());
        assert!(cost.cpu > Duration::from_millis(1), "{cost:?}");
        assert!(cost.wall > Duration::from_millis(1), "{cost:?}");
    }
}
