//! Signals that a runtime in the foreground gets: those that it hands on, and those that are its
//! own affair.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::command::process_id;
use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs, run_command, wait_until};
use nix::sys::signal::{Signal, kill};

use super::terminal::run;

/// runc hands on every signal but those that are about the runtime itself.
#[test]
fn every_signal_that_is_not_the_runtimes_own_is_handed_on() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they keep some for themselves");
    let named = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        Signal::SIGALRM,
        Signal::SIGTERM,
        Signal::SIGCONT,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPWR,
    ];
    let real_time = [34, 35, 64];
    let numbers: Vec<String> = named
        .into_iter()
        .map(|signal| signal as i32)
        .chain(real_time)
        .map(|number| number.to_string())
        .collect();
    let traps: String = numbers
        .iter()
        .map(|number| format!("trap 'echo {number} >> /got' {number}; "))
        .collect();
    let bundle = TestBundle::shell(&format!("{traps} : > /ready; while :; do sleep 0.05; done"));
    let container = bundle.container();
    let mut child = spawn_alone(run(&bundle));
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(wait_until(Duration::from_secs(10), ready));
    let got = || fs::read_to_string(bundle.rootfs().join("got")).unwrap_or_default();
    let mut missing = Vec::new();
    for number in &numbers {
        run_command(Command::new("/bin/kill").args(["-s", number, &child.id().to_string()]))
            .success();
        let came = || got().lines().any(|line| line == number);
        if !wait_until(Duration::from_secs(5), came) {
            missing.push(number);
        }
    }
    container.kill("KILL").success();
    child.wait().expect("wait");
    assert!(missing.is_empty(), "{missing:?} of {numbers:?}");
}

/// Starts a command in a process group of its own, without input.
fn spawn_alone(mut command: Command) -> Child {
    command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("spawn")
}

#[test]
fn a_signal_that_is_the_runtimes_own_affair_is_not_handed_on() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "older ones hand them on");
    let bundle = TestBundle::shell(
        "for s in CHLD URG; do trap \"echo $s >> /got\" $s; done; trap 'exit 0' TERM; : > /ready;
         n=0; while :; do n=$((n+1)); done",
    );
    let container = bundle.container();
    let mut child = spawn_alone(run(&bundle));
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(wait_until(Duration::from_secs(10), ready));
    let pid = process_id(child.id());
    for signal in [Signal::SIGCHLD, Signal::SIGURG, Signal::SIGTERM] {
        kill(pid, signal).expect("kill");
    }
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    drop(container);
    assert!(!bundle.rootfs().join("got").exists());
}

/// A subreaper that reaps nothing fills the container's pids limit with zombies.
#[test]
fn orphans_of_a_container_without_a_pid_namespace_are_collected() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it collects none");
    let bundle = TestBundle::shell(
        "for i in 1 2 3 4 5; do (sleep 0.01 &); done; sleep 0.2; touch /ready; exec sleep 1000",
    )
    .namespace("pid", None);
    let container = bundle.container();
    let mut child = spawn_alone(run(&bundle));
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(wait_until(Duration::from_secs(10), ready));
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let at_most_one =
        || fs::read_to_string(&children).is_ok_and(|text| text.split_whitespace().count() <= 1);
    let collected = wait_until(Duration::from_secs(5), at_most_one);
    container.kill("KILL").success();
    child.wait().expect("wait");
    assert!(collected, "no zombies should stay");
}
