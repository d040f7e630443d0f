//! Terminals: `run -it`, `exec -it`, sizes, and the keys that detach.

use std::process::Stdio;
use std::time::Duration;

use conformance::host::is_root;
use conformance::needs;

use super::super::terminal::Terminal;
use super::{Podman, SLEEPER, is_here};

#[test]
fn podman_resizes_detaches_and_attaches_a_terminal() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let options = ["--network", "none", "--interactive", "--tty", "--name", "c"];
    let mut terminal = Terminal::run(&mut podman.run_command(&options, &["sh"]), (24, 80));
    terminal.wait_for("# ");
    for size in [(40, 100), (50, 132)] {
        terminal.resize(size);
        // The size takes its way through Podman and conmon.
        let expected = format!("{} {}\r\n", size.0, size.1);
        terminal.repeat_until("stty size\r", &expected);
    }
    // Ctrl-P, Ctrl-Q.
    assert_eq!(terminal.detach(["\x10", "\x11"]), 0);
    assert_eq!(podman.inspect("c", "{{.State.Running}}"), "true");

    let mut terminal = Terminal::run(&mut podman.command(&["attach", "c"]), (24, 80));
    terminal.repeat_until("echo $((40 + 2))\r", "42\r\n");
    // Ctrl-C reaches the foreground process of the container.
    terminal.send("sleep 1000; echo after $?\r");
    terminal.repeat_until("\x03", "^C");
    terminal.send("exit 5\r");
    terminal.wait();
    assert_eq!(podman.ok(&["wait", "c"]), "5");
    podman.ok(&["rm", "c"]);
    podman.assert_nothing_left();
}

#[test]
fn podman_gives_a_further_process_a_terminal() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.start("c", &[], SLEEPER);
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo all; read x; echo got $x; stty size; exit 4";
    let exec = ["exec", "--interactive", "--tty", "c", "sh", "-c", script];
    let mut terminal = Terminal::run(&mut podman.command(&exec), (30, 90));
    terminal.wait_for("/dev/pts/0\r\nall\r\n");
    terminal.send("word\r");
    terminal.wait_for("got word\r\n30 90\r\n");
    assert_eq!(terminal.wait(), 4);

    // A terminal of the container's where the caller has none.
    let output = podman.call(&["exec", "--tty", "c", "tty"]);
    assert_eq!(output.success(), "/dev/pts/0\r\n");

    let exec = [
        "exec",
        "--interactive",
        "--tty",
        "--detach-keys",
        "ctrl-a,d",
        "c",
        "sh",
        "-i",
    ];
    let mut terminal = Terminal::run(&mut podman.command(&exec), (24, 80));
    terminal.wait_for("# ");
    // Podman's own status does not tell a detached process from a failed one.
    terminal.detach(["\x01", "d"]);
    let processes = podman.ok(&["exec", "c", "ps"]);
    assert!(processes.contains("sh -i"), "{processes}");
    podman.ok(&["rm", "--force", "--time", "0", "c"]);
    podman.assert_nothing_left();
}

/// Without a terminal, what a process reads ends with its input.
#[test]
fn podman_passes_standard_input() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.start("c", &[], SLEEPER);
    let file = podman.path().join("input");
    std::fs::write(&file, "one\ntwo\n").expect("write");
    let input = || Stdio::from(std::fs::File::open(&file).expect("open"));
    let run = ["--rm", "--interactive", "--network", "none"];
    for mut command in [
        podman.run_command(&run, &["wc", "-l"]),
        podman.command(&["exec", "--interactive", "c", "wc", "-l"]),
    ] {
        let limit = Duration::from_secs(30);
        let output = conformance::command::run_within(command.stdin(input()), limit);
        assert_eq!(output.success(), "2\n", "{output}");
    }
    podman.ok(&["rm", "--force", "--time", "0", "c"]);
    podman.assert_nothing_left();
}
