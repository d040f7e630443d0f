//! Kernel parameters and names, in namespaces of the container's own alone: config-linux.md#sysctl,
//! config.md#hostname.

use std::fs;

use conformance::host::{enter_private_mounts, is_root};
use conformance::namespaces::path_of;
use conformance::{Kind, TestBundle, gocker_only, needs, peer_differs, runtime};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// A parameter, the kind of namespace that it belongs to, and a value that it may have.
const PARAMETERS: &[(&str, &str, &str)] = &[
    ("net.ipv4.ip_forward", "network", "1"),
    ("net.ipv4.ip_unprivileged_port_start", "network", "81"),
    ("net/ipv4/conf/lo/forwarding", "network", "1"),
    ("net.core.somaxconn", "network", "99"),
    ("kernel.shmmax", "ipc", "123456"),
    ("kernel.shmall", "ipc", "1234"),
    ("kernel.shmmni", "ipc", "123"),
    ("kernel.shm_rmid_forced", "ipc", "1"),
    ("kernel.msgmax", "ipc", "4321"),
    ("kernel.msgmnb", "ipc", "4322"),
    ("kernel.msgmni", "ipc", "432"),
    ("kernel.sem", "ipc", "100\t200\t30\t40"),
    ("fs.mqueue.msg_max", "ipc", "7"),
    ("fs.mqueue.queues_max", "ipc", "77"),
    ("kernel.domainname", "uts", "inside.example"),
    ("kernel.hostname", "uts", "inside"),
];

fn file(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

fn with(bundle: TestBundle, name: &str, value: &str) -> TestBundle {
    bundle.edit(|config| {
        config
            .as_object_mut()
            .expect("an object")
            .remove("hostname");
        config["linux"]["sysctl"] = json!({name: value});
    })
}

/// All parameters at once.
fn with_all(bundle: TestBundle) -> TestBundle {
    PARAMETERS.iter().fold(bundle, |bundle, (name, _, value)| {
        bundle.edit(|config| {
            config
                .as_object_mut()
                .expect("an object")
                .remove("hostname");
            config["linux"]["sysctl"][*name] = json!(value);
        })
    })
}

fn show_all() -> TestBundle {
    let files: Vec<String> = PARAMETERS.iter().map(|(name, ..)| file(name)).collect();
    TestBundle::shell(&format!("cat {}", files.join(" ")))
}

fn all_values() -> String {
    PARAMETERS
        .iter()
        .map(|(.., value)| format!("{value}\n"))
        .collect()
}

/// What the host has.
fn hosts() -> Vec<String> {
    let read = |name| fs::read_to_string(file(name)).expect("a parameter");
    PARAMETERS.iter().map(|(name, ..)| read(name)).collect()
}

/// Gives this thread, as which the runtime is started, namespaces that may be spoilt.
fn enter_spare_namespaces() {
    enter_private_mounts();
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(flags).expect("unshare namespaces");
}

#[test]
fn every_parameter_of_a_namespace_is_set_in_a_new_one() {
    needs!(is_root(), "needs root");
    peer_differs!(
        Runc | Crun,
        "they refuse kernel.hostname or names with slashes"
    );
    let before = hosts();
    assert_eq!(with_all(show_all()).run_ok(), all_values());
    assert_eq!(hosts(), before);
}

#[test]
fn every_parameter_of_a_namespace_is_set_in_one_that_is_joined() {
    needs!(is_root(), "needs root");
    peer_differs!(
        Runc | Crun,
        "they refuse kernel.hostname or names with slashes"
    );
    let before = hosts();
    let first = TestBundle::sleeper();
    let pod = first.running();
    let joining = ["network", "ipc", "uts"]
        .iter()
        .fold(show_all(), |bundle, kind| {
            bundle.namespace(kind, Some(pod.joined(kind)))
        });
    assert_eq!(with_all(joining).run_ok(), all_values());
    assert_eq!(hosts(), before);
}

#[test]
fn a_parameter_without_its_namespace_is_refused_by_name() {
    needs!(is_root(), "needs root");
    let before = hosts();
    for (name, kind, value) in PARAMETERS {
        peer_differs!(Crun, "it has no rule for some");
        // runc knows the other way of writing, and refuses it for what it is.
        let bundle = TestBundle::new().namespace(kind, None);
        let field = format!("linux.sysctl[{name:?}]: needs a {kind} namespace");
        with(bundle, name, value).assert_refused(&[&field]);
    }
    assert_eq!(hosts(), before);
}

/// It would be the host's that is changed.
#[test]
fn a_parameter_of_a_namespace_that_is_joined_and_is_the_hosts_is_refused_by_name() {
    needs!(is_root(), "needs root");
    peer_differs!(
        Runc | Crun,
        "they look at network namespaces alone, or at none"
    );
    enter_spare_namespaces();
    let before = hosts();
    for (name, kind, value) in PARAMETERS {
        let own = json!({"type": kind, "path": path_of("self", kind)});
        let bundle = TestBundle::new().namespace(kind, Some(own));
        let field = format!("linux.sysctl[{name:?}]: needs a {kind} namespace");
        with(bundle, name, value).assert_refused(&[&field]);
    }
    assert_eq!(hosts(), before);
}

#[test]
fn a_parameter_of_no_namespace_is_refused_by_name() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has no rule for some");
    for name in [
        "kernel.panic",
        "kernel.core_pattern",
        "kernel.ns_last_pid",
        "kernel.sched_rt_runtime_us",
        "kernel.shm",
        "kernel.msg",
        "vm.swappiness",
        "fs.file-max",
        "fs.mqueue",
        "user.max_user_namespaces.x",
        "nosuch.parameter",
        "net/../kernel/panic",
        "net..ipv4",
        ".net.ipv4.ip_forward",
        "",
    ] {
        // Ours is stricter with what is no name, and both let the kernel say some.
        if runtime().kind != Kind::Gocker && name.starts_with("net") {
            continue;
        }
        let bundle = with(TestBundle::new(), name, "1");
        bundle.assert_refused(&[&format!("linux.sysctl[{name:?}]: ")]);
    }
}

#[test]
fn what_the_kernel_refuses_names_the_parameter() {
    needs!(is_root(), "needs root");
    for (name, value) in [
        ("net.ipv4.ip_forward", "maybe"),
        ("net.ipv4.nosuch", "1"),
        ("kernel.shmmni", "-5"),
        ("fs.mqueue.msg_max", "1000000000"),
    ] {
        let bundle = with(TestBundle::shell("echo ran"), name, value);
        bundle.assert_refused(&[&format!("linux.sysctl[{name:?}]: "), &file(name)[6..]]);
    }
}

/// Those of the network are root's in its user namespace; of the others, the kernel says which.
#[test]
fn parameters_of_the_network_are_set_in_a_user_namespace() {
    needs!(is_root(), "needs root");
    let name = "net.ipv4.ip_unprivileged_port_start";
    let show = || TestBundle::shell(&format!("cat {}", file(name)));
    for bundle in [show().user_namespace(), show().of_ordinary_user()] {
        assert_eq!(with(bundle, name, "81").run_ok(), "81\n");
    }
}

#[test]
fn a_parameter_that_a_user_namespace_may_not_set_is_told_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    // The network is the host's root's.
    let first = TestBundle::sleeper();
    let pod = first.running();
    let bundle = TestBundle::shell("echo ran")
        .user_namespace()
        .namespace("network", Some(pod.joined("network")))
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != "/sys");
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        });
    let name = "net.ipv4.ip_forward";
    with(bundle, name, "1").assert_refused(&[&format!("linux.sysctl[{name:?}]: "), "(E"]);
}

#[test]
fn a_hostname_and_its_parameter_contradict() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::new().set("/linux/sysctl/kernel.hostname", json!("other"));
    bundle.assert_refused(&["linux.sysctl[\"kernel.hostname\"]: contradicts hostname"]);
}

fn named(bundle: TestBundle, field: &str, name: &str) -> TestBundle {
    bundle.edit(|config| {
        let whole = config.as_object_mut().expect("an object");
        whole.remove("hostname");
        whole.insert(field.to_owned(), json!(name));
    })
}

#[test]
fn names_are_set_in_a_namespace_that_is_joined() {
    needs!(is_root(), "needs root");
    for (field, parameter) in [
        ("hostname", "kernel.hostname"),
        ("domainname", "kernel.domainname"),
    ] {
        if field == "domainname" {
            peer_differs!(Runc | Crun, "Debian's are older than the field");
        }
        let first = TestBundle::sleeper();
        let pod = first.running();
        let second = TestBundle::shell(&format!("cat {}", file(parameter)));
        let second = second.namespace("uts", Some(pod.joined("uts")));
        assert_eq!(
            named(second, field, "joined.example").run_ok(),
            "joined.example\n"
        );
    }
}

/// CRI-O's containers of pods of the host's repeat the host's name.
#[test]
fn a_name_that_would_be_the_hosts_is_refused_unless_it_is_already() {
    needs!(is_root(), "needs root");
    gocker_only!();
    enter_spare_namespaces();
    let own = || Some(json!({"type": "uts", "path": path_of("self", "uts")}));
    for field in ["hostname", "domainname"] {
        let hosts = fs::read_to_string(file(&format!("kernel.{field}"))).expect("a name");
        let bundle = || TestBundle::shell("echo ran").namespace("uts", own());
        let other = named(bundle(), field, "another.example");
        other.assert_refused(&[&format!("{field}: would change the host's")]);
        assert_eq!(named(bundle(), field, hosts.trim()).run_ok(), "ran\n");
    }
}

/// A namespace that is not the user namespace's.
#[test]
fn a_name_that_the_user_namespace_may_not_give_is_told_by_its_field() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let first = TestBundle::sleeper();
    let pod = first.running();
    let bundle = TestBundle::shell("echo ran").user_namespace();
    let bundle = bundle.namespace("uts", Some(pod.joined("uts")));
    named(bundle, "hostname", "x.example").assert_refused(&["hostname: sethostname", "(EPERM)"]);
}

const LOOPBACK: &str = "cat /sys/class/net/lo/flags";

/// Whether flags as /sys shows them have IFF_UP.
fn is_up(flags: &str) -> bool {
    let digits = flags.trim().trim_start_matches("0x");
    let flags = u32::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{flags}"));
    flags & 1 == 1
}

#[test]
fn the_loopback_of_a_new_network_namespace_is_up_whoever_owns_it() {
    needs!(is_root(), "needs root");
    let bundle = || TestBundle::shell(LOOPBACK);
    for bundle in [
        bundle(),
        bundle().user_namespace(),
        bundle().of_ordinary_user(),
    ] {
        assert!(is_up(&bundle.run_ok()));
    }
}

#[test]
fn the_loopback_of_a_network_that_is_not_new_is_left_as_it_is() {
    needs!(is_root(), "needs root");
    enter_spare_namespaces();
    let own: Value = json!({"type": "network", "path": path_of("self", "network")});
    for network in [None, Some(own)] {
        let bundle = TestBundle::shell(LOOPBACK).namespace("network", network);
        assert!(!is_up(&bundle.run_ok()));
    }
}
