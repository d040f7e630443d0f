//! Namespaces: shared with other containers, with the host, and the user's own.

use std::fs;
use std::path::Path;

use conformance::needs;
use nix::mount::{MsFlags, mount};

use super::{Docker, WANTED, is_here};

#[test]
fn docker_shares_namespaces_between_containers() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("first", &["--ipc=shareable"], "exec sleep 1000");
    let links = |kinds: &[&str]| {
        let links = kinds
            .iter()
            .map(|kind| format!("readlink /proc/self/ns/{kind}; "));
        links.collect::<String>()
    };
    let of_first = |kinds: &[&str]| {
        let script = links(kinds);
        docker.ok(&["exec", "first", "/bin/sh", "-c", &script])
    };
    let options = [
        "--network=container:first",
        "--ipc=container:first",
        "--pid=container:first",
    ];
    let all = ["net", "ipc", "pid"];
    assert_eq!(
        docker.shell(&options, &links(&all)).trim_end(),
        of_first(&all)
    );
    // One by one, the others are its own.
    for (kind, option) in all.iter().zip(&options) {
        let told = docker.shell(&[option], &links(&all));
        let theirs = of_first(&all);
        for ((other, told), theirs) in all.iter().zip(told.lines()).zip(theirs.lines()) {
            assert_eq!(told == theirs, other == kind, "{option}: {told}");
        }
    }
    let ps = docker.shell(&["--pid=container:first"], "ps -o pid,args");
    assert!(ps.contains("1 sleep 1000"), "{ps}");
    // A container in another's PID namespace is ended without ending that one.
    docker.background(
        "second",
        &["--pid=container:first"],
        "sleep 1001 & sleep 1002",
    );
    docker.ok(&["rm", "--force", "second"]);
    assert_eq!(docker.inspect("first", ".State.Running"), "true");
    assert!(!docker.ok(&["top", "first"]).contains("sleep 100[12]"));
    docker.ok(&["rm", "--force", "first"]);
    docker.end();
}

#[test]
fn docker_shares_namespaces_with_the_host() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    for (option, kind) in [
        ("--network=host", "net"),
        ("--pid=host", "pid"),
        ("--ipc=host", "ipc"),
        ("--uts=host", "uts"),
        ("--cgroupns=host", "cgroup"),
    ] {
        // dockerd's, which this thread started.
        let host = fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("a link");
        let script = format!("readlink /proc/self/ns/{kind}");
        let told = docker.shell(&[option], &script);
        assert_eq!(Path::new(told.trim_end()), host, "{option}");
    }
    // Nothing of a container's is left running in the host's PID namespace.
    docker.background("outside", &["--pid=host"], "sleep 1001 & sleep 1002");
    docker.ok(&["kill", "outside"]);
    docker.ok(&["rm", "--force", "outside"]);
    docker.end();
}

/// Users of the container are others on the host, as `/etc/subuid` says.
#[test]
fn docker_maps_users_of_all_containers() {
    needs!(is_here(), "{WANTED}");
    conformance::host::enter_private_mounts();
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in ["/etc/subuid", "/etc/subgid"] {
        let own = directory
            .path()
            .join(Path::new(name).file_name().expect("a name"));
        fs::write(&own, "daemon:200000:65536\n").expect("write");
        // The package uidmap, or this, makes them.
        if !Path::new(name).exists() {
            fs::write(name, "").expect("write");
        }
        let none = None::<&str>;
        mount(Some(&own), name, none, MsFlags::MS_BIND, none).expect("bind");
    }
    let docker = Docker::start_with(&["--userns-remap=daemon:daemon"]);
    let script = "id -u; tr -s ' ' </proc/self/uid_map; touch /tmp/file && stat -c %u /tmp/file; \
         hostname inside && hostname";
    let options = ["--cap-add=SYS_ADMIN", "--volume=kept:/kept"];
    let told = docker.shell(&options, script);
    assert_eq!(told, "0\n 0 200000 65536\n0\ninside\n");
    docker.background(
        "mapped",
        &["--tty", "--user=web", "--memory=64m"],
        "sleep 1000",
    );
    assert_eq!(
        docker.ok(&["exec", "--user=0", "mapped", "/bin/id", "-u"]),
        "0"
    );
    let pid = docker.inspect("mapped", ".State.Pid");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read");
    assert!(
        status.contains("Uid:\t200033\t200033\t200033\t200033\n"),
        "{status}"
    );
    docker.ok(&["stop", "--time=0", "mapped"]);
    docker.ok(&["rm", "mapped"]);
    // The host's users, for one container.
    let told = docker.shell(&["--userns=host"], "tr -s ' ' </proc/self/uid_map");
    assert_eq!(told, " 0 0 4294967295\n");
    docker.end();
}
