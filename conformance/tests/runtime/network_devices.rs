//! Network devices that are moved into the container: config-linux.md#network-devices.

use std::process::Command;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, peer_differs, run_command};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// Gives this thread, and what it starts, a network of its own with a pair of devices, `here` and
/// `there`; the first has addresses, a hardware address and an MTU of its own.
fn enter_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
    ip("link add here type veth peer name there");
    ip("link set here address 02:00:00:00:00:77 mtu 1300");
    ip("address add 10.99.0.5/24 broadcast 10.99.0.255 dev here");
    ip("address add 10.98.0.5 peer 10.98.0.6 dev here label here:two");
    ip("address add 10.97.0.5/24 dev here scope link");
    ip("address add fd00:99::5/64 dev here nodad");
    ip("address add fd00:98::5/64 dev here nodad valid_lft 5000 preferred_lft 5000");
    ip("link set here up");
    ip("link set there up");
}

#[track_caller]
fn ip(args: &str) -> String {
    let output = run_command(Command::new("ip").args(args.split(' ')));
    output.success().to_owned()
}

/// The addresses of a device, without those that the kernel makes.
fn addresses(name: &str) -> Vec<String> {
    let text = ip(&format!("-oneline address show dev {name}"));
    let lines = text.lines().filter(|line| !line.contains("fe80::"));
    let words = lines.map(|line| {
        line.split_whitespace()
            .skip(2)
            .collect::<Vec<_>>()
            .join(" ")
    });
    words.collect()
}

fn with_devices(bundle: TestBundle, devices: Value) -> TestBundle {
    bundle.set("/linux/netDevices", devices)
}

const SHOW: &str =
    "cat /sys/class/net/inside/address /sys/class/net/inside/mtu; ip addr show inside";

fn assert_arrived(output: &str) {
    assert!(output.starts_with("02:00:00:00:00:77\n1300\n"), "{output}");
    for expected in [
        "UP",
        "inet 10.99.0.5/24 brd 10.99.0.255 scope global inside",
        "inet 10.98.0.5 peer 10.98.0.6/32 scope global inside:two",
        "inet6 fd00:99::5/64 scope global",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
    for left in ["10.97.0.5", "fd00:98::5"] {
        assert!(
            !output.contains(left),
            "{left} means something there only: {output}"
        );
    }
}

#[test]
fn a_device_is_moved_with_its_lasting_addresses_and_renamed() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    enter_network();
    let devices = json!({"here": {"name": "inside"}});
    let output = with_devices(TestBundle::shell(SHOW), devices.clone()).run_ok();
    assert_arrived(&output);
    // It was a virtual one, and went with the container's network namespace.
    let limit = std::time::Duration::from_secs(10);
    let gone = conformance::wait_until(limit, || !ip("-brief link").contains("there"));
    assert!(gone, "{}", ip("-brief link"));
    enter_network();
    let bundle = with_devices(TestBundle::shell(SHOW).user_namespace(), devices);
    assert_arrived(&bundle.run_ok());
}

#[test]
fn a_device_that_is_given_no_name_keeps_its_own() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    enter_network();
    let bundle = with_devices(
        TestBundle::shell("ls /sys/class/net"),
        json!({"here": {}, "there": {"name": ""}}),
    );
    assert_eq!(bundle.run_ok(), "here\nlo\nthere\n");
}

#[test]
fn a_device_is_moved_to_a_network_namespace_that_is_joined() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    enter_network();
    let first = TestBundle::sleeper();
    let pod = first.running();
    let path = format!("/proc/{}/ns/net", pod.pid());
    let joining = || {
        TestBundle::shell(SHOW).namespace("network", Some(json!({"type": "network", "path": path})))
    };
    let second = with_devices(joining(), json!({"here": {"name": "inside"}}));
    assert_arrived(&second.run_ok());
    // It stays in the pod, whose name it now has.
    let third = with_devices(joining(), json!({"there": {"name": "inside"}}));
    let output = third.run();
    let line = output.one_line_failure();
    assert!(line.contains("linux.netDevices.there: "), "{output}");
    assert!(line.contains("already"), "{output}");
    third.assert_nothing_left();
    assert!(ip("-brief link").contains("there"), "it is still here");
}

/// Three devices at once, two of which change their names with each other.
#[test]
fn several_devices_are_moved_and_may_change_names() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    enter_network();
    ip("link add more type veth peer name rest");
    ip("address add 10.96.0.5/24 dev more");
    ip("address add fd00:96::5/64 dev more nodad");
    let devices = json!({"here": {"name": "there"}, "there": {"name": "here"}, "more": {}});
    let script = "ls /sys/class/net; ip addr show there; ip addr show more";
    let output = with_devices(TestBundle::shell(script), devices).run_ok();
    assert!(output.starts_with("here\nlo\nmore\nthere\n"), "{output}");
    for expected in [
        "inet 10.99.0.5/24 brd 10.99.0.255 scope global there",
        "inet6 fd00:99::5/64 scope global",
        "inet 10.96.0.5/24 scope global more",
        "inet6 fd00:96::5/64 scope global",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
}

/// Who has made the user namespace that owns the devices.
#[test]
fn root_of_a_user_namespace_gives_devices_of_its_own_network() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    let before = "ip link add here address 02:00:00:00:00:77 mtu 1300 type veth peer name there && \
                  ip address add 10.99.0.5/24 broadcast 10.99.0.255 dev here && \
                  ip address add 10.98.0.5 peer 10.98.0.6 dev here label here:two && \
                  ip address add fd00:99::5/64 dev here nodad";
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let further = |bundle: TestBundle| {
        bundle
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map.clone())
    };
    let same = |bundle: TestBundle| {
        bundle.namespace("user", None).edit(|config| {
            let linux = config["linux"].as_object_mut().expect("linux");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        })
    };
    let bundle = || TestBundle::shell(SHOW).of_ordinary_user();
    for bundle in [further(bundle()), same(bundle())] {
        let bundle = with_devices(bundle, json!({"here": {"name": "inside"}}));
        let output = bundle.run_as_nested_root(&["--net"], before);
        assert_arrived(output.success());
        bundle.assert_nothing_left();
    }
}

#[test]
fn who_does_not_own_the_devices_cannot_give_them() {
    needs!(is_root(), "needs root");
    gocker_only!();
    enter_network();
    let bundle = TestBundle::shell("echo ran").of_ordinary_user();
    let bundle = with_devices(bundle, json!({"here": {}}));
    let why = "linux.netDevices.here: only root of the user namespace that owns its network";
    bundle.assert_refused(&[why]);
    // "Root", of another network's user namespace.
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let bundle = bundle
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let output = bundle.run_as_nested_root(&[], "true");
    assert!(output.one_line_failure().contains(why), "{output}");
    bundle.assert_nothing_left();
    assert!(ip("-brief link").contains("here"), "it is still here");
}

#[test]
fn a_device_that_another_container_has_is_not_there() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    enter_network();
    let first = with_devices(TestBundle::sleeper(), json!({"here": {}}));
    let _running = first.running();
    let second = with_devices(TestBundle::shell("echo ran"), json!({"here": {}}));
    second.assert_refused(&["linux.netDevices.here: no such network device"]);
}

/// The kernel's parameters of a device are there once it is.
#[test]
fn sysctl_reaches_a_device_that_was_moved() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    enter_network();
    let bundle = TestBundle::shell("cat /proc/sys/net/ipv4/conf/inside/forwarding")
        .set("/linux/sysctl/net.ipv4.conf.inside.forwarding", json!("1"));
    let bundle = with_devices(bundle, json!({"here": {"name": "inside"}}));
    assert_eq!(bundle.run_ok(), "1\n");
}

#[test]
fn a_failed_creation_gives_the_devices_back() {
    needs!(is_root(), "needs root");
    gocker_only!();
    enter_network();
    let before = addresses("here");
    let failures = [
        TestBundle::new().args(&["/no/such/program"]),
        with_devices(TestBundle::new(), json!({"there": {"name": "lo"}})),
        TestBundle::new().set("/hooks/createRuntime", json!([{"path": "/bin/false"}])),
    ];
    for bundle in failures {
        let bundle = bundle.set("/linux/netDevices/here", json!({"name": "inside"}));
        bundle.run().one_line_failure();
        bundle.assert_nothing_left();
        let kept: Vec<_> = before
            .iter()
            .filter(|line| !line.contains("10.97.0.5") && !line.contains("fd00:98::5"))
            .cloned()
            .collect();
        assert_eq!(addresses("here"), kept);
        let link = ip("link show here");
        assert!(link.contains(",UP"), "{link}");
        assert!(link.contains("mtu 1300"), "{link}");
    }
}

#[test]
fn devices_that_cannot_be_moved_are_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    enter_network();
    let own = std::fs::read_link("/proc/thread-self").expect("a thread");
    let own = format!("/proc/{}/ns/net", own.display());
    let cases: &[(Value, Option<Value>, &str)] = &[
        (
            json!({"nosuch": {}}),
            Some(json!({"type": "network"})),
            "linux.netDevices.nosuch: no such",
        ),
        (
            json!({"lo": {}}),
            Some(json!({"type": "network"})),
            "linux.netDevices.lo: ",
        ),
        (
            json!({"here": {"name": "a/b"}}),
            Some(json!({"type": "network"})),
            "linux.netDevices.here.name: ",
        ),
        (
            json!({"here": {"name": "lo"}}),
            Some(json!({"type": "network"})),
            "linux.netDevices.here: ",
        ),
        (json!({"here": {}}), None, "linux.netDevices: "),
        (
            json!({"here": {}}),
            Some(json!({"type": "network", "path": own})),
            "linux.netDevices: ",
        ),
    ];
    for (devices, namespace, expected) in cases {
        let bundle = TestBundle::new().namespace("network", namespace.clone());
        let bundle = with_devices(bundle, devices.clone());
        let output = bundle.run();
        let line = output.one_line_failure();
        assert!(line.contains(expected), "{devices}: {output}");
        bundle.assert_nothing_left();
        assert!(ip("-brief link").contains("here"), "{devices}");
    }
}
