//! `kill`: runtime.md#kill, and that no signal reaches a stranger.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, peer_differs, run_command, wait_until};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
        Some("SigTerm"),
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
        wait_until(Duration::from_secs(10), || !Path::new(&format!(
            "/proc/{pid}"
        ))
        .exists()),
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

/// Signal 0 asks whether the process is there, and does nothing to it.
#[test]
fn kill_with_signal_0_asks_whether_it_runs() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    container.kill("0").success();
    assert_eq!(container.status(), "running");
    container.kill("KILL").success();
    container.wait_for("stopped");
    let output = container.kill("0");
    assert!(
        output.failure().contains("container not running"),
        "{output}"
    );
}

#[test]
fn real_time_signals_have_names_from_either_end() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (name, number) in [
        ("RTMIN", 34),
        ("SIGRTMIN+1", 35),
        ("rtmin+15", 49),
        ("SIGRTMAX-14", 50),
        ("RTMAX", 64),
        ("64", 64),
    ] {
        let bundle = TestBundle::sleeper().namespace("pid", None);
        let container = bundle.container();
        bundle.write_config();
        let mut run = bundle.making("run", &[]);
        let mut run = run.spawn().expect("spawn");
        let runs = || {
            let output = container.state_output();
            output.code() == 0 && output.stdout.contains("\"running\"")
        };
        assert!(wait_until(Duration::from_secs(10), runs));
        container.kill(name).success();
        assert_eq!(
            run.wait().expect("wait").code(),
            Some(128 + number),
            "{name}"
        );
    }
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for name in [
        "RTMIN-1", "RTMAX+1", "RTMAX-31", "RTMIN+31", "65", "-9", "+9x",
    ] {
        container.kill(name).failure();
        assert_eq!(container.status(), "running", "{name}");
    }
}

/// Few programs name such a signal; the status is told all the same.
#[test]
fn a_real_time_signal_that_ends_the_process_is_its_exit_status() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("kill -34 $$; sleep 5").namespace("pid", None);
    assert_eq!(bundle.run().code(), 162);
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let mut exec = container.command("exec", &[]);
    let output = run_command(exec.args(["sh", "-c", "kill -64 $$; sleep 5"]));
    assert_eq!(output.code(), 192, "{output}");
}
