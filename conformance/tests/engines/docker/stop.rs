//! Signals, `docker stop`, pause, restart, and what outlives the daemon.

use std::time::{Duration, Instant};

use conformance::{leftovers, needs, wait_until};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::{Docker, IMAGE, WANTED, is_here};

/// Says so and ends by itself when it is told to.
const OBEDIENT: &str = "trap 'echo told; exit 5' TERM; trap 'echo poked' USR1; echo ready; while :; do sleep 0.1; done";
/// Ends only when it is killed.
const DEAF: &str = "trap '' TERM; echo ready; while :; do sleep 0.1; done";

#[test]
fn docker_stops_containers_and_starts_them_again() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("obedient", &[], OBEDIENT);
    docker.background("deaf", &[], DEAF);
    docker.wait_for_log("obedient", "ready");
    docker.wait_for_log("deaf", "ready");

    docker.ok(&["kill", "--signal", "USR1", "obedient"]);
    docker.wait_for_log("obedient", "poked");
    docker.ok(&["stop", "--time", "20", "obedient"]);
    assert_eq!(docker.inspect("obedient", ".State.ExitCode"), "5");
    assert_eq!(docker.inspect("obedient", ".State.Status"), "\"exited\"");
    let logs = docker.ok(&["logs", "obedient"]);
    assert!(logs.ends_with("told"), "{logs}");

    // SIGKILL comes after the time that was given.
    let from = Instant::now();
    docker.ok(&["stop", "--time", "1", "deaf"]);
    assert!(from.elapsed() >= Duration::from_secs(1));
    assert_eq!(docker.inspect("deaf", ".State.ExitCode"), "137");

    docker.ok(&["start", "deaf"]);
    assert_eq!(docker.inspect("deaf", ".State.Running"), "true");
    docker.ok(&["restart", "--time", "0", "deaf"]);
    assert_eq!(docker.inspect("deaf", ".State.Running"), "true");
    docker.ok(&["kill", "deaf"]);
    assert_eq!(docker.ok(&["wait", "deaf"]), "137");
    let refused = docker.output(&["kill", "deaf"]);
    assert!(refused.failure().contains("is not running"), "{refused}");
    docker.ok(&["rm", "obedient", "deaf"]);
    docker.end();
}

#[test]
fn docker_pauses_a_container() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background(
        "counter",
        &[],
        "while :; do echo x >>/tmp/count; sleep 0.01; done",
    );
    let count = || {
        let size = docker.at("size");
        docker.ok(&["cp", "counter:/tmp/count", &size.display().to_string()]);
        std::fs::metadata(size).expect("the copy").len()
    };
    docker.ok(&[
        "exec",
        "counter",
        "/bin/sh",
        "-c",
        "until test -e /tmp/count; do :; done",
    ]);
    docker.ok(&["pause", "counter"]);
    assert_eq!(docker.inspect("counter", ".State.Status"), "\"paused\"");
    let held = count();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(count(), held);
    docker.ok(&["unpause", "counter"]);
    assert_eq!(docker.inspect("counter", ".State.Status"), "\"running\"");
    assert!(wait_until(Duration::from_secs(10), || count() > held));
    // One that is paused is stopped, too.
    docker.ok(&["pause", "counter"]);
    docker.ok(&["stop", "--time", "0", "counter"]);
    docker.ok(&["rm", "counter"]);
    docker.end();
}

#[test]
fn docker_restarts_what_failed() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("fails", &["--restart", "on-failure:2"], "echo once; exit 3");
    docker.wait_for("fails", ".RestartCount", "2");
    docker.wait_for("fails", ".State.Status", "\"exited\"");
    assert_eq!(docker.inspect("fails", ".State.ExitCode"), "3");
    assert_eq!(docker.ok(&["logs", "fails"]), "once\nonce\nonce");
    docker.ok(&["rm", "fails"]);
    docker.end();
}

/// dockerd is killed; the container goes on, and the next daemon finds it.
#[test]
fn docker_finds_its_containers_again() {
    needs!(is_here(), "{WANTED}");
    let mut docker = Docker::start_with(&["--live-restore"]);
    docker.background("survivor", &["--memory", "64m"], OBEDIENT);
    docker.wait_for_log("survivor", "ready");
    let pid = docker.inspect("survivor", ".State.Pid");

    // containerd dies with dockerd, which the next one must be able to see.
    set_child_subreaper(true).expect("become a subreaper");
    let containerd = std::fs::read_to_string(docker.at("exec/containerd/containerd.pid"));
    let containerd: i32 = containerd.expect("a pid").trim().parse().expect("a pid");
    let mut daemon = docker.daemon.take().expect("a daemon");
    daemon.kill().expect("kill dockerd");
    daemon.wait().expect("wait for dockerd");
    waitpid(Pid::from_raw(containerd), None).expect("wait for containerd");

    docker.start_daemon();
    assert_eq!(docker.inspect("survivor", ".State.Pid"), pid);
    assert_eq!(
        docker.ok(&["exec", "survivor", "/bin/echo", "here"]),
        "here"
    );
    docker.ok(&[
        "update",
        "--memory",
        "32m",
        "--memory-swap",
        "-1",
        "survivor",
    ]);
    docker.ok(&["stop", "--time", "20", "survivor"]);
    assert_eq!(docker.inspect("survivor", ".State.ExitCode"), "5");
    docker.ok(&["rm", "survivor"]);
    docker.end();
}

/// A daemon that ends in good order takes its containers with it.
#[test]
fn docker_ends_its_containers_with_itself() {
    needs!(is_here(), "{WANTED}");
    let mut docker = Docker::start();
    docker.background("obedient", &[], OBEDIENT);
    docker.wait_for_log("obedient", "ready");
    docker.stop_daemon();
    let processes = || leftovers::processes_of(docker.directory.path());
    assert!(
        wait_until(Duration::from_secs(10), || processes().is_empty()),
        "left: {:?}",
        processes()
    );
    assert_eq!(docker.left(), Vec::<String>::new());
    docker.start_daemon();
    assert_eq!(docker.inspect("obedient", ".State.ExitCode"), "5");
    docker.ok(&["rm", "obedient"]);
    docker.end();
}

/// Docker offers checkpoints as an experiment; what comes back is an answer, and the container
/// goes on.
#[test]
fn docker_gets_an_answer_when_it_asks_for_a_checkpoint() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("subject", &[], OBEDIENT);
    let output = docker.output(&[
        "checkpoint",
        "create",
        "--leave-running",
        "subject",
        "first",
    ]);
    if output.code() != 0 {
        assert!(
            output
                .stderr
                .contains("Cannot checkpoint container subject"),
            "{output}"
        );
    }
    assert_eq!(docker.inspect("subject", ".State.Running"), "true");
    assert_eq!(docker.ok(&["exec", "subject", "/bin/echo", "here"]), "here");
    docker.ok(&["rm", "--force", "subject"]);
    docker.end();
}

/// The names in a removed container's place are free at once.
#[test]
fn docker_starts_many_containers_one_after_another() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let mut children: Vec<_> = (0..6)
        .map(|number| {
            let name = format!("many-{number}");
            let script = format!("exit {number}");
            let mut command =
                docker.command(&["run", "--rm", "--network", "none", "--name", &name]);
            command.args([IMAGE, "/bin/sh", "-c", &script]);
            command.spawn().expect("spawn docker")
        })
        .collect();
    for (number, child) in children.iter_mut().enumerate() {
        let code = super::super::wait_for(child, Duration::from_secs(60));
        assert_eq!(usize::try_from(code), Ok(number));
    }
    docker.end();
}
