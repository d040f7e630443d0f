//! What lies in the state directory is not what the runtime has written: one clear error, and
//! `delete --force` still clears away what can be known.

use std::fs;
use std::time::Duration;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, run_command, wait_until};

use super::lifecycle::alive;

fn file(bundle: &TestBundle) -> std::path::PathBuf {
    bundle.state_root().join(bundle.id()).join("state.json")
}

/// Every command that reads the state.
const COMMANDS: &[&[&str]] = &[
    &["state"],
    &["start"],
    &["kill"],
    &["pause"],
    &["resume"],
    &["ps"],
    &["events", "--stats"],
    &["update", "--pids-limit", "5"],
    &["delete"],
];

#[track_caller]
fn every_command_says_why(bundle: &TestBundle) {
    let container = bundle.container();
    for command in COMMANDS {
        let output = run_command(&mut container.command(command[0], &command[1..]));
        let line = output.one_line_failure();
        assert!(line.contains("state.json"), "{output}");
    }
    let mut exec = container.command("exec", &[]);
    let output = run_command(exec.arg("true"));
    assert!(output.one_line_failure().contains("state.json"), "{output}");
    // One that is damaged does not hide the others.
    bundle.call(&["list"]).success();
    // What the guard would delete by itself is the test's to delete.
    std::mem::forget(container);
}

/// A write that was cut short keeps what is needed to clear away.
#[test]
fn a_state_that_was_cut_short_is_told_and_the_container_can_be_deleted() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    for part in [2, 3] {
        let container = bundle.running();
        let pid = container.pid();
        let text = fs::read(file(&bundle)).expect("read");
        fs::write(file(&bundle), &text[..text.len() * part / 4]).expect("write");
        every_command_says_why(&bundle);
        container.delete(&["--force"]).success();
        assert!(wait_until(Duration::from_secs(5), || !alive(pid)));
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_state_that_is_empty_or_garbage_is_told_and_can_be_deleted() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for text in [&b""[..], b"garbage", b"\xff\xfe\x00", b"{}", b"[]", b"null"] {
        let bundle = TestBundle::sleeper();
        let container = bundle.created();
        let saved = fs::read(file(&bundle)).expect("read");
        let pid = container.pid();
        fs::write(file(&bundle), text).expect("write");
        every_command_says_why(&bundle);
        // The process is not known any more, and that is said.
        let output = container.delete(&["--force"]);
        output.success();
        assert!(output.stderr.contains("may be left"), "{output}");
        assert!(!bundle.state_root().join(bundle.id()).exists());
        // So that nothing is left of the test, it is told again.
        fs::create_dir(bundle.state_root().join(bundle.id())).expect("mkdir");
        fs::write(file(&bundle), saved).expect("write");
        container.delete(&["--force"]).success();
        assert!(wait_until(Duration::from_secs(5), || !alive(pid)));
        bundle.assert_nothing_left();
    }
}
