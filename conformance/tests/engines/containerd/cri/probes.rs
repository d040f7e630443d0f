//! ExecSync, which the kubelet's probes run every second.

use std::time::{Duration, Instant};

use conformance::wait_until;

use super::super::needs_containerd;
use super::Cri;

/// gRPC's DEADLINE_EXCEEDED.
const DEADLINE_EXCEEDED: i32 = 4;

#[test]
fn a_probe_answers_with_its_output_and_status() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let container = pod.start(pod.sleeper());
    let script = "echo out; echo err >&2; exit 9";
    assert_eq!(
        container.exec(&["/bin/sh", "-c", script]),
        (9, "out\n".to_owned(), "err\n".to_owned())
    );
    let (code, _, _) = container.exec(&["/bin/sh", "-c", "kill -TERM $$; sleep 9"]);
    assert_eq!(code, 143);
    let large = container.sh("yes 0123456789 | head -c 300000");
    assert_eq!(large.len(), 300_000);
    let status = container
        .try_exec(&["nosuchprogram"], 10)
        .expect_err("no such program");
    assert!(
        status
            .message
            .contains("executable file not found in $PATH"),
        "{status:?}"
    );
    container.stop(5);
    let status = container.try_exec(&["/bin/true"], 10).expect_err("stopped");
    assert!(status.message.contains("EXITED"), "{status:?}");
    pod.remove();
}

#[test]
fn a_probe_that_takes_too_long_is_ended() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let container = pod.start(pod.sleeper());
    let begin = Instant::now();
    let status = container
        .try_exec(&["/bin/sleep", "777"], 1)
        .expect_err("too long");
    assert_eq!(status.code, DEADLINE_EXCEEDED, "{status:?}");
    assert!(begin.elapsed() < Duration::from_secs(15));
    let ended = || !container.sh("ps").contains("sleep 777");
    assert!(
        wait_until(Duration::from_secs(10), ended),
        "it should be killed"
    );
    assert_eq!(container.sh("echo unharmed"), "unharmed\n");
    pod.remove();
}

#[test]
fn dozens_of_probes_one_after_another_and_at_once() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let containers = [pod.start(pod.sleeper()), pod.start(pod.sleeper())];
    for number in 0..40 {
        let script = format!("echo {number}; exit {}", number % 3);
        let (code, text, _) = containers[0].exec(&["/bin/sh", "-c", &script]);
        assert_eq!((code, text), (number % 3, format!("{number}\n")));
    }
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let container = &containers[thread % 2];
            scope.spawn(move || {
                for number in 0..5 {
                    let word = format!("{thread}-{number}\n");
                    assert_eq!(container.sh(&format!("echo {thread}-{number}")), word);
                }
            });
        }
    });
    // The sandbox, two shells and what they wait for, under a heading; the shim has reaped
    // all others.
    for container in &containers {
        let count = || container.sh("ps -o pid,stat,args").lines().count();
        let left = wait_until(Duration::from_secs(10), || count() <= 7);
        assert!(left, "{}", container.sh("ps -o pid,stat,args"));
    }
    pod.remove();
}
