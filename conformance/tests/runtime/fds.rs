//! Descriptors: what the caller has open stays outside, but for what
//! `--preserve-fds` names.

use std::process::Command;

use conformance::host::is_root;
use conformance::{TestBundle, needs, run_command};

/// The runtime, run by a shell that has opened descriptors first.
fn with_descriptors(bundle: &TestBundle, redirections: &str, options: &[&str]) -> Command {
    bundle.write_config();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("exec \"$@\" {redirections}"), "sh"])
        .arg(&conformance::runtime().program)
        .arg("--root")
        .arg(bundle.state_root())
        .arg("run")
        .args(options)
        .arg("--bundle")
        .arg(bundle.path())
        .arg(bundle.id());
    command
}

const LIST: &str = "cd /proc/self/fd; for f in *; do [ -e /proc/1/fd/$f ] && echo $f; done; true";

#[test]
fn the_process_has_only_stdin_stdout_and_stderr() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(LIST);
    assert_eq!(bundle.run_ok(), "0\n1\n2\n");
}

#[test]
fn descriptors_that_the_caller_leaks_are_not_inherited() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(LIST);
    let mut command =
        with_descriptors(&bundle, "3</etc/passwd 4</ 5</proc 7>/dev/null 9</etc", &[]);
    assert_eq!(run_command(&mut command).success(), "0\n1\n2\n");
}

#[test]
fn descriptors_named_by_preserve_fds_are_inherited() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(&format!("cat <&3; {LIST}"));
    let file = bundle.scratch().join("file");
    std::fs::write(&file, "preserved\n").expect("write");
    let redirections = format!("3<{} 4</dev/null 5</dev/null", file.display());
    let mut command = with_descriptors(&bundle, &redirections, &["--preserve-fds", "2"]);
    assert_eq!(
        run_command(&mut command).success(),
        "preserved\n0\n1\n2\n3\n4\n"
    );
}

#[test]
fn descriptors_that_are_not_there_cannot_be_preserved() {
    needs!(is_root(), "needs root");
    conformance::peer_differs!(Runc | Crun, "they do not look");
    let bundle = TestBundle::new();
    bundle
        .container()
        .run(&["--preserve-fds", "3"])
        .one_line_failure();
    bundle.assert_nothing_left();
}

/// While it waits for `start`, too, the init has nothing of the host that the
/// process could come by.
#[test]
fn a_created_process_holds_no_directory_of_the_host() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let pid = container.pid();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("read")
        .flatten()
    {
        let target = std::fs::read_link(entry.path()).expect("readlink");
        let metadata = std::fs::metadata(entry.path());
        let is_directory = metadata.is_ok_and(|metadata| metadata.is_dir());
        let name = target.to_string_lossy();
        // The state directory, for the fifo that `start` opens, was the one way out
        // of CVE-2024-21626 that closing at execve does not close.
        assert!(!is_directory || name == "/", "{name}");
    }
}
