//! `pause` and `resume`.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use conformance::host::is_root;
use conformance::{Container, TestBundle, needs, peer_differs, run_command, wait_until};

use super::exec::exec;

/// A process that counts in a file.
fn counter() -> TestBundle {
    TestBundle::shell("n=0; while :; do n=$((n+1)); echo $n > /count; sleep 0.01; done")
}

fn counts(bundle: &TestBundle) -> bool {
    let read = || fs::read_to_string(bundle.rootfs().join("count")).unwrap_or_default();
    let before = read();
    wait_until(Duration::from_millis(500), || {
        let now = read();
        !now.is_empty() && now != before
    })
}

fn call(container: &Container<'_>, subcommand: &str) -> conformance::Output {
    run_command(&mut container.command(subcommand, &[]))
}

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() {
    needs!(is_root(), "needs root");
    let bundle = counter();
    let container = bundle.running();
    assert!(counts(&bundle));
    call(&container, "pause").success();
    assert_eq!(container.status(), "paused");
    assert!(!counts(&bundle));
    call(&container, "resume").success();
    assert_eq!(container.status(), "running");
    assert!(counts(&bundle));
}

#[test]
fn pause_and_resume_in_the_wrong_state_say_so() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has words of its own");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let says = |subcommand: &str, words: &str| {
        let output = call(&container, subcommand);
        assert!(output.one_line_failure().contains(words), "{output}");
    };
    says("resume", "container not paused");
    call(&container, "pause").success();
    says("pause", "container not running");
    call(&container, "resume").success();
    container.kill("KILL").success();
    container.wait_for("stopped");
    says("pause", "container not running");
    says("resume", "container not paused");
    let nobody = bundle.container_named("nobody");
    for subcommand in ["pause", "resume"] {
        let output = call(&nobody, subcommand);
        assert!(output.stderr.contains("does not exist"), "{output}");
    }
}

#[test]
fn a_created_container_can_be_paused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it cannot");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    call(&container, "pause").success();
    assert_eq!(container.status(), "paused");
    container.start().failure();
    call(&container, "resume").success();
    assert_eq!(container.status(), "created");
    container.start().success();
    assert_eq!(container.status(), "running");
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it stays paused");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    call(&container, "pause").success();
    container.kill("KILL").success();
    container.wait_for("stopped");
    container.delete(&[]).success();
    let container = bundle.running();
    call(&container, "pause").success();
    container.delete(&["--force"]).success();
    bundle.assert_nothing_left();
}

#[test]
fn exec_in_a_paused_container_is_an_error_unless_it_is_to_be_ignored() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it waits");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    call(&container, "pause").success();
    let output = exec(&container, &[], &["true"]);
    assert_eq!(output.code(), 255);
    let words = "cannot exec in a paused container";
    assert!(output.one_line_failure().contains(words), "{output}");
    let mut command = container.command("exec", &["--ignore-paused"]);
    command.args(["sh", "-c", "exit 5"]).stdin(Stdio::null());
    let mut child = command.spawn().expect("spawn");
    let ended = |limit, child: &mut std::process::Child| {
        wait_until(limit, || child.try_wait().expect("wait").is_some())
    };
    assert!(!ended(Duration::from_millis(300), &mut child));
    call(&container, "resume").success();
    assert!(ended(Duration::from_secs(10), &mut child));
    assert_eq!(child.wait().expect("wait").code(), Some(5));
}
