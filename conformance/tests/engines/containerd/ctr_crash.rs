//! What is left of containers when containerd or its shim go away, and many
//! containers at once.

use std::time::Duration;

use conformance::{leftovers, run_command, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Containerd, needs_containerd, remove_socket};

#[test]
fn a_container_outlives_its_containerd() {
    needs_containerd!();
    let mut containerd = Containerd::start();
    let id = containerd.detach(
        &[],
        &["/bin/sh", "-c", "trap 'exit 6' TERM; sleep 1000 & wait"],
    );
    let before = containerd.status(&id);
    containerd.restart();
    assert_eq!(containerd.status(&id), before);
    containerd.exec(&[&id, "/bin/true"]).success();
    run_command(&mut containerd.task("pause", &[&id])).success();
    containerd.restart();
    assert!(containerd.is(&id, "PAUSED"), "{}", containerd.log());
    run_command(&mut containerd.task("resume", &[&id])).success();
    containerd.signal(&id, "SIGTERM");
    assert_eq!(containerd.remove(&id), 6);
}

#[test]
fn a_killed_shim_takes_its_container_along() {
    needs_containerd!();
    let containerd = Containerd::start();
    let id = containerd.detach(&[], &["/bin/sleep", "1000"]);
    let (pid, _) = containerd.status(&id).expect("a task");
    let shims = containerd.shims(&id);
    assert_eq!(shims.len(), 1, "{shims:?}");
    kill(shims[0], Signal::SIGKILL).expect("kill the shim");
    // containerd runs `delete --force` in its place.
    containerd.assert_gone(&id);
    let ended = wait_until(Duration::from_secs(10), || is_over(Pid::from_raw(pid)));
    remove_socket(&containerd.shim_socket(&id));
    assert!(ended, "{pid} should have ended");
    assert_eq!(containerd.status(&id), None);
    run_command(containerd.ctr().args(["containers", "rm", &id])).success();
}

/// Whether a process is gone or only waits to be reaped by whoever got it.
fn is_over(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn many_containers_run_at_once() {
    needs_containerd!();
    const MANY: usize = 16;
    let containerd = Containerd::start();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MANY)
            .map(|_| scope.spawn(|| containerd.detach(&[], &["/bin/sleep", "1000"])))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|id| id.expect("a container")).collect()
    });
    let running = || {
        let output = run_command(&mut containerd.task("ls", &[]));
        output.success().matches("RUNNING").count()
    };
    assert_eq!(running(), MANY, "{}", containerd.log());
    std::thread::scope(|scope| {
        for (number, id) in ids.iter().enumerate() {
            let containerd = &containerd;
            scope.spawn(move || {
                let script = format!("exit {number}");
                let output = containerd.exec(&[id, "/bin/sh", "-c", &script]);
                assert_eq!(
                    output.code(),
                    i32::try_from(number).expect("small"),
                    "{output}"
                );
                containerd.kill_and_remove(id);
            });
        }
    });
    assert_eq!(running(), 0);
    let left = leftovers::cgroups(&containerd.cgroup);
    let processes = leftovers::processes(&left);
    assert!(processes.is_empty(), "{processes:?}");
}
