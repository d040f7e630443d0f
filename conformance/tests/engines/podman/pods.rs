//! Pods: containers that share namespaces, a cgroup and their fate.

use std::time::Duration;

use conformance::binaries::installed;
use conformance::host::is_root;
use conformance::{leftovers, needs, run_command, wait_until};

use super::{Podman, SLEEPER, is_here};

#[test]
fn podman_runs_pauses_and_removes_a_pod() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    needs!(
        installed("catatonit").is_some(),
        "needs the Debian package catatonit"
    );
    let podman = Podman::new();
    make_pod(&podman);
    let in_b = |script: &str| podman.call(&["exec", "b", "sh", "-c", script]).stdout;
    assert_eq!(in_b("hostname"), "pod\n");
    let answered = || in_b("wget -qO- http://127.0.0.1/index.html") == "answered\n";
    assert!(wait_until(Duration::from_secs(10), answered));
    let processes = in_b("ps");
    assert!(processes.contains("catatonit -P"), "{processes}");
    assert!(processes.contains("httpd -f"), "{processes}");
    let namespaces = "for n in ipc pid uts net; do readlink /proc/self/ns/$n; done";
    let in_a = podman.ok(&["exec", "a", "sh", "-c", namespaces]);
    assert_eq!(in_b(namespaces).trim_end(), in_a);
    let mounts = podman.ok(&["exec", "a", "readlink", "/proc/self/ns/mnt"]);
    assert_ne!(in_b("readlink /proc/self/ns/mnt").trim_end(), mounts);

    let status = || podman.ok(&["pod", "ps", "--format", "{{.Status}}"]);
    podman.ok(&["pod", "pause", "p"]);
    assert_eq!(status(), "Paused");
    podman.ok(&["pod", "unpause", "p"]);
    assert_eq!(status(), "Running");
    let stats = podman.ok(&[
        "pod",
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.PIDS}}",
        "p",
    ]);
    assert!(stats.lines().any(|line| line == "b 2"), "{stats}");
    podman.ok(&["pod", "stop", "--time", "5", "p"]);
    assert_eq!(status(), "Exited");
    podman.ok(&["pod", "start", "p"]);
    assert_eq!(status(), "Running");
    assert_eq!(in_b("hostname"), "pod\n");
    podman.ok(&["pod", "kill", "p"]);
    podman.ok(&["pod", "rm", "--force", "p"]);
    assert_eq!(podman.ok(&["pod", "ps", "--quiet"]), "");
    // Podman itself leaves the pod's own in hierarchies that it does not know.
    leftovers::remove_cgroups(podman.cgroup());
    podman.assert_nothing_left();
}

/// A pod of catatonit, a server and a sleeper.
#[track_caller]
fn make_pod(podman: &Podman) {
    let create = [
        "pod",
        "create",
        "--name",
        "p",
        "--share",
        "net,ipc,uts,pid",
        "--hostname",
        "pod",
    ];
    let options = ["--network", "none", "--cgroup-parent", podman.cgroup()];
    podman.ok(&[create.as_slice(), &options].concat());
    let server = "echo answered > /tmp/index.html; exec httpd -f -p 127.0.0.1:80 -h /tmp";
    for (name, args) in [("a", ["sh", "-c", server].as_slice()), ("b", SLEEPER)] {
        let options = ["--detach", "--pod", "p", "--name", name];
        let mut command = podman.command(&["run"]);
        command.args(options).arg(super::IMAGE).args(args);
        run_command(&mut command).success();
    }
}
