//! kill -9 of the runtime at any instant: what it leaves, a later
//! `delete --force` clears away, and the id can be used again.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs, run_command, wait_until};

/// How many instants are tried.
const INSTANTS: u32 = 40;

/// Spawns a command with nothing of the test's open.
fn spawn(command: &mut Command) -> Child {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.process_group(0).spawn().expect("spawn")
}

/// How long a command takes that nobody disturbs.
fn time_of(command: &mut Command) -> Duration {
    let start = Instant::now();
    assert!(spawn(command).wait().expect("wait").success());
    start.elapsed()
}

/// Processes that have anything to do with the bundle: they were started by its
/// runtime, or see its rootfs among their mounts.
pub(super) fn processes_of(bundle: &TestBundle) -> Vec<String> {
    let own = std::process::id().to_string();
    let scratch = bundle.scratch().to_str().expect("a path").to_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("read /proc").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || pid.parse::<u32>().is_err() {
            continue;
        }
        let sees = |file: &str| {
            fs::read(entry.path().join(file))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(&scratch))
        };
        if sees("mountinfo") || sees("cmdline") {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("{pid} {}", name.trim()));
        }
    }
    found
}

/// Kills the command after each of many waits up to a bit more than it takes,
/// and asks `delete --force` to clear away.
fn kill_at_many_instants(bundle: &TestBundle, prepare: &dyn Fn(), command: &dyn Fn() -> Command) {
    prepare();
    let whole = time_of(&mut command());
    bundle.container().delete(&["--force"]).success();
    for instant in 0..INSTANTS {
        prepare();
        let mut child = spawn(&mut command());
        sleep(whole * instant * 5 / (INSTANTS * 4));
        child.kill().expect("kill");
        child.wait().expect("wait");
        bundle.container().delete(&["--force"]).success();
        let gone = || bundle.leftovers().is_empty() && processes_of(bundle).is_empty();
        assert!(
            wait_until(Duration::from_secs(5), gone),
            "killed after {instant}/{INSTANTS} of {whole:?}: left: {:?}, processes: {:?}",
            bundle.leftovers(),
            processes_of(bundle)
        );
    }
    bundle.container().create(&[]).success();
    bundle.container().delete(&["--force"]).success();
}

#[test]
fn create_killed_at_any_instant_is_cleared_away_by_delete() {
    needs!(is_root(), "needs root");
    peer_differs!(
        Runc | Crun,
        "what they leave before the state is written stays"
    );
    let bundle = TestBundle::sleeper();
    kill_at_many_instants(&bundle, &|| {}, &|| bundle.making("create", &[]));
}

#[test]
fn create_in_a_user_namespace_killed_at_any_instant_is_cleared_away() {
    needs!(is_root(), "needs root");
    peer_differs!(
        Runc | Crun,
        "what they leave before the state is written stays"
    );
    let bundle = TestBundle::sleeper().user_namespace();
    kill_at_many_instants(&bundle, &|| {}, &|| bundle.making("create", &[]));
}

#[test]
fn start_killed_at_any_instant_is_cleared_away_by_delete() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let prepare = || {
        run_command(&mut bundle.making("create", &[])).success();
    };
    kill_at_many_instants(&bundle, &prepare, &|| bundle.command("start", &[]));
}

#[test]
fn delete_killed_at_any_instant_can_be_done_again() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "a state without its files cannot be deleted");
    let bundle = TestBundle::sleeper();
    let prepare = || {
        run_command(&mut bundle.making("create", &[])).success();
    };
    kill_at_many_instants(&bundle, &prepare, &|| {
        bundle.command("delete", &["--force"])
    });
}

/// A create that was killed must not keep the id for ever, even if nobody
/// deletes: the next create says so, or takes it over.
#[test]
fn after_a_killed_create_list_and_state_still_work() {
    needs!(is_root(), "needs root");
    peer_differs!(
        Runc | Crun,
        "what they leave before the state is written stays"
    );
    let bundle = TestBundle::sleeper();
    let whole = time_of(&mut bundle.making("create", &[]));
    bundle.container().delete(&["--force"]).success();
    for instant in 0..12 {
        let mut child = spawn(&mut bundle.making("create", &[]));
        sleep(whole * instant / 12);
        child.kill().expect("kill");
        child.wait().expect("wait");
        let list = bundle.call(&["list", "--format", "json"]);
        list.success();
        let container = bundle.container();
        let state = container.state_output();
        assert!(state.code() == 0 || !state.stderr.is_empty(), "{state}");
        drop(container);
        bundle.assert_nothing_left();
    }
}
