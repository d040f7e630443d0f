//! `docker exec` and the health checks that are made of it.

use std::io::Write as _;

use conformance::command::run_with_stdin;
use conformance::{needs, wait_until};

use super::{Docker, UNTIL_RESIZED, WANTED, is_here, resize, text_file};
use crate::runtime::console::{on_a_terminal, read_terminal};

#[test]
fn docker_executes_further_programs() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("host", &["--env", "FROM=config"], "sleep 1000");
    assert_eq!(docker.ok(&["exec", "host", "/bin/echo", "plain"]), "plain");

    let script = "id -u; id -g; id -G; pwd; echo $A $FROM $HOME; exit 9";
    let options = ["exec", "-u", "web", "-w", "/tmp", "-e", "A=b"];
    let output = docker.output(&[&options[..], &["host", "/bin/sh", "-c", script]].concat());
    assert_eq!(
        output.stdout, "33\n44\n44 55 66\n/tmp\nb config /var/www\n",
        "{output}"
    );
    assert_eq!(output.code(), 9, "{output}");

    let mut command = docker.command(&["exec", "--interactive", "host", "/bin/cat"]);
    let output = run_with_stdin(command.stdin(text_file("given\n")));
    assert_eq!(output.success(), "given\n");

    docker.ok(&[
        "exec",
        "--detach",
        "host",
        "/bin/sh",
        "-c",
        "echo done >/tmp/file",
    ]);
    let written = || {
        docker
            .output(&["exec", "host", "/bin/cat", "/tmp/file"])
            .stdout
            == "done\n"
    };
    assert!(wait_until(std::time::Duration::from_secs(10), written));

    // It is confined as the container is.
    let status = |docker: &Docker, args: &[&str]| {
        docker.ok(&[
            args,
            &["grep", "-E", "CapBnd|Seccomp:", "/proc/self/status"],
        ]
        .concat())
    };
    assert_eq!(
        status(&docker, &["exec", "host"]),
        "CapBnd:\t00000000a80425fb\nSeccomp:\t2"
    );
    docker.ok(&["rm", "--force", "host"]);
    docker.end();
}

/// Docker has one status for every program that it could not start.
#[test]
fn docker_knows_why_a_further_program_did_not_start() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("host", &[], "sleep 1000");
    for (options, args, words) in [
        (
            ["exec", "-e", "A=b"],
            "nosuch",
            "\"nosuch\": executable file not found in $PATH",
        ),
        (
            ["exec", "-e", "A=b"],
            "/no/such",
            "stat /no/such: no such file or directory",
        ),
        (
            ["exec", "-e", "A=b"],
            "/etc/passwd",
            "\"/etc/passwd\": permission denied",
        ),
        (["exec", "-e", "A=b"], "/etc", "permission denied"),
        (["exec", "-w", "/nowhere"], "/bin/true", "/nowhere"),
        (
            ["exec", "-u", "nobody"],
            "/bin/true",
            "unable to find user nobody",
        ),
    ] {
        let output = docker.output(&[&options[..], &["host", args]].concat());
        assert_eq!(output.code(), 126, "{output}");
        let told = format!("{}{}", output.stdout, output.stderr);
        assert!(told.contains(words), "{output}");
    }
    let output = docker.output(&["exec", "--detach", "host", "nosuch"]);
    assert!(
        output.failure().contains("executable file not found"),
        "{output}"
    );
    docker.ok(&["pause", "host"]);
    let output = docker.output(&["exec", "host", "/bin/true"]);
    assert!(output.failure().contains("is paused"), "{output}");
    docker.ok(&["rm", "--force", "host"]);
    docker.end();
}

#[test]
fn docker_gives_a_further_program_a_terminal() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("host", &[], "sleep 1000");
    let script = format!("tty; read line; echo got $line; {UNTIL_RESIZED}; exit 6");
    let command = docker.command(&["exec", "-it", "host", "/bin/sh", "-c", &script]);
    let mut terminal = on_a_terminal(command, 24, 80);
    let text = read_terminal(&mut terminal.master, Some("/dev/pts/0\n"));
    assert!(text.contains("/dev/pts/0\n"), "{text:?}");
    terminal.master.write_all(b"typed\n").expect("write");
    let text = read_terminal(&mut terminal.master, Some("got typed\n"));
    assert!(text.contains("got typed\n"), "{text:?}");
    resize(&mut terminal);
    let (code, text) = terminal.finish();
    assert_eq!(code, 6, "{text:?}");
    docker.ok(&["rm", "--force", "host"]);
    docker.end();
}

#[test]
fn docker_checks_a_containers_health() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let options = [
        "--health-cmd",
        "test -e /tmp/well || { echo ill; exit 1; }",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
    ];
    docker.background("patient", &options, "sleep 1000");
    docker.wait_for("patient", ".State.Health.Status", "\"unhealthy\"");
    let log = docker.inspect("patient", ".State.Health.Log");
    assert!(
        log.contains("\"ExitCode\":1,\"Output\":\"ill\\n\""),
        "{log}"
    );
    docker.ok(&["exec", "patient", "/bin/touch", "/tmp/well"]);
    docker.wait_for("patient", ".State.Health.Status", "\"healthy\"");
    docker.ok(&["rm", "--force", "patient"]);
    docker.end();
}
