//! What a foreground runtime copies between the caller's terminal and the container's, and what
//! it leaves alone.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, peer_differs, run_command, wait_until};
use nix::sys::signal::Signal;

use super::console::with_terminal;
use super::terminal::{OnTerminal, run};

#[test]
fn a_reader_that_goes_away_hangs_up_the_containers_terminal() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they go on");
    let bundle = with_terminal("yes; exit 5");
    let mut command = run(&bundle);
    command.stdout(Stdio::piped());
    let mut run = OnTerminal::start(&bundle, command, [true, false, true]);
    let mut stdout = run.child.stdout.take().expect("stdout");
    let mut some = [0; 1000];
    stdout.read_exact(&mut some).expect("read");
    drop(stdout);
    // The shell, killed by the hang-up or told by yes.
    let code = run.code();
    assert!(code == 5 || code == 129, "{code}");
    run.assert_restored();
    bundle.assert_nothing_left();
}

/// Hundreds of megabytes, through a reader that takes its time in between.
#[test]
fn much_output_arrives_whole() {
    needs!(is_root(), "needs root");
    const BYTES: usize = 200 << 20;
    let bundle = with_terminal(&format!(
        "stty raw; dd if=/dev/zero bs=1M count={} 2>/dev/null | tr '\\0' x; printf end",
        BYTES >> 20
    ));
    let mut command = run(&bundle);
    command.stdout(Stdio::piped());
    let mut run = OnTerminal::start(&bundle, command, [true, false, true]);
    let mut stdout = run.child.stdout.take().expect("stdout");
    std::thread::sleep(Duration::from_millis(300));
    let (mut count, mut last) = (0, Vec::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stdout.read(&mut buffer).expect("read") {
            0 => break,
            length => {
                count += length;
                last.extend(&buffer[length.saturating_sub(3)..length]);
                last.drain(..last.len().saturating_sub(3));
            }
        }
    }
    assert_eq!((count, last.as_slice()), (BYTES + 3, &b"end"[..]));
    assert_eq!(run.code(), 0);
}

/// Neither direction may wait for the other.
#[test]
fn input_that_nobody_reads_does_not_hold_up_output_or_signals() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it wants its input to be the terminal");
    let bundle = with_terminal(
        "stty raw -echo; trap 'exit 8' TERM; echo ready; n=0; while [ $n -lt 4000 ]; do n=$((n+1)); \
         echo 'a line of output that takes some room'; done; echo all; while :; do sleep 0.05; done",
    );
    let input = bundle.scratch().join("input");
    fs::write(&input, vec![b'x'; 1 << 20]).expect("write");
    let mut command = run(&bundle);
    command.stdin(File::open(&input).expect("open"));
    let mut run = OnTerminal::start(&bundle, command, [false, true, true]);
    run.wait_for("all");
    run.send(Signal::SIGTERM);
    assert_eq!(run.code(), 8);
    run.assert_restored();
}

#[test]
fn output_that_nobody_reads_does_not_hold_up_signals() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle =
        with_terminal("trap 'exit 8' TERM; touch /ready; yes & while :; do sleep 0.05; done");
    let mut command = run(&bundle);
    command.stdout(Stdio::piped());
    let mut run = OnTerminal::start(&bundle, command, [true, false, true]);
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(wait_until(Duration::from_secs(10), ready));
    // The pipe and the terminal's buffers fill up.
    std::thread::sleep(Duration::from_millis(300));
    run.send(Signal::SIGTERM);
    let container = bundle.container();
    let path = bundle.scratch().join("state").join(bundle.id());
    let ended = || !path.exists() || container.status() == "stopped";
    assert!(
        wait_until(Duration::from_secs(10), ended),
        "the signal should arrive"
    );
    // What is left of the output still has a reader; a second signal says that it has none.
    run.send(Signal::SIGTERM);
    assert_eq!(run.code(), 8);
    run.assert_restored();
}

/// The end of input that is no terminal is the end of file for who reads lines.
#[test]
fn the_end_of_input_ends_a_reader_of_lines() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they do not tell");
    for input in ["one\n", "one", ""] {
        let bundle = with_terminal("stty -echo; cat; echo end of $?");
        let file = bundle.scratch().join("input");
        fs::write(&file, input).expect("write");
        let mut command = run(&bundle);
        command.stdin(File::open(&file).expect("open"));
        let mut run = OnTerminal::start(&bundle, command, [false, true, true]);
        run.wait_for("end of 0");
        assert_eq!(run.code(), 0, "{input:?}");
    }
}

/// An init may close its terminal and open it again by /dev/console.
#[test]
fn a_terminal_that_is_closed_and_opened_again_still_prints() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they stop copying");
    let bundle = with_terminal(
        "echo first; exec </dev/null >/dev/null 2>&1; sleep 0.3; exec >/dev/console; echo second",
    );
    let mut run = OnTerminal::run(&bundle);
    run.wait_for("first");
    run.wait_for("second");
    assert_eq!(run.code(), 0);
}

/// Descriptors that the caller has closed: the process gets the null device, no stranger's.
#[test]
fn closed_standard_descriptors_are_the_null_device() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "a descriptor of their own takes the place");
    for (closed, open) in [("<&-", 0), (">&-", 1), ("2>&-", 2)] {
        let bundle = TestBundle::shell(
            "for f in 0 1 2; do readlink /proc/self/fd/$f; done > /links; exit 4",
        );
        let command = run(&bundle);
        let args: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &format!("\"$@\" {closed}"), "sh"])
            .args(args);
        let output = run_command(&mut shell);
        assert_eq!(output.code(), 4, "{output}");
        let links = fs::read_to_string(bundle.rootfs().join("links")).expect("read");
        let link = links.lines().nth(open);
        if open != 1 {
            assert_eq!(link, Some("/dev/null"), "{links}");
        }
        bundle.assert_nothing_left();
    }
}
