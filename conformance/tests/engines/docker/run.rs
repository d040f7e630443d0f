//! `docker run`: exit statuses, terminals, the background, logs.

use std::io::Write as _;

use conformance::needs;

use super::{Docker, IMAGE, UNTIL_RESIZED, WANTED, is_here, resize};
use crate::runtime::console::{on_a_terminal, read_terminal};

#[test]
fn docker_knows_the_runtime() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let info = docker.ok(&["info", "--format", "{{json .Runtimes}} {{.DefaultRuntime}}"]);
    assert!(info.contains("\"gocker\":{\"path\":"), "{info}");
    assert!(info.ends_with(" gocker"), "{info}");
    let output = docker.run(&[], &["/bin/echo", "hello from the container"]);
    assert_eq!(output.success(), "hello from the container\n");
    // Named, not only by default.
    let output = docker.run(&["--runtime", "gocker"], &["/bin/id", "-u"]);
    assert_eq!(output.success(), "0\n");
    docker.end();
}

/// Docker makes these of the runtime's words: 127 where there is no program, 126
/// where it is none, 125 for everything else.
#[test]
fn docker_passes_exit_statuses_and_knows_why_a_program_did_not_start() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    for (args, code, words) in [
        (["/bin/true"].as_slice(), 0, ""),
        (&["/bin/sh", "-c", "exit 42"], 42, ""),
        (&["/bin/sh", "-c", "kill -9 -1; exit 7"], 7, ""),
        (
            &["nosuchprogram"],
            127,
            "\"nosuchprogram\": executable file not found in $PATH",
        ),
        (
            &["/no/such/program"],
            127,
            "stat /no/such/program: no such file or directory",
        ),
        (&["/etc/passwd"], 126, "\"/etc/passwd\": permission denied"),
        (&["/etc"], 126, "permission denied"),
    ] {
        let output = docker.run(&[], args);
        assert_eq!(output.code(), code, "{output}");
        assert!(output.stderr.contains(words), "{output}");
    }
    let output = docker.run(&["--sysctl", "kernel.shm_rmid_forced=word"], &["/bin/true"]);
    assert_eq!(output.code(), 125, "{output}");
    assert!(output.stderr.contains("shm_rmid_forced"), "{output}");
    docker.end();
}

/// A failed start leaves a container that can be looked at, and nothing else.
#[test]
fn docker_keeps_the_reason_of_a_failed_start() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let options = ["--detach", "--name", "failed"];
    let output = conformance::run_command(&mut docker.run_command(&options, &["nosuchprogram"]));
    assert_eq!(output.code(), 127, "{output}");
    assert_eq!(docker.inspect("failed", ".State.Status"), "\"created\"");
    assert_eq!(docker.inspect("failed", ".State.ExitCode"), "127");
    assert!(
        docker
            .inspect("failed", ".State.Error")
            .contains("executable file not found"),
        "{}",
        docker.inspect("failed", ".State.Error")
    );
    docker.ok(&["rm", "failed"]);
    docker.end();
}

#[test]
fn docker_gives_a_container_a_terminal_that_changes_its_size() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let script = format!(
        "tty; test -t 0 && test -t 1 && echo both; read line; echo got $line; {UNTIL_RESIZED}; exit 3"
    );
    let command = docker.run_command(&["--rm", "-it"], &["/bin/sh", "-c", &script]);
    let mut terminal = on_a_terminal(command, 24, 80);
    let text = read_terminal(&mut terminal.master, Some("both\n"));
    assert!(text.starts_with("/dev/pts/0\nboth\n"), "{text:?}");
    terminal.master.write_all(b"typed\n").expect("write");
    let text = read_terminal(&mut terminal.master, Some("got typed\n"));
    assert!(text.contains("got typed\n"), "{text:?}");
    resize(&mut terminal);
    let (code, text) = terminal.finish();
    assert_eq!(code, 3, "{text:?}");
    docker.end();
}

#[test]
fn docker_attaches_to_what_runs_in_the_background() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let script = "echo out; echo err >&2; until [ \"$line\" = second ]; do read line; echo got $line; done; exit 4";
    let options = ["--detach", "--interactive", "--name", "talker"];
    let mut command = docker.run_command(&options, &["/bin/sh", "-c", script]);
    conformance::run_command(&mut command).success();
    docker.wait_for_log("talker", "out\n");
    let logs = docker.output(&["logs", "talker"]);
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("out\n", "err\n")
    );
    let mut attach = docker.command(&["attach", "talker"]);
    let file = super::text_file("first\nsecond\n");
    let output = conformance::command::run_with_stdin(attach.stdin(file));
    assert_eq!(output.code(), 4, "{output}");
    docker.wait_for_log("talker", "got first\ngot second\n");
    let logs = docker.output(&["logs", "--tail", "1", "talker"]);
    assert_eq!(logs.success(), "got second\n");
    docker.ok(&["rm", "talker"]);

    // A terminal is left by its keys; the container goes on.
    let options = ["--detach", "--interactive", "--tty", "--name", "screen"];
    let script = "echo ready; read line; echo got $line; sleep 1000";
    let mut command = docker.run_command(&options, &["/bin/sh", "-c", script]);
    conformance::run_command(&mut command).success();
    docker.wait_for_log("screen", "ready");
    let mut terminal = on_a_terminal(docker.command(&["attach", "screen"]), 24, 80);
    terminal.master.write_all(b"typed\n").expect("write");
    let text = read_terminal(&mut terminal.master, Some("got typed\n"));
    assert!(text.contains("got typed\n"), "{text:?}");
    terminal.master.write_all(b"\x10\x11").expect("write");
    let (_, text) = terminal.finish();
    assert!(text.contains("read escape sequence"), "{text:?}");
    assert_eq!(docker.inspect("screen", ".State.Running"), "true");
    docker.ok(&["rm", "--force", "screen"]);
    docker.end();
}

#[test]
fn docker_puts_an_init_in_front_of_the_program() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    // The init reaps what the program leaves behind.
    let script =
        "cat /proc/1/comm; (sleep 0.1 &); sleep 0.5; ps -o args | grep -c '^sleep'; exit 3";
    let output = docker.run(&["--init"], &["/bin/sh", "-c", script]);
    assert_eq!(output.stdout, "docker-init\n0\n", "{output}");
    assert_eq!(output.code(), 3, "{output}");
    docker.end();
}

#[test]
fn docker_removes_containers_whatever_their_status() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("running", &[], "sleep 1000");
    docker.background("paused", &[], "sleep 1000");
    docker.ok(&["pause", "paused"]);
    docker.background("ended", &[], "exit 1");
    docker.ok(&[
        "create",
        "--name",
        "created",
        "--network",
        "none",
        IMAGE,
        "/bin/true",
    ]);
    let refused = docker.output(&["rm", "running"]);
    assert!(
        refused
            .failure()
            .contains("cannot remove a running container"),
        "{refused}"
    );
    docker.ok(&["rm", "--force", "running", "paused", "ended", "created"]);
    docker.end();
}
