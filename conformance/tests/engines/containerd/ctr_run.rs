//! `ctr run`: exit statuses, limits, a terminal, and the way to the end.

use std::fs;
use std::time::Duration;

use conformance::host::{CgroupLayout, cgroup_directory, cgroup_layout};
use conformance::test_bundle::unique_id;
use conformance::wait_until;

use super::super::run_on_a_terminal;
use super::{Containerd, needs_containerd};

#[test]
fn ctr_runs_a_container_of_a_local_image() {
    needs_containerd!();
    let containerd = Containerd::start();
    let output = containerd.run(&[], &["/bin/echo", "hello from the container"]);
    assert_eq!(
        output.success(),
        "hello from the container\n",
        "{}",
        containerd.log()
    );
    let output = containerd.run(&[], &["/bin/sh", "-c", "exit 42"]);
    assert_eq!(output.code(), 42, "{output}");
    let output = containerd.run(
        &[],
        &["/bin/sh", "-c", "id -u; hostname; ls /proc/1/fd | wc -l"],
    );
    assert!(output.success().starts_with("0\n"), "{output}");
    let output = containerd.run(&[], &["nosuchprogram"]);
    assert!(
        output
            .failure()
            .contains("executable file not found in $PATH"),
        "{output}"
    );
}

#[test]
fn ctr_limits_a_container() {
    needs_containerd!();
    let containerd = Containerd::start();
    let (file, quota) = match cgroup_layout() {
        CgroupLayout::V1 => ("memory.limit_in_bytes", ("cpu.cfs_quota_us", "50000\n")),
        CgroupLayout::V2 => ("memory.max", ("cpu.max", "50000 100000\n")),
    };
    let options = ["--memory-limit", "67108864", "--cpus", "0.5"];
    let id = containerd.detach(&options, &["/bin/sleep", "1000"]);
    let cgroup = format!("{}/{id}", containerd.cgroup);
    for (controller, file, expected) in [("memory", file, "67108864\n"), ("cpu", quota.0, quota.1)]
    {
        let directory = cgroup_directory(controller, &cgroup).expect("the controller");
        assert_eq!(
            fs::read_to_string(directory.join(file)).expect("read"),
            expected
        );
    }
    containerd.kill_and_remove(&id);
}

#[test]
fn ctr_gives_a_container_a_terminal() {
    needs_containerd!();
    let containerd = Containerd::start();
    let id = unique_id();
    let script = "tty; test -t 0 && test -t 1 && echo both; exit 3";
    let mut command = containerd.run_command(&["--rm", "--tty"], &id, &["/bin/sh", "-c", script]);
    let (code, text) = run_on_a_terminal(&mut command);
    assert_eq!((code, text.as_str()), (3, "/dev/pts/0\nboth\n"));
    containerd.assert_gone(&id);
}

#[test]
fn ctr_signals_a_container() {
    needs_containerd!();
    let containerd = Containerd::start();
    let script = "trap 'exit 21' TERM; trap 'touch /usr1' USR1; touch /ready; \
                  while :; do sleep 0.05; done";
    let id = containerd.detach(&[], &["/bin/sh", "-c", script]);
    let there = |file: &str| {
        wait_until(Duration::from_secs(10), || {
            containerd.exec(&[&id, "/bin/test", "-e", file]).code() == 0
        })
    };
    assert!(there("/ready"), "{}", containerd.log());
    containerd.signal(&id, "SIGUSR1");
    assert!(there("/usr1"), "a trapped signal does not end it");
    assert!(containerd.is(&id, "RUNNING"));
    // The default is SIGTERM.
    containerd.signal(&id, "15");
    assert_eq!(containerd.remove(&id), 21);
    let gone = conformance::run_command(&mut containerd.task("kill", &[&id]));
    assert!(gone.failure().contains("not found"), "{gone}");
}
