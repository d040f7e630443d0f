//! From `create` to `delete`: runtime.md#lifecycle, runtime.md#operations, and
//! what callers of runc rely on.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs, run_command, wait_until};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

#[test]
fn create_prepares_a_process_and_start_runs_it() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("touch /ran; sleep 1000");
    let container = bundle.created();
    assert_eq!(container.status(), "created");
    assert!(container.pid() > 0);
    assert!(
        !bundle.rootfs().join("ran").exists(),
        "create must not run the process"
    );
    container.start().success();
    let ran = || bundle.rootfs().join("ran").exists();
    assert!(
        wait_until(Duration::from_secs(10), ran),
        "start should run the process"
    );
    assert_eq!(container.status(), "running");
    container.kill("KILL").success();
    container.wait_for("stopped");
    container.delete(&[]).success();
    bundle.assert_nothing_left();
}

/// runtime.md#state
#[test]
fn state_has_the_fields_of_the_specification() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its rootfs is not an absolute path");
    let bundle =
        TestBundle::sleeper().edit(|config| config["annotations"] = json!({"a.b/c": "value"}));
    let container = bundle.created();
    let state = container.state();
    assert!(
        state["ociVersion"]
            .as_str()
            .expect("ociVersion")
            .starts_with("1."),
        "{state}"
    );
    assert_eq!(state["id"], bundle.id());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(bundle.path()));
    assert_eq!(state["rootfs"], json!(bundle.rootfs()));
    assert_eq!(state["annotations"]["a.b/c"], "value");
    let created = state["created"].as_str().expect("created");
    assert!(
        created.len() >= 20 && created.as_bytes()[10] == b'T',
        "RFC 3339: {created}"
    );
    assert!(state.get("owner").is_some(), "{state}");
    let comm = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).expect("cgroup file");
    assert!(
        comm.contains(bundle.cgroups_path()),
        "the pid is the container's: {comm}"
    );
}

#[test]
fn pid_is_0_when_the_container_is_stopped() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let container = bundle.running();
    container.wait_for("stopped");
    assert_eq!(container.state()["pid"], 0);
    container.delete(&[]).success();
}

/// runtime.md#start: only a created container can be started.
#[test]
fn start_of_a_running_container_is_an_error() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    container.start().one_line_failure();
    assert_eq!(container.status(), "running");
}

#[test]
fn start_of_a_stopped_container_is_an_error() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let container = bundle.running();
    container.wait_for("stopped");
    container.start().one_line_failure();
    assert_eq!(container.status(), "stopped");
}

/// runtime.md#create: the id must be unique.
#[test]
fn a_duplicate_id_is_an_error_and_leaves_the_first_container_alone() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let pid = container.pid();
    container.create(&[]).one_line_failure();
    container.run(&[]).one_line_failure();
    assert_eq!(container.pid(), pid);
    container.start().success();
    assert_eq!(container.status(), "running");
}

#[test]
fn of_many_creates_of_one_id_exactly_one_succeeds() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they do not lock the id");
    let bundle = TestBundle::sleeper();
    let container = bundle.container();
    let mut command = bundle.making("create", &[]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let children: Vec<_> = (0..6).map(|_| command.spawn().expect("spawn")).collect();
    let succeeded = children
        .into_iter()
        .filter_map(|mut child| child.wait().expect("wait").success().then_some(()))
        .count();
    assert_eq!(succeeded, 1);
    assert_eq!(container.status(), "created");
    container.start().success();
}

#[test]
fn an_id_that_could_be_a_path_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes nearly any id");
    let bundle = TestBundle::sleeper();
    let long = "x".repeat(2000);
    for id in [
        "a/b",
        "/a",
        "../a",
        "..",
        ".",
        "",
        "a b",
        "a\n",
        "é",
        "a:b",
        long.as_str(),
    ] {
        let container = bundle.container_named(id);
        container.create(&[]).one_line_failure();
        std::mem::forget(container);
        assert!(
            fs::read_dir(bundle.state_root()).map_or(0, Iterator::count) == 0,
            "{id:?}"
        );
    }
}

#[test]
fn an_id_of_letters_digits_and_signs_is_taken() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.container_named(&format!("{}_A-z.0+9", bundle.id()));
    container.create(&[]).success();
    assert_eq!(container.status(), "created");
}

#[test]
fn delete_of_a_running_container_is_an_error() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    container.delete(&[]).one_line_failure();
    assert_eq!(container.status(), "running");
}

#[test]
fn delete_with_force_ends_and_removes_a_running_container() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let pid = container.pid();
    container.delete(&["--force"]).success();
    bundle.assert_nothing_left();
    assert!(
        wait_until(Duration::from_secs(5), || !alive(pid)),
        "the process should be gone"
    );
}

#[test]
fn delete_of_a_created_container_kills_it() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it wants --force");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let pid = container.pid();
    container.delete(&[]).success();
    bundle.assert_nothing_left();
    assert!(
        wait_until(Duration::from_secs(5), || !alive(pid)),
        "the process should be gone"
    );
}

#[test]
fn operations_on_a_missing_container_say_that_it_does_not_exist() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has words of its own");
    let bundle = TestBundle::new();
    let container = bundle.container();
    for output in [
        container.start(),
        container.state_output(),
        container.kill("TERM"),
        container.delete(&[]),
    ] {
        let line = output.one_line_failure();
        assert!(line.contains("does not exist"), "{output}");
    }
}

#[test]
fn delete_with_force_of_a_missing_container_succeeds() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    bundle.container().delete(&["--force"]).success();
    bundle.container().delete(&["-f"]).success();
    bundle.assert_nothing_left();
}

#[test]
fn delete_without_a_pid_namespace_leaves_no_process() {
    needs!(is_root(), "needs root");
    let bundle =
        TestBundle::shell("sleep 1000 & sleep 1000 & touch /ready; wait").namespace("pid", None);
    let container = bundle.running();
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(
        wait_until(Duration::from_secs(10), ready),
        "the process should run"
    );
    container.delete(&["--force"]).success();
    bundle.assert_nothing_left();
}

#[test]
fn a_container_killed_from_outside_is_stopped_and_can_be_deleted() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    kill(Pid::from_raw(container.pid()), Signal::SIGKILL).expect("kill");
    container.wait_for("stopped");
    container.delete(&[]).success();
    bundle.assert_nothing_left();
}

/// A shim that is a subreaper and has not waited yet sees a zombie.
#[test]
fn a_container_whose_process_is_a_zombie_is_stopped() {
    needs!(is_root(), "needs root");
    set_child_subreaper(true).expect("become a subreaper");
    let bundle = TestBundle::shell("exit 5");
    let container = bundle.created();
    let pid = container.pid();
    container.start().success();
    container.wait_for("stopped");
    container.delete(&[]).success();
    bundle.assert_nothing_left();
    assert_eq!(
        container.wait_exit(pid),
        5,
        "the caller's subreaper should become the parent"
    );
}

#[test]
fn an_id_can_be_used_again_after_delete() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("echo again");
    for _ in 0..3 {
        assert_eq!(bundle.run_ok(), "again\n");
        bundle.created().delete(&["--force"]).success();
    }
    bundle.assert_nothing_left();
}

#[test]
fn the_config_is_read_once_at_create() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its start reads config.json again");
    let bundle = TestBundle::shell("echo as created");
    let created = bundle.container();
    let output = created.create(&[]);
    output.success();
    let changed = bundle.path().join("config.json");
    fs::write(&changed, "no longer JSON").expect("write");
    // Not through the bundle, which would write the file anew.
    run_command(
        Command::new(&conformance::runtime().program)
            .arg("--root")
            .arg(bundle.state_root())
            .args(["start", bundle.id()]),
    )
    .success();
    let told = || output.stdout_now() == "as created\n";
    assert!(
        wait_until(Duration::from_secs(10), told),
        "{}",
        output.stdout_now()
    );
}

/// Whether the process runs: a zombie has ended, though nobody has asked how.
pub(super) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}
