//! kill -9 of the runtime before its Nth system call, for many N: strace(1) delivers the signal,
//! so that no instant depends on the machine's speed. What is left, `delete --force` clears away.
//!
//! `GOCKER_CRASH_POINTS=N` tries about N instants of each command instead of a few.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs, run_command, wait_until};

use super::crash::processes_of;

/// How many instants of each command are tried.
fn points() -> usize {
    let asked = std::env::var("GOCKER_CRASH_POINTS").ok();
    asked.map_or(12, |count| count.parse().expect("a number"))
}

fn has_strace() -> bool {
    Path::new("/usr/bin/strace").exists()
}

/// `command` under strace, with these options.
fn traced(command: &Command, options: &[&str]) -> Command {
    let mut strace = Command::new("/usr/bin/strace");
    strace
        .args(options)
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    strace
}

/// How many system calls the command makes.
fn count(bundle: &TestBundle, command: &Command) -> usize {
    let trace = bundle.scratch().join("trace");
    let path = trace.to_str().expect("a path");
    run_command(&mut traced(command, &["-o", path])).success();
    let lines = fs::read_to_string(&trace).expect("read").lines().count();
    fs::remove_file(&trace).expect("remove");
    lines
}

/// Kills the command before each of many of its system calls.
fn kill_at_many_calls(bundle: &TestBundle, prepare: &dyn Fn(), command: &dyn Fn() -> Command) {
    kill_at_calls(bundle, points(), prepare, command);
}

fn kill_at_calls(
    bundle: &TestBundle,
    points: usize,
    prepare: &dyn Fn(),
    command: &dyn Fn() -> Command,
) {
    let clear = || {
        bundle.container().delete(&["--force"]).success();
    };
    prepare();
    let calls = count(bundle, &command());
    clear();
    let step = (calls / points).max(1);
    // The first call is strace's own, of the program.
    for call in (2..=calls + 1).step_by(step) {
        prepare();
        let inject = format!("inject=all:signal=KILL:when={call}");
        let mut killed = traced(&command(), &["-o", "/dev/null", "-e", &inject]);
        // It may have ended before: what it did is cleared away all the same.
        drop(run_command(&mut killed));
        clear();
        let gone = || bundle.leftovers().is_empty() && processes_of(bundle).is_empty();
        assert!(
            wait_until(Duration::from_secs(5), gone),
            "killed before call {call} of {calls}: left: {:?}, processes: {:?}",
            bundle.leftovers(),
            processes_of(bundle)
        );
    }
    bundle.container().create(&[]).success();
    clear();
}

fn with_bundle(bundle: &TestBundle, subcommand: &str, options: &[&str]) -> Command {
    let mut command = bundle.runtime();
    command
        .arg(subcommand)
        .arg("--bundle")
        .arg(bundle.path())
        .args(options)
        .arg(bundle.id());
    command
}

fn of_it(bundle: &TestBundle, subcommand: &str, options: &[&str]) -> Command {
    let mut command = bundle.runtime();
    command.arg(subcommand).args(options).arg(bundle.id());
    command
}

/// Ends the test unless gocker-runc can be judged here.
macro_rules! needs_strace {
    () => {
        needs!(is_root(), "needs root");
        needs!(has_strace(), "needs strace");
        peer_differs!(
            Runc | Crun,
            "threads, and what they leave before the state is written"
        );
    };
}

#[test]
fn create_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let create = || with_bundle(&bundle, "create", &[]);
    kill_at_many_calls(&bundle, &|| {}, &create);
}

#[test]
fn create_in_a_user_namespace_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper().user_namespace();
    let create = || with_bundle(&bundle, "create", &[]);
    kill_at_many_calls(&bundle, &|| {}, &create);
}

#[test]
fn create_without_a_pid_namespace_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper().namespace("pid", None);
    let create = || with_bundle(&bundle, "create", &[]);
    kill_at_many_calls(&bundle, &|| {}, &create);
}

#[test]
fn a_detached_run_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let run = || with_bundle(&bundle, "run", &["--detach"]);
    kill_at_many_calls(&bundle, &|| {}, &run);
}

#[test]
fn a_foreground_run_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::shell("exit 0");
    let run = || with_bundle(&bundle, "run", &[]);
    kill_at_many_calls(&bundle, &|| {}, &run);
}

#[test]
fn start_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let prepare = || {
        bundle
            .call(&[
                "create",
                "--bundle",
                bundle.path().to_str().expect("a path"),
                bundle.id(),
            ])
            .success();
    };
    kill_at_many_calls(&bundle, &prepare, &|| of_it(&bundle, "start", &[]));
}

/// Running or created: what `state` says is what is so.
#[test]
fn start_killed_before_any_call_leaves_a_true_status() {
    needs_strace!();
    let bundle = TestBundle::shell(": > /ran; exec sleep 1000");
    let ran = bundle.rootfs().join("ran");
    let calls = {
        let _container = bundle.created();
        count(&bundle, &of_it(&bundle, "start", &[]))
    };
    let step = (calls / points()).max(1);
    for call in (2..=calls).rev().step_by(step) {
        fs::remove_file(&ran).ok();
        let container = bundle.created();
        let inject = format!("inject=all:signal=KILL:when={call}");
        let start = of_it(&bundle, "start", &[]);
        drop(run_command(&mut traced(
            &start,
            &["-o", "/dev/null", "-e", &inject],
        )));
        // Init may be on its way to the program.
        let settled = || match container.status().as_str() {
            "created" => !ran.exists(),
            _ => ran.exists(),
        };
        assert!(
            wait_until(Duration::from_secs(5), settled),
            "call {call} of {calls}"
        );
        if container.status() == "created" {
            container.start().success();
        } else {
            let output = container.start();
            assert!(
                output.failure().contains("already running"),
                "{call}: {output}"
            );
        }
    }
}

#[test]
fn exec_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let prepare = || {
        bundle
            .call(&[
                "run",
                "--detach",
                "--bundle",
                bundle.path().to_str().expect("a path"),
                bundle.id(),
            ])
            .success();
    };
    let exec = || {
        let mut command = of_it(&bundle, "exec", &["--detach"]);
        command.args(["sleep", "1000"]);
        command
    };
    // The container's end waits for whoever reaps the orphan, which may take seconds.
    kill_at_calls(&bundle, points().div_ceil(3), &prepare, &exec);
}

#[test]
fn delete_killed_before_any_call_can_be_done_again() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let prepare = || {
        bundle
            .call(&[
                "run",
                "--detach",
                "--bundle",
                bundle.path().to_str().expect("a path"),
                bundle.id(),
            ])
            .success();
    };
    kill_at_many_calls(&bundle, &prepare, &|| {
        of_it(&bundle, "delete", &["--force"])
    });
}
