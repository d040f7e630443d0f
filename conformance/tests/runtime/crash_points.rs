//! kill -9 of the runtime before many of its system calls, one at a time: strace(1) delivers the signal,
//! so that no instant depends on the machine's speed. What is left, `delete --force` clears away.
//!
//! `GOCKER_CRASH_POINTS=N` tries about N instants of each command instead of a few.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::crash_points::{Call, STRACE, calls_in, has_strace, points};
use conformance::host::is_root;
use conformance::ordinary_user::run_as_user;
use conformance::{TestBundle, needs, peer_differs, run_command, wait_until};
use nix::sys::signal::Signal;

use super::crash::processes_of;

/// How many instants of each command are tried.
const POINTS: usize = 12;

/// `command` under strace, with these options.
fn traced(command: &Command, options: &[&str]) -> Command {
    let mut strace = Command::new(STRACE);
    strace
        .args(options)
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    let mut envs = command.get_envs();
    // Only an ordinary user's command has one of its own.
    if let Some((_, Some(home))) = envs.find(|(name, _)| *name == "HOME") {
        run_as_user(&mut strace, Path::new(home));
    }
    strace
}

/// A file that whoever runs strace(1) can write to.
fn trace_file(bundle: &TestBundle) -> PathBuf {
    let file = bundle.scratch().join("trace");
    fs::write(&file, "").expect("write");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("chmod");
    file
}

/// The system calls that the command makes, but for the first one, of the program itself.
fn calls_of(bundle: &TestBundle, command: &Command) -> Vec<Call> {
    let trace = trace_file(bundle);
    let path = trace.to_str().expect("a path");
    run_command(&mut traced(command, &["-o", path])).success();
    let text = fs::read_to_string(&trace).expect("read");
    fs::remove_file(&trace).expect("remove");
    let calls = calls_in(&text).into_iter().skip(1);
    calls.map(|(call, _)| call).collect()
}

/// Kills the command before each of many of its system calls.
fn kill_at_many_calls(bundle: &TestBundle, prepare: &dyn Fn(), command: &dyn Fn() -> Command) {
    kill_at_calls(bundle, points(POINTS), prepare, command);
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
    let calls = calls_of(bundle, &command());
    clear();
    let step = (calls.len() / points).max(1);
    kill_before_each(bundle, calls.iter().step_by(step), prepare, command);
    bundle.container().create(&[]).success();
    clear();
}

/// Kills the command before each of these of its system calls.
fn kill_before_each<'c>(
    bundle: &TestBundle,
    calls: impl Iterator<Item = &'c Call>,
    prepare: &dyn Fn(),
    command: &dyn Fn() -> Command,
) {
    let (mut tried, mut killed) = (0, 0);
    for call in calls {
        prepare();
        let inject = call.kill_before();
        let mut command = traced(&command(), &["-o", "/dev/null", "-e", &inject]);
        tried += 1;
        // It may have fewer calls of the name this time: what it did is cleared away all the same.
        killed += usize::from(run_command(&mut command).code() == 128 + Signal::SIGKILL as i32);
        bundle.container().delete(&["--force"]).success();
        let gone = || bundle.leftovers().is_empty() && processes_of(bundle).is_empty();
        assert!(
            wait_until(Duration::from_secs(5), gone),
            "killed before {call:?}: left: {:?}, processes: {:?}",
            bundle.leftovers(),
            processes_of(bundle)
        );
    }
    assert!(2 * killed > tried, "killed {killed} times of {tried}");
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
    let create = || bundle.making("create", &[]);
    kill_at_many_calls(&bundle, &|| {}, &create);
}

#[test]
fn create_in_a_user_namespace_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper().user_namespace();
    let create = || bundle.making("create", &[]);
    kill_at_many_calls(&bundle, &|| {}, &create);
}

#[test]
fn create_without_a_pid_namespace_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper().namespace("pid", None);
    let create = || bundle.making("create", &[]);
    kill_at_many_calls(&bundle, &|| {}, &create);
}

#[test]
fn a_detached_run_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let run = || bundle.making("run", &["--detach"]);
    kill_at_many_calls(&bundle, &|| {}, &run);
}

#[test]
fn a_foreground_run_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::shell("exit 0");
    let run = || bundle.making("run", &[]);
    kill_at_many_calls(&bundle, &|| {}, &run);
}

#[test]
fn start_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let prepare = || {
        run_command(&mut bundle.making("create", &[])).success();
    };
    kill_at_many_calls(&bundle, &prepare, &|| bundle.command("start", &[]));
}

/// Running or created: what `state` says is what is so.
#[test]
fn start_killed_before_any_call_leaves_a_true_status() {
    needs_strace!();
    let bundle = TestBundle::shell(": > /ran; exec sleep 1000");
    let ran = bundle.rootfs().join("ran");
    let calls = {
        let _container = bundle.created();
        calls_of(&bundle, &bundle.command("start", &[]))
    };
    let step = (calls.len() / points(POINTS)).max(1);
    for call in calls.iter().rev().step_by(step) {
        fs::remove_file(&ran).ok();
        let container = bundle.created();
        let inject = call.kill_before();
        let start = bundle.command("start", &[]);
        drop(run_command(&mut traced(
            &start,
            &["-o", "/dev/null", "-e", &inject],
        )));
        // Init may be on its way to the program.
        let settled = || match container.status().as_str() {
            "created" => !ran.exists(),
            _ => ran.exists(),
        };
        assert!(wait_until(Duration::from_secs(5), settled), "{call:?}");
        if container.status() == "created" {
            container.start().success();
        } else {
            let output = container.start();
            assert!(
                output.failure().contains("already running"),
                "{call:?}: {output}"
            );
        }
    }
}

#[test]
fn exec_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let prepare = || {
        run_command(&mut bundle.making("run", &["--detach"])).success();
    };
    let exec = || {
        let mut command = bundle.command("exec", &["--detach"]);
        command.args(["sleep", "1000"]);
        command
    };
    // The container's end waits for whoever reaps the orphan, which may take seconds.
    kill_at_calls(&bundle, points(POINTS).div_ceil(3), &prepare, &exec);
}

#[test]
fn delete_killed_before_any_call_can_be_done_again() {
    needs_strace!();
    let bundle = TestBundle::sleeper();
    let prepare = || {
        run_command(&mut bundle.making("run", &["--detach"])).success();
    };
    kill_at_many_calls(&bundle, &prepare, &|| {
        bundle.command("delete", &["--force"])
    });
}

/// An ordinary user's container has no cgroup by which its process could be found.
#[test]
fn create_by_an_ordinary_user_killed_before_any_call_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper().of_ordinary_user();
    let create = || bundle.making("create", &[]);
    kill_at_calls(&bundle, 2 * points(POINTS), &|| {}, &create);
}

/// Between the word that init is prepared and the record of its process, which are neighbours.
#[test]
fn an_ordinary_users_create_killed_before_its_init_is_on_record_is_cleared_away() {
    needs_strace!();
    let bundle = TestBundle::sleeper().of_ordinary_user();
    let create = || bundle.making("create", &[]);
    let calls = calls_of(&bundle, &create());
    bundle.container().delete(&["--force"]).success();
    let last = |name: &str| calls.iter().rposition(|call| call.name == name);
    let prepared = last("recvmsg").expect("init says that it is prepared");
    let recorded = last("rename").expect("the record is written");
    assert!(prepared < recorded, "{prepared}, {recorded}");
    let calls = calls[prepared..=recorded + 1].iter();
    kill_before_each(&bundle, calls, &|| {}, &create);
}
