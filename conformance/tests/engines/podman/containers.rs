//! What Podman does with a container that runs.

use std::fs;

use conformance::host::{CgroupLayout, cgroup_directory, cgroup_layout, is_root};
use conformance::{gocker_only, needs, runtime};
use serde_json::Value;

use super::{Podman, SLEEPER, is_here};

#[test]
fn podman_pauses_shows_and_resumes_a_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.start("c", &["--memory", "64m"], SLEEPER);
    let program = runtime().program.to_string_lossy().into_owned();
    assert_eq!(podman.inspect("c", "{{.OCIRuntime}}"), program);

    podman.ok(&["pause", "c"]);
    assert_eq!(podman.inspect("c", "{{.State.Status}}"), "paused");
    let output = podman.call(&["exec", "c", "true"]);
    assert_eq!(output.code(), 255, "{output}");
    podman.ok(&["unpause", "c"]);
    assert_eq!(podman.ok(&["exec", "c", "echo", "again"]), "again");

    let stats = podman.ok(&["stats", "--no-stream", "--format", "json", "c"]);
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    let figure = |name: &str| stats[0][name].as_str().unwrap_or_default().to_owned();
    assert_ne!(figure("cpu_time"), "0s", "{stats}");
    assert!(figure("mem_usage").ends_with(" / 67.11MB"), "{stats}");
    assert!(!figure("mem_usage").starts_with("0B"), "{stats}");
    assert_eq!(figure("pids"), "2", "{stats}");

    let top = podman.ok(&["top", "c", "pid", "user", "args"]);
    assert!(top.contains("\n1 ") && top.contains("root"), "{top}");
    assert!(top.contains("while :; do sleep"), "{top}");
    podman.ok(&["rm", "--force", "--time", "0", "c"]);
    podman.assert_nothing_left();
}

#[test]
fn podman_changes_the_limits_of_a_running_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.start("c", &["--memory", "64m", "--cpus", "0.5"], SLEEPER);
    let update = [
        "--memory",
        "128m",
        "--cpus",
        "1.5",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
    ];
    podman.ok(&[&["update"], update.as_slice(), &["c"]].concat());
    let expected = match cgroup_layout() {
        CgroupLayout::V1 => [
            ("memory", "memory.limit_in_bytes", "134217728"),
            ("cpu", "cpu.cfs_quota_us", "150000"),
            ("cpu", "cpu.shares", "512"),
            ("cpuset", "cpuset.cpus", "0"),
        ],
        CgroupLayout::V2 => [
            ("memory", "memory.max", "134217728"),
            ("cpu", "cpu.max", "150000 100000"),
            ("cpu", "cpu.weight", "20"),
            ("cpuset", "cpuset.cpus", "0"),
        ],
    };
    let id = podman.inspect("c", "{{.Id}}");
    for (controller, file, value) in expected {
        let path = format!("{}/libpod-{id}", podman.cgroup());
        let directory = cgroup_directory(controller, &path).expect("a controller");
        let read = fs::read_to_string(directory.join(file)).expect("read a limit");
        assert_eq!(read.trim_end(), value, "{controller}: {file}");
    }
    podman.ok(&["rm", "--force", "--time", "0", "c"]);
    podman.assert_nothing_left();
}

#[test]
fn podman_signals_waits_for_and_restarts_a_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let script = "trap 'exit 3' USR1; trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    podman.start("c", &[], &["sh", "-c", script]);
    podman.wait_for_log("c", "ready\n");
    podman.ok(&["kill", "--signal", "USR1", "c"]);
    assert_eq!(podman.ok(&["wait", "c"]), "3");
    podman.ok(&["start", "c"]);
    podman.wait_for_log("c", "ready\nready\n");
    let first = podman.inspect("c", "{{.State.Pid}}");
    podman.ok(&["restart", "--time", "5", "c"]);
    assert_ne!(podman.inspect("c", "{{.State.Pid}}"), first);
    podman.wait_for_log("c", "ready\nready\nready\n");
    podman.ok(&["kill", "c"]);
    assert_eq!(podman.ok(&["wait", "c"]), "137");
    podman.ok(&["rm", "c"]);
    podman.assert_nothing_left();
}

#[test]
fn podman_copies_into_and_out_of_a_running_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.start("c", &["--tmpfs", "/mnt"], SLEEPER);
    let path = |name: &str| podman.path().join(name).to_string_lossy().into_owned();
    fs::write(path("in"), "copied\n").expect("write");
    // One to the root file system, one to what only the container's namespace shows.
    for place in ["/tmp/file", "/mnt/file"] {
        podman.ok(&["cp", &path("in"), &format!("c:{place}")]);
        assert_eq!(podman.ok(&["exec", "c", "cat", place]), "copied");
        podman.ok(&["cp", &format!("c:{place}"), &path("out")]);
        assert_eq!(fs::read_to_string(path("out")).expect("read"), "copied\n");
    }
    podman.ok(&["rm", "--force", "--time", "0", "c"]);
    podman.assert_nothing_left();
}

#[test]
fn podman_checks_the_health_of_a_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let options = [
        "--health-cmd",
        "test -e /tmp/healthy",
        "--health-interval",
        "disable",
        "--health-retries",
        "1",
    ];
    podman.start("c", &options, SLEEPER);
    let status = || podman.inspect("c", "{{.State.Healthcheck.Status}}");
    assert_eq!(status(), "starting");
    assert_eq!(podman.call(&["healthcheck", "run", "c"]).code(), 1);
    assert_eq!(status(), "unhealthy");
    podman.ok(&["exec", "c", "touch", "/tmp/healthy"]);
    podman.ok(&["healthcheck", "run", "c"]);
    assert_eq!(status(), "healthy");
    podman.ok(&["rm", "--force", "--time", "0", "c"]);
    podman.assert_nothing_left();
}

/// catatonit (Debian package of that name) is process 1, and passes signals on.
#[test]
fn podman_gives_a_container_an_init() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let there = conformance::binaries::installed("catatonit").is_some();
    needs!(there, "needs the Debian package catatonit");
    let podman = Podman::new();
    let init = ["--init", "--init-path", "/usr/bin/catatonit"];
    let script = "cat /proc/1/comm; test $$ != 1 && echo another";
    assert_eq!(podman.shell(&init, script), "podman-init\nanother\n");
    podman.start(
        "c",
        &init,
        &[
            "sh",
            "-c",
            "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done",
        ],
    );
    podman.wait_for_log("c", "ready\n");
    podman.ok(&["stop", "--time", "10", "c"]);
    assert_eq!(podman.inspect("c", "{{.State.ExitCode}}"), "5");
    podman.ok(&["rm", "c"]);
    podman.assert_nothing_left();
}

/// What a runtime cannot do is told, and the container runs on.
#[test]
fn podman_is_told_that_a_container_cannot_be_checkpointed() {
    gocker_only!();
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.start("c", &[], SLEEPER);
    let output = podman.call(&["container", "checkpoint", "c"]);
    assert_eq!(output.code(), 125, "{output}");
    assert!(output.stderr.contains("checkpoint"), "{output}");
    assert_eq!(podman.ok(&["exec", "c", "echo", "alive"]), "alive");
    podman.ok(&["rm", "--force", "--time", "0", "c"]);
    podman.assert_nothing_left();
}
