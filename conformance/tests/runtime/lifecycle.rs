//! From `create` to `delete`: runtime.md#lifecycle, runtime.md#operations, and
//! what callers of runc rely on.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, peer_differs, run_command, wait_until};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

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
    let path = bundle.path();
    let mut command = container.command("create", &["--bundle", path.to_str().expect("a path")]);
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
fn kill_of_a_stopped_container_says_container_not_running() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has words of its own");
    let bundle = TestBundle::new();
    let container = bundle.running();
    container.wait_for("stopped");
    let output = container.kill("TERM");
    assert!(
        output.one_line_failure().contains("container not running"),
        "{output}"
    );
}

/// `--all` is obsolete; what is left of it is that a stopped container is no
/// error.
#[test]
fn kill_all_of_a_stopped_container_succeeds() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let container = bundle.running();
    container.wait_for("stopped");
    run_command(container.command("kill", &["--all"]).arg("KILL")).success();
}

#[test]
fn kill_takes_a_signal_as_number_short_name_and_long_name() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it wants upper case");
    set_child_subreaper(true).expect("become a subreaper");
    for signal in [
        Some("15"),
        Some("TERM"),
        Some("SIGTERM"),
        Some("sigterm"),
        None,
    ] {
        let bundle = TestBundle::shell("trap 'exit 7' TERM; touch /ready; while :; do :; done");
        let container = bundle.running();
        let pid = container.pid();
        let ready = || bundle.rootfs().join("ready").exists();
        assert!(
            wait_until(Duration::from_secs(10), ready),
            "the process should run"
        );
        run_command(container.command("kill", &[]).args(signal)).success();
        assert_eq!(container.wait_exit(pid), 7, "{signal:?}");
    }
}

#[test]
fn kill_refuses_what_is_no_signal() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes unknown names for no signal");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for signal in ["NOSUCH", "999", "SIG", "15x"] {
        container.kill(signal).failure();
        assert_eq!(container.status(), "running", "{signal}");
    }
}

#[test]
fn kill_reaches_a_created_container() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    container.kill("KILL").success();
    container.wait_for("stopped");
    container.delete(&[]).success();
}

/// Without a PID namespace of its own, the end of the init does not take the
/// other processes with it.
#[test]
fn kill_without_a_pid_namespace_kills_every_process() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "newer ones only");
    let bundle =
        TestBundle::shell("sleep 1000 & sleep 1000 & touch /ready; wait").namespace("pid", None);
    let container = bundle.running();
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(
        wait_until(Duration::from_secs(10), ready),
        "the process should run"
    );
    container.kill("KILL").success();
    let cgroups = conformance::leftovers::cgroups(bundle.cgroups_path());
    let empty = || conformance::leftovers::processes(&cgroups).is_empty();
    assert!(
        wait_until(Duration::from_secs(10), empty),
        "all processes should end"
    );
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
fn run_gives_the_exit_code_of_the_process() {
    needs!(is_root(), "needs root");
    for code in [0, 3, 127, 255] {
        let bundle = TestBundle::shell(&format!("exit {code}"));
        let output = bundle.run();
        assert_eq!(output.code(), code, "{output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn run_gives_128_and_the_signal_that_ended_the_process() {
    needs!(is_root(), "needs root");
    for (signal, code) in [("TERM", 143), ("KILL", 137)] {
        // In a PID namespace of its own the first process ignores itself.
        let bundle =
            TestBundle::shell(&format!("kill -{signal} $$; sleep 5")).namespace("pid", None);
        let output = bundle.run();
        assert_eq!(output.code(), code, "{output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn run_passes_stdin_stdout_and_stderr_through() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat; echo to stderr >&2");
    let mut input = tempfile::tempfile().expect("a file");
    input.write_all(b"to stdin\n").expect("write");
    std::io::Seek::rewind(&mut input).expect("rewind");
    let path = bundle.path();
    let mut command = bundle.runtime();
    command
        .args(["run", "--bundle"])
        .arg(&path)
        .arg(bundle.id())
        .stdin(Stdio::from(input));
    let output = conformance::command::run_with_stdin(&mut command);
    assert_eq!(output.success(), "to stdin\n");
    assert_eq!(output.stderr, "to stderr\n");
}

#[test]
fn run_forwards_signals_to_the_process() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("trap 'exit 9' TERM; touch /ready; while :; do :; done");
    let path = bundle.path();
    let mut command = bundle.runtime();
    command
        .args(["run", "--bundle"])
        .arg(&path)
        .arg(bundle.id());
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("spawn");
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(
        wait_until(Duration::from_secs(10), ready),
        "the process should run"
    );
    kill(
        conformance::command::process_id(child.id()),
        Signal::SIGTERM,
    )
    .expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(9));
}

#[test]
fn run_with_detach_returns_while_the_process_runs() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("sleep 0.3; echo later; sleep 1000");
    let container = bundle.container();
    let output = container.run(&["--detach"]);
    output.success();
    assert_eq!(container.status(), "running");
    let later = || output.stdout_now() == "later\n";
    assert!(
        wait_until(Duration::from_secs(10), later),
        "stdout should stay open"
    );
}

#[test]
fn run_with_keep_leaves_the_stopped_container() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "Debian's has no --keep");
    let bundle = TestBundle::shell("exit 4");
    let container = bundle.container();
    assert_eq!(container.run(&["--keep"]).code(), 4);
    assert_eq!(container.status(), "stopped");
    container.delete(&[]).success();
    bundle.assert_nothing_left();
}

/// Callers read the file as a whole, and take its being there for success.
#[test]
fn the_pid_file_holds_digits_only_and_is_put_in_place_by_rename() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it writes in place");
    for subcommand in ["create", "run"] {
        let bundle = TestBundle::sleeper();
        let path = bundle.scratch().join("pid");
        fs::write(&path, "old").expect("write");
        let mut old = File::open(&path).expect("open");
        let container = bundle.container();
        let option = path.to_str().expect("a path");
        match subcommand {
            "create" => container.create(&["--pid-file", option]),
            _ => container.run(&["--detach", "--pid-file", option]),
        }
        .success();
        assert_eq!(
            fs::read_to_string(&path).expect("read"),
            container.pid().to_string()
        );
        let mut left = String::new();
        old.read_to_string(&mut left).expect("read");
        assert_eq!(left, "old", "the old file should not be written to");
        let inode = fs::metadata(&path).expect("stat").ino();
        assert_ne!(inode, old.metadata().expect("stat").ino());
        let names: Vec<_> = fs::read_dir(bundle.scratch())
            .expect("read")
            .flatten()
            .collect();
        assert_eq!(
            names.len(),
            3,
            "no temporary file should be left: {names:?}"
        );
    }
}

#[test]
fn a_failed_create_writes_no_pid_file() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().args(&["/no/such/program"]);
    let path = bundle.scratch().join("pid");
    let container = bundle.container();
    container
        .create(&["--pid-file", path.to_str().expect("a path")])
        .failure();
    assert!(!path.exists());
    bundle.assert_nothing_left();
}

#[test]
fn the_bundle_is_the_working_directory_unless_named() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("echo here");
    let output = run_command(
        bundle
            .runtime()
            .current_dir(bundle.path())
            .args(["run", bundle.id()]),
    );
    assert_eq!(output.success(), "here\n");
    let output = run_command(bundle.runtime().current_dir(bundle.scratch()).args([
        "run",
        "-b",
        "bundle",
        bundle.id(),
    ]));
    assert_eq!(output.success(), "here\n");
}

#[test]
fn a_relative_bundle_is_told_by_its_absolute_path() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.container();
    run_command(bundle.runtime().current_dir(bundle.scratch()).args([
        "create",
        "--bundle",
        "bundle",
        bundle.id(),
    ]))
    .success();
    assert_eq!(container.state()["bundle"], json!(bundle.path()));
    container.start().success();
}

#[test]
fn list_shows_containers_as_table_json_and_ids() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let table = bundle.call(&["list"]);
    let lines: Vec<&str> = table.success().lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    for heading in ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"] {
        assert!(lines[0].contains(heading), "{table}");
    }
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    let pid = container.pid().to_string();
    assert_eq!(words[..3], [bundle.id(), &pid, "created"], "{table}");
    assert_eq!(words[3], bundle.path().to_str().expect("a path"));

    let output = bundle.call(&["list", "--format", "json"]);
    let all: Value = serde_json::from_str(output.success()).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{output}");
    assert_eq!(all[0]["id"], bundle.id());
    assert_eq!(all[0]["status"], "created");
    assert_eq!(all[0]["pid"], json!(container.pid()));
    assert_eq!(all[0]["bundle"], json!(bundle.path()));

    for option in ["--quiet", "-q"] {
        assert_eq!(
            bundle.call(&["list", option]).success().trim_end(),
            bundle.id()
        );
    }
}

#[test]
fn list_of_no_containers_is_null_in_json() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it prints an empty array");
    let bundle = TestBundle::new();
    fs::create_dir(bundle.state_root()).expect("make the state root");
    assert_eq!(
        bundle
            .call(&["list", "--format", "json"])
            .success()
            .trim_end(),
        "null"
    );
    assert_eq!(bundle.call(&["list", "--quiet"]).success(), "");
    assert_eq!(bundle.call(&["list"]).success().lines().count(), 1);
}

#[test]
fn list_of_a_state_root_that_is_not_there_is_no_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it prints an empty array");
    let bundle = TestBundle::new();
    assert_eq!(
        bundle
            .call(&["list", "--format", "json"])
            .success()
            .trim_end(),
        "null"
    );
}

/// The pid of an ended container may go to a stranger: that stranger is not the
/// container, and no signal may reach it.
#[test]
fn a_recycled_pid_is_not_the_container() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let pid = container.pid();
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    container.wait_for("stopped");
    assert!(
        wait_until(Duration::from_secs(10), || !alive(pid)),
        "nobody reaps the process"
    );
    let stranger = (0..400).find_map(|_| {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("ns_last_pid");
        let mut child = Command::new("/bin/sleep")
            .arg("1000")
            .spawn()
            .expect("spawn");
        if conformance::command::process_id(child.id()).as_raw() == pid {
            return Some(child);
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        None
    });
    needs!(stranger.is_some(), "the pid {pid} could not be taken again");
    let mut stranger = stranger.expect("a process");
    let status = container.status();
    let kill = container.kill("KILL");
    let delete = container.delete(&["--force"]);
    let survived = stranger.try_wait().expect("wait").is_none();
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
    assert_eq!(status, "stopped");
    assert!(kill.code() != 0, "{kill}");
    delete.success();
    assert!(survived, "the stranger should live");
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

#[test]
fn an_unreadable_state_is_told_and_can_be_deleted_by_force() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let state = bundle.state_root().join(bundle.id()).join("state.json");
    let saved = fs::read(&state).expect("read the state");
    fs::write(&state, "{").expect("write");
    container.state_output().one_line_failure();
    fs::write(&state, saved).expect("write");
    assert_eq!(container.status(), "created");
}

fn alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}
