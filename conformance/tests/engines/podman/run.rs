//! `podman run`, its exit statuses and what it confines.

use std::fs;
use std::time::Duration;

use conformance::host::{CgroupLayout, cgroup_layout, is_root};
use conformance::test_bundle::unique_id;
use conformance::{needs, run_command, runtime, wait_until};

use super::super::{IMAGE, run_on_a_terminal, serves_seccomp};
use super::{Podman, is_here};

#[test]
fn podman_runs_a_container_of_a_local_image() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let output = podman.run(&[], &["/bin/echo", "hello from the container"]);
    assert_eq!(output.success(), "hello from the container\n", "{output}");
    let options = ["--rm", "--network", "host"];
    let output = run_command(&mut podman.run_command(&options, &["/bin/id", "-u"]));
    assert_eq!(output.success(), "0\n");
    podman.assert_nothing_left();
}

/// Podman makes these of the runtime's words.
#[test]
fn podman_passes_exit_codes_and_knows_why_a_program_did_not_start() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    for (args, code) in [
        (["/bin/sh", "-c", "exit 42"].as_slice(), 42),
        (&["nosuchprogram"], 127),
        (&["/no/such/program"], 127),
        (&["/etc"], 126),
        (&["/etc/passwd"], 126),
        (&["/bin/sh", "-c", "kill -9 $$; sleep 1; exit 7"], 7),
    ] {
        let output = podman.run(&[], args);
        assert_eq!(output.code(), code, "{output}");
    }
    podman.assert_nothing_left();
}

#[test]
fn podman_limits_a_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let files = match cgroup_layout() {
        CgroupLayout::V1 => ["memory/memory.limit_in_bytes", "pids/pids.max"],
        CgroupLayout::V2 => ["memory.max", "pids.max"],
    };
    let files = files.map(|file| format!("/sys/fs/cgroup/{file}"));
    let options = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"];
    let output = podman.run(&options, &["/bin/cat", &files[0], &files[1]]);
    assert_eq!(output.success(), "67108864\n50\n");
    podman.assert_nothing_left();
}

#[test]
fn podman_confines_a_container_as_its_options_say() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let volume = podman.path().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "from the volume\n").expect("write");
    let volume = format!("{}:/data:ro", volume.display());
    let options = [
        "--user",
        "1000:1000",
        "--read-only",
        "--volume",
        &volume,
        "--workdir",
        "/data",
        "--hostname",
        "named",
        "--env",
        "A=b",
        "--cap-drop",
        "all",
    ];
    let script = "id -u; pwd; cat file; hostname; echo $A; grep CapBnd /proc/self/status; touch /x";
    let output = podman.run(&options, &["/bin/sh", "-c", script]);
    let expected = "1000\n/data\nfrom the volume\nnamed\nb\nCapBnd:\t0000000000000000\n";
    assert_eq!(output.stdout, expected, "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    podman.assert_nothing_left();
}

#[test]
fn podman_gives_a_container_a_terminal() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let script = "tty; test -t 0 && test -t 1 && echo both; exit 3";
    let mut command = podman.run_command(
        &["--rm", "--network", "none", "--interactive", "--tty"],
        &["/bin/sh", "-c", script],
    );
    let (code, text) = run_on_a_terminal(&mut command);
    assert_eq!((code, text.as_str()), (3, "/dev/pts/0\nboth\n"));
    podman.assert_nothing_left();
}

#[test]
fn podman_stops_and_removes_a_detached_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let name = unique_id();
    let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let mut command = podman.run_command(
        &["--detach", "--network", "none", "--name", &name],
        &["/bin/sh", "-c", script],
    );
    run_command(&mut command).success();
    let logs = || run_command(&mut podman.command(&["logs", &name])).stdout;
    assert!(
        wait_until(Duration::from_secs(10), || logs() == "ready\n"),
        "{}",
        logs()
    );
    run_command(&mut podman.command(&["stop", &name])).success();
    let ps = run_command(&mut podman.command(&["ps", "--all", "--format", "{{.Status}}"]));
    assert!(ps.success().starts_with("Exited (0)"), "{ps}");
    run_command(&mut podman.command(&["rm", &name])).success();
    podman.assert_nothing_left();
}

/// The way to have it always.
#[test]
fn podman_takes_the_runtime_from_its_configuration() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    needs!(serves_seccomp(), "needs a runtime that serves seccomp");
    let podman = Podman::new();
    let program = runtime().program.to_string_lossy().into_owned();
    let path = podman.path().join("containers.conf");
    let config = fs::read_to_string(&path).expect("read");
    let more = format!("[engine]\nruntime = \"own\"\n[engine.runtimes]\nown = [{program:?}]\n");
    fs::write(&path, config + &more).expect("write");
    let mut command = podman.unaware();
    command.args(["run", "--name", "c", "--network", "none"]);
    command.args(["--cgroup-parent", podman.cgroup(), IMAGE, "echo", "hello"]);
    assert_eq!(run_command(&mut command).success(), "hello\n");
    assert_eq!(podman.inspect("c", "{{.OCIRuntime}}"), "own");
    let mut command = podman.unaware();
    let info = run_command(command.args(["info", "--format", "{{.Host.OCIRuntime.Path}}"]));
    assert_eq!(info.success().trim_end(), program);
    run_command(podman.unaware().args(["rm", "c"])).success();
    podman.assert_nothing_left();
}
