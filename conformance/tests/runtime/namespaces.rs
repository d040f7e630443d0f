//! Namespaces, new and joined: config-linux.md#namespaces,
//! #user-namespace-mappings, config.md#hostname.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use conformance::host::{enter_private_mounts, is_root};
use conformance::namespaces::{KINDS, link_of, path_of};
use conformance::{Kind, TestBundle, gocker_only, needs, peer_differs, run_command, runtime};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

/// The kinds that every runtime knows.
const OLD_KINDS: &[&str] = &["pid", "network", "ipc", "uts", "mount", "cgroup", "user"];

#[test]
fn a_namespace_of_the_config_is_new_and_any_other_is_the_hosts() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for kind in OLD_KINDS {
        let named = !["cgroup", "user"].contains(kind);
        let own = container.namespace(kind) != link_of("thread-self", kind);
        assert_eq!(own, named, "{kind}");
    }
}

#[test]
fn without_namespaces_but_mount_everything_is_the_hosts() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper()
        .edit(|config| config["linux"]["namespaces"] = json!([{"type": "mount"}]))
        .edit(|config| {
            config
                .as_object_mut()
                .expect("an object")
                .remove("hostname");
        });
    let container = bundle.running();
    for kind in OLD_KINDS {
        let own = container.namespace(kind) != link_of("thread-self", kind);
        assert_eq!(own, *kind == "mount", "{kind}");
    }
    container.delete(&["--force"]).success();
}

#[test]
fn the_process_is_the_first_of_its_pid_namespace() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("echo $$; ls -d /proc/[0-9]* | wc -l");
    let output = bundle.run_ok();
    assert!(output.starts_with("1\n"), "{output}");
    let count: u32 = output
        .lines()
        .nth(1)
        .expect("a line")
        .parse()
        .expect("a number");
    assert!(count <= 3, "{output}");
}

/// config-linux.md#namespaces: a path is joined.
#[test]
fn a_namespace_named_by_a_path_is_joined() {
    needs!(is_root(), "needs root");
    for kind in OLD_KINDS
        .iter()
        .filter(|kind| !["mount", "user"].contains(kind))
    {
        let first = TestBundle::sleeper().namespace(kind, Some(json!({"type": kind})));
        let first_container = first.running();
        let second = TestBundle::sleeper().namespace(kind, Some(first_container.joined(kind)));
        let second = if *kind == "uts" {
            second.edit(|config| {
                config
                    .as_object_mut()
                    .expect("an object")
                    .remove("hostname");
            })
        } else {
            second
        };
        let second_container = second.running();
        assert_eq!(
            second_container.namespace(kind),
            first_container.namespace(kind),
            "{kind}"
        );
        let others = OLD_KINDS.iter().filter(|other| {
            *other != kind && ["pid", "network", "ipc", "uts", "mount"].contains(other)
        });
        for other in others {
            let own = second_container.namespace(other) != first_container.namespace(other);
            assert!(own, "{kind} is joined, {other} should be new");
        }
        second_container.delete(&["--force"]).success();
        assert_eq!(first_container.status(), "running", "{kind}");
    }
}

/// Engines keep network namespaces under names of their own, as ip-netns(8) does.
#[test]
fn a_namespace_is_known_by_what_it_is_and_not_by_its_name() {
    needs!(is_root(), "needs root");
    enter_private_mounts();
    let first = TestBundle::sleeper();
    let first_container = first.running();
    let pid = first_container.pid().to_string();
    for kind in ["network", "ipc", "pid"] {
        let file = first.scratch().join(format!("a name for {kind}"));
        fs::write(&file, "").expect("write");
        let source = path_of(&pid, kind);
        let bind = MsFlags::MS_BIND;
        mount(
            Some(source.as_str()),
            &file,
            None::<&str>,
            bind,
            None::<&str>,
        )
        .expect("bind");
        let second =
            TestBundle::sleeper().namespace(kind, Some(json!({"type": kind, "path": file})));
        let second_container = second.running();
        assert_eq!(
            second_container.namespace(kind),
            first_container.namespace(kind),
            "{kind}"
        );
        second_container.delete(&["--force"]).success();
        umount2(&file, MntFlags::MNT_DETACH).expect("unmount");
    }
}

#[test]
fn all_namespaces_of_a_container_can_be_joined_at_once() {
    needs!(is_root(), "needs root");
    let first = TestBundle::sleeper()
        .user_namespace()
        .namespace("cgroup", Some(json!({"type": "cgroup"})));
    let first_container = first.running();
    let mut second = TestBundle::sleeper().user_namespace().edit(|config| {
        config
            .as_object_mut()
            .expect("an object")
            .remove("hostname");
    });
    for kind in OLD_KINDS.iter().filter(|kind| **kind != "mount") {
        second = second.namespace(kind, Some(first_container.joined(kind)));
    }
    let second_container = second.running();
    for kind in OLD_KINDS.iter().filter(|kind| **kind != "mount") {
        assert_eq!(
            second_container.namespace(kind),
            first_container.namespace(kind),
            "{kind}"
        );
    }
    assert_ne!(
        second_container.namespace("mount"),
        first_container.namespace("mount")
    );
}

#[test]
fn joining_a_namespace_that_is_not_there_names_the_path() {
    needs!(is_root(), "needs root");
    for kind in OLD_KINDS {
        let bundle = if *kind == "user" {
            TestBundle::new().user_namespace()
        } else {
            TestBundle::new()
        };
        let path = bundle.scratch().join("no-such-namespace");
        let bundle = bundle.namespace(kind, Some(json!({"type": kind, "path": path})));
        let output = bundle.run();
        let line = output.one_line_failure();
        assert!(line.contains("no-such-namespace"), "{kind}: {output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn joining_what_is_no_namespace_or_one_of_another_kind_is_an_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "Debian's does not always name it in one line");
    for (path, gockers) in [
        ("/etc/passwd", "is not a namespace"),
        (
            "/proc/self/ns/uts",
            "is a uts namespace, not a network namespace",
        ),
    ] {
        let bundle =
            TestBundle::new().namespace("network", Some(json!({"type": "network", "path": path})));
        let output = bundle.run();
        let line = output.one_line_failure();
        let told = runtime().kind != Kind::Gocker || line.contains(gockers);
        assert!(told, "{output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_namespace_named_twice_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes the last");
    let bundle = TestBundle::new().edit(|config| {
        let all = config["linux"]["namespaces"]
            .as_array_mut()
            .expect("namespaces");
        all.push(json!({"type": "uts"}));
    });
    bundle.run().one_line_failure();
    bundle.assert_nothing_left();
}

#[test]
fn an_unknown_namespace_is_refused() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().namespace("nosuch", Some(json!({"type": "nosuch"})));
    let output = bundle.run();
    assert!(output.one_line_failure().contains("nosuch"), "{output}");
    bundle.assert_nothing_left();
}

#[test]
fn the_hostname_is_set_in_the_uts_namespace_alone() {
    needs!(is_root(), "needs root");
    let before = fs::read_to_string("/proc/sys/kernel/hostname").expect("read");
    let bundle = TestBundle::shell("hostname").set("/hostname", json!("inside.example"));
    assert_eq!(bundle.run_ok(), "inside.example\n");
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/hostname").expect("read"),
        before
    );
}

/// config.md#domainname, since version 1.1 of the specification
#[test]
fn the_domainname_is_set_in_the_uts_namespace_alone() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    let before = fs::read_to_string("/proc/sys/kernel/domainname").expect("read");
    let bundle = TestBundle::shell("cat /proc/sys/kernel/domainname")
        .set("/domainname", json!("inside.example"));
    assert_eq!(bundle.run_ok(), "inside.example\n");
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/domainname").expect("read"),
        before
    );
    let bundle = TestBundle::new()
        .edit(|config| {
            config
                .as_object_mut()
                .expect("an object")
                .remove("hostname");
        })
        .namespace("uts", None)
        .set("/domainname", json!("would-be-host"));
    assert!(bundle.run().one_line_failure().contains("domainname"));
    bundle.assert_nothing_left();
}

#[test]
fn a_hostname_without_a_uts_namespace_is_refused() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new()
        .namespace("uts", None)
        .set("/hostname", json!("would-be-host"));
    let output = bundle.run();
    assert!(output.one_line_failure().contains("hostname"), "{output}");
    bundle.assert_nothing_left();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("read");
    assert_ne!(host.trim(), "would-be-host");
}

#[test]
fn a_new_network_namespace_has_a_loopback_of_its_own_that_is_up() {
    needs!(is_root(), "needs root");
    let bundle =
        TestBundle::shell("ls /sys/class/net; cat /sys/class/net/lo/flags; ip addr show lo");
    let output = bundle.run_ok();
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("lo"), "{output}");
    let flags = lines.next().expect("flags").trim_start_matches("0x");
    let flags = u32::from_str_radix(flags, 16).expect("a number");
    assert!(flags & 1 == 1, "lo should be up: {output}");
    assert!(output.contains("127.0.0.1/8"), "{output}");
}

/// config-linux.md#user-namespace-mappings
#[test]
fn a_user_namespace_maps_the_ids() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /bin/busybox /proc/1
         touch /made; echo x > /dev/null; exec sleep 1000",
    )
    .user_namespace();
    let container = bundle.container();
    let output = container.create(&[]);
    output.success();
    let pid = container.pid();
    container.start().success();
    let done = || bundle.rootfs().join("made").exists();
    assert!(
        conformance::wait_until(std::time::Duration::from_secs(10), done),
        "{output}"
    );
    let made = fs::metadata(bundle.rootfs().join("made")).expect("stat");
    assert_eq!((made.uid(), made.gid()), (100_000, 100_000));
    let process = fs::metadata(format!("/proc/{pid}")).expect("stat");
    assert_eq!(process.uid(), 100_000);
    let words: Vec<String> = output
        .stdout_now()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let map = ["0", "100000", "65536"];
    assert_eq!(
        words[..8],
        [&["0", "0"][..], &map, &map].concat(),
        "{output}"
    );
    assert_eq!(words[8..], ["0:0", "0:0"], "{}", output.stdout_now());
}

#[test]
fn a_user_namespace_may_have_many_mappings_and_a_user_of_each() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("id -u; id -g; cat /proc/self/uid_map")
        .user_namespace()
        .set(
            "/linux/uidMappings",
            json!([
                {"containerID": 0, "hostID": 100_000, "size": 10},
                {"containerID": 1000, "hostID": 300_000, "size": 5},
            ]),
        )
        .set(
            "/process/user",
            json!({"uid": 1001, "gid": 50, "additionalGids": [60]}),
        );
    let output = bundle.run_ok();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(
        words,
        ["1001", "50", "0", "100000", "10", "1000", "300000", "5"]
    );
}

#[test]
fn the_default_devices_work_in_a_user_namespace() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T' /dev/$d; done
         echo x > /dev/null && head -c 2 /dev/zero | od -An -tx1",
    )
    .user_namespace();
    let expected = "/dev/null character special file 1:3\n\
                    /dev/zero character special file 1:5\n\
                    /dev/full character special file 1:7\n\
                    /dev/random character special file 1:8\n\
                    /dev/urandom character special file 1:9\n\
                    /dev/tty character special file 5:0\n 00 00\n";
    assert_eq!(bundle.run_ok(), expected);
}

#[test]
fn a_user_that_is_not_mapped_is_refused() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new()
        .user_namespace()
        .set("/process/user", json!({"uid": 70_000, "gid": 0}));
    bundle.run().one_line_failure();
    bundle.assert_nothing_left();
}

#[test]
fn a_new_user_namespace_without_mappings_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it maps the caller");
    let bundle = TestBundle::new().namespace("user", Some(json!({"type": "user"})));
    bundle.run().one_line_failure();
    bundle.assert_nothing_left();
}

#[test]
fn mappings_without_a_user_namespace_are_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "Debian's ignores them");
    peer_differs!(Crun, "it ignores them");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1}]);
    let bundle = TestBundle::new()
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    bundle.run().one_line_failure();
    bundle.assert_nothing_left();
}

#[test]
fn a_cgroup_namespace_begins_at_the_containers_cgroup() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /proc/self/cgroup")
        .namespace("cgroup", Some(json!({"type": "cgroup"})));
    let output = bundle.run_ok();
    assert!(!output.contains(bundle.cgroups_path()), "{output}");
    assert!(output.lines().any(|line| line.ends_with(":/")), "{output}");
}

/// features-linux.md#namespaces
#[test]
fn features_lists_the_namespaces_that_the_kernel_has() {
    gocker_only!();
    let output = run_command(Command::new(&runtime().program).arg("features"));
    let features: Value = serde_json::from_str(output.success()).expect("is JSON");
    let is_there = |kind: &str| fs::symlink_metadata(path_of("self", kind)).is_ok();
    let kinds = KINDS.iter().map(|(kind, _)| *kind);
    let expected: Vec<&str> = kinds.filter(|kind| is_there(kind)).collect();
    assert_eq!(features["linux"]["namespaces"], json!(expected));
}
