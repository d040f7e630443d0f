//! Files that are missing, full, or of another kind than they should be: the operation's result
//! stays right, and the trouble is told.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, run_command};
use nix::sys::stat::Mode;

fn create(bundle: &TestBundle, globals: &[&str], options: &[&str]) -> Command {
    let mut command = bundle.runtime();
    command
        .args(globals)
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .args(options)
        .arg(bundle.id());
    command
}

#[test]
fn a_log_in_a_missing_directory_is_an_error() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let _container = bundle.container();
    let output = run_command(&mut create(
        &bundle,
        &["--log", "/no/such/directory/log"],
        &[],
    ));
    let line = output.one_line_failure();
    assert!(
        line.contains("--log") && line.contains("no such file or directory"),
        "{output}"
    );
    bundle.assert_nothing_left();
}

/// A full disk beneath the log must not keep a container from being made and deleted.
#[test]
fn a_full_log_is_a_warning_and_the_result_stays() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.container();
    run_command(&mut create(&bundle, &["--log", "/dev/full"], &[])).success();
    let output = bundle.call(&["--log", "/dev/full", "start", "nobody"]);
    assert_eq!(output.code(), 1);
    for words in ["does not exist", "/dev/full", "no space left on device"] {
        assert!(
            output.stderr.to_lowercase().contains(words),
            "{words}: {output}"
        );
    }
    bundle
        .call(&["--log", "/dev/full", "delete", "--force", container.id()])
        .success();
    bundle.assert_nothing_left();
}

#[test]
fn a_full_stderr_changes_no_result() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("open"));
    let mut command = bundle.runtime();
    let status = command
        .args(["state", "nobody"])
        .stderr(full())
        .status()
        .expect("spawn");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_full_stdout_is_an_error() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let full = File::options().write(true).open("/dev/full").expect("open");
    let status = container
        .command("state", &[])
        .stdout(full)
        .status()
        .expect("spawn");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_config_that_is_no_file_is_an_error_at_once() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::new();
    let other = bundle.scratch().join("other");
    fs::create_dir(&other).expect("mkdir");
    nix::unistd::mkfifo(&other.join("config.json"), Mode::from_bits_truncate(0o644))
        .expect("mkfifo");
    let path = other.to_str().expect("a path");
    let output = bundle.call(&["create", "--bundle", path, bundle.id()]);
    assert!(
        output.one_line_failure().contains("not a regular file"),
        "{output}"
    );
    fs::remove_file(other.join("config.json")).expect("remove");
    fs::create_dir(other.join("config.json")).expect("mkdir");
    let output = bundle.call(&["create", "--bundle", path, bundle.id()]);
    assert!(
        output.one_line_failure().contains("config.json"),
        "{output}"
    );
    fs::remove_dir(other.join("config.json")).expect("remove");
    fs::write(other.join("config.json"), b"{\"ociVersion\": \"\xff\"}").expect("write");
    let output = bundle.call(&["create", "--bundle", path, bundle.id()]);
    assert!(
        output.one_line_failure().contains("config.json"),
        "{output}"
    );
    // Sparse: longer than any configuration.
    File::create(other.join("config.json"))
        .and_then(|file| file.set_len(1 << 30))
        .expect("write");
    let output = bundle.call(&["create", "--bundle", path, bundle.id()]);
    assert!(
        output.one_line_failure().contains("longer than"),
        "{output}"
    );
    bundle.assert_nothing_left();
}

#[test]
fn a_pid_file_that_cannot_be_written_leaves_nothing() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let _container = bundle.container();
    for path in ["/no/such/directory/pid", "/proc/pid"] {
        run_command(&mut create(&bundle, &[], &["--pid-file", path])).one_line_failure();
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_console_socket_that_is_none_is_an_error() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper().set("/process/terminal", true.into());
    let _container = bundle.container();
    let file = bundle.scratch().join("plain");
    fs::write(&file, "").expect("write");
    let long = format!("/tmp/{}", "x".repeat(200));
    let longer = format!("/tmp/{}", "x".repeat(300));
    for path in [file.to_str().expect("a path"), "/", &long, &longer] {
        run_command(&mut create(&bundle, &[], &["--console-socket", path])).one_line_failure();
        bundle.assert_nothing_left();
    }
}
