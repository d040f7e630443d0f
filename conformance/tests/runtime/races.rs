//! Two callers at once on one container: one has its way, the other gets one clear error.

use std::process::{Child, Command, Stdio};

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs, run_command};

/// How often each pair is tried.
const ROUNDS: usize = 10;

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn")
}

/// Runs both at once; whether each succeeded, and what it said.
fn both(first: &mut Command, second: &mut Command) -> [(bool, String); 2] {
    let outputs = std::thread::scope(|scope| {
        let first = scope.spawn(|| run_command(first));
        let second = run_command(second);
        [first.join().expect("a thread"), second]
    });
    outputs.map(|output| {
        if output.code() != 0 {
            output.one_line_failure();
        }
        (output.code() == 0, output.stderr)
    })
}

fn successes(outcomes: &[(bool, String); 2]) -> usize {
    outcomes.iter().filter(|(succeeded, _)| *succeeded).count()
}

#[test]
fn of_two_creates_one_succeeds() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "both may fail, or in several lines");
    let bundle = TestBundle::sleeper();
    for _ in 0..ROUNDS {
        let container = bundle.container();
        let outcomes = both(
            &mut bundle.making("create", &[]),
            &mut bundle.making("create", &[]),
        );
        assert_eq!(successes(&outcomes), 1, "{outcomes:?}");
        let error = outcomes.iter().find(|(succeeded, _)| !succeeded);
        assert!(
            error.is_some_and(|(_, said)| said.contains("exist")),
            "{outcomes:?}"
        );
        assert_eq!(container.status(), "created");
    }
}

#[test]
fn of_two_starts_one_succeeds() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "both may");
    let bundle = TestBundle::shell("echo >> /started; exec sleep 1000");
    for round in 1..=ROUNDS {
        let container = bundle.created();
        let start = || bundle.command("start", &[]);
        let outcomes = both(&mut start(), &mut start());
        assert_eq!(successes(&outcomes), 1, "{outcomes:?}");
        let error = outcomes.iter().find(|(succeeded, _)| !succeeded);
        assert!(
            error.is_some_and(|(_, said)| said.contains("already running")),
            "{outcomes:?}"
        );
        let started =
            || std::fs::read_to_string(bundle.rootfs().join("started")).unwrap_or_default();
        let once = || started().lines().count() == round;
        assert!(conformance::wait_until(
            std::time::Duration::from_secs(5),
            once
        ));
        drop(container);
    }
}

#[test]
fn of_two_deletes_one_succeeds() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "both may, or none");
    let bundle = TestBundle::sleeper();
    for _ in 0..ROUNDS {
        let container = bundle.created();
        let delete = || bundle.command("delete", &[]);
        let outcomes = both(&mut delete(), &mut delete());
        assert_eq!(successes(&outcomes), 1, "{outcomes:?}");
        let error = outcomes.iter().find(|(succeeded, _)| !succeeded);
        assert!(
            error.is_some_and(|(_, said)| said.contains("does not exist")),
            "{outcomes:?}"
        );
        drop(container);
        bundle.assert_nothing_left();
    }
}

/// Whoever comes first: afterwards there is a whole container, or nothing.
#[test]
fn a_create_beside_a_delete_leaves_all_or_nothing() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they leave parts");
    let bundle = TestBundle::sleeper();
    for _ in 0..ROUNDS {
        let container = bundle.container();
        let [(_, _), (deleted, said)] = both(
            &mut bundle.making("create", &[]),
            &mut bundle.command("delete", &["--force"]),
        );
        assert!(deleted, "{said}");
        let state = container.state_output();
        if state.code() == 0 {
            container.start().success();
            container.delete(&["--force"]).success();
        } else {
            assert!(state.stderr.contains("does not exist"), "{state}");
        }
        bundle.assert_nothing_left();
    }
}

/// A delete that has waited for another must not take what was created since.
#[test]
fn deletes_and_creates_in_turn_leave_all_or_nothing() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they leave parts");
    let bundle = TestBundle::sleeper();
    for _ in 0..ROUNDS {
        let container = bundle.created();
        let mut children = vec![
            spawn(&mut bundle.command("delete", &[])),
            spawn(&mut bundle.command("delete", &[])),
            spawn(&mut bundle.making("create", &[])),
            spawn(&mut bundle.making("create", &[])),
        ];
        for child in &mut children {
            child.wait().expect("wait");
        }
        let state = container.state_output();
        assert!(
            state.code() == 0 || state.stderr.contains("does not exist"),
            "{state}"
        );
        if state.code() == 0 {
            assert_eq!(container.status(), "created");
            container.start().success();
        }
        drop(container);
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_kill_beside_a_delete_ends_it_once() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has words of its own");
    let bundle = TestBundle::sleeper();
    for _ in 0..ROUNDS {
        let container = bundle.running();
        let mut kill = bundle.command("kill", &[]);
        kill.arg("KILL");
        let [(killed, said), (deleted, why)] =
            both(&mut kill, &mut bundle.command("delete", &["--force"]));
        assert!(deleted, "{why}");
        let words = [
            "container not running",
            "does not exist",
            "process already finished",
        ];
        assert!(
            killed || words.iter().any(|word| said.contains(word)),
            "{said}"
        );
        drop(container);
        bundle.assert_nothing_left();
    }
}
