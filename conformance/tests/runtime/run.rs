//! `run`, in the foreground and detached; the bundle and the pid file, which
//! `create` has as well.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs, run_command, wait_until};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

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
    let mut command = bundle.making("run", &[]);
    command.stdin(Stdio::from(input));
    let output = conformance::command::run_with_stdin(&mut command);
    assert_eq!(output.success(), "to stdin\n");
    assert_eq!(output.stderr, "to stderr\n");
}

#[test]
fn run_forwards_signals_to_the_process() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("trap 'exit 9' TERM; touch /ready; while :; do :; done");
    let mut command = bundle.making("run", &[]);
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
