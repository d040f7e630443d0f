//! Fields that gocker-runc does not serve yet are refused by name: a container
//! never runs less confined, or otherwise, than its config says.
//!
//! A field that comes to be served leaves this table for a suite of its own.

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs};
use serde_json::{Value, json};

/// The field's place, a valid value, and the words that the refusal must have.
fn unserved() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}),
            "linux.seccomp",
        ),
        (
            "/linux/intelRdt",
            json!({"closID": "conformance"}),
            "linux.intelRdt",
        ),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 5}}),
            "linux.timeOffsets",
        ),
        (
            "/linux/personality",
            json!({"domain": "LINUX32"}),
            "linux.personality",
        ),
        (
            "/linux/mountLabel",
            json!("system_u:object_r:x:s0"),
            "linux.mountLabel",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0"}),
            "linux.memoryPolicy",
        ),
        (
            "/linux/netDevices",
            json!({"eth0": {"name": "eth1"}}),
            "linux.netDevices",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH"}),
            "process.scheduler",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 4}),
            "process.ioPriority",
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "0"}),
            "process.execCPUAffinity",
        ),
        (
            "/process/apparmorProfile",
            json!("conformance"),
            "process.apparmorProfile",
        ),
        (
            "/process/selinuxLabel",
            json!("system_u:system_r:x:s0"),
            "process.selinuxLabel",
        ),
        ("/domainname", json!("example.org"), "domainname"),
        (
            "/hooks",
            json!({"poststop": [{"path": "/bin/true"}]}),
            "hooks",
        ),
        ("/vm", json!({"kernel": {"path": "/vmlinuz"}}), "vm"),
        ("/solaris", json!({"limitpriv": "default"}), "solaris"),
        ("/windows", json!({"layerFolders": ["x"]}), "windows"),
        (
            "/linux/resources/blockIO",
            json!({"weight": 100}),
            "linux.resources.blockIO",
        ),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 2_097_152}]),
            "linux.resources.hugepageLimits",
        ),
        (
            "/linux/resources/network",
            json!({"classID": 5}),
            "linux.resources.network",
        ),
        (
            "/linux/resources/rdma",
            json!({"mlx5_1": {"hcaHandles": 3}}),
            "linux.resources.rdma",
        ),
    ]
}

#[test]
fn a_field_that_is_not_served_is_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let mut wrong = Vec::new();
    for (pointer, value, words) in unserved() {
        let bundle = TestBundle::new().set(pointer, value);
        let output = bundle.run();
        if output.code() == 0 || !output.one_line_failure().contains(words) {
            wrong.push(format!("{words}: {output}"));
        }
        bundle.assert_nothing_left();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_time_namespace_is_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::new().namespace("time", Some(json!({"type": "time"})));
    let output = bundle.run();
    assert!(output.one_line_failure().contains("time"), "{output}");
    bundle.assert_nothing_left();
}

#[test]
fn id_mapped_mounts_are_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    for entry in [
        json!({"destination": "/data", "type": "bind", "source": "/", "options": ["bind"],
            "uidMappings": map, "gidMappings": map}),
        json!({"destination": "/data", "type": "bind", "source": "/", "options": ["bind", "idmap"]}),
    ] {
        let bundle = TestBundle::new().mount(entry);
        let output = bundle.run();
        let line = output.one_line_failure();
        assert!(
            line.contains("uidMappings") || line.contains("idmap"),
            "{output}"
        );
        bundle.assert_nothing_left();
    }
}

/// config.md#extensibility: unknown properties must be ignored.
#[test]
fn a_property_of_no_specification_is_ignored() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("echo ok")
        .set("/org.example.extension", json!({"a": 1}))
        .set("/process/org.example", json!(true))
        .set("/linux/org.example", json!("x"));
    assert_eq!(bundle.run_ok(), "ok\n");
}
