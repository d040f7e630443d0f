//! What an ordinary user cannot have is refused, by name, and leaves nothing behind.

use std::path::Path;

use conformance::host::is_root;
use conformance::ordinary_user::{ID, grant_subordinate_ids};
use conformance::{TestBundle, gocker_only, needs, run_command};
use serde_json::{Value, json};

fn shell() -> TestBundle {
    TestBundle::shell("echo ran").of_ordinary_user()
}

#[test]
fn a_limit_without_a_right_to_cgroups_is_refused() {
    needs!(is_root(), "needs root");
    for (field, value) in [
        ("memory/limit", json!(50_000_000)),
        ("pids/limit", json!(50)),
        ("cpu/shares", json!(100)),
    ] {
        let bundle = shell().set(&format!("/linux/resources/{field}"), value);
        let named = format!("linux.resources.{}", field.replace('/', "."));
        conformance::peer_differs!(Crun, "without a cgroup it ignores limits");
        bundle.assert_refused(&[&named, "/sys/fs/cgroup"]);
    }
}

#[test]
fn a_place_for_the_cgroup_that_the_user_may_not_make_is_refused() {
    needs!(is_root(), "needs root");
    conformance::peer_differs!(Crun, "it does without");
    let path = format!("/conformance-{}", conformance::test_bundle::unique_id());
    shell()
        .set("/linux/cgroupsPath", json!(path))
        .assert_refused(&[&path, "(EACCES)"]);
}

#[test]
fn with_rootless_false_a_cgroup_must_be_made() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = shell();
    let call = |rootless: &str| {
        let mut command = bundle.runtime();
        command.args(["--rootless", rootless, "run", "--bundle"]);
        run_command(command.arg(bundle.path()).arg(bundle.id()))
    };
    let output = call("false");
    assert!(output.one_line_failure().contains("(EACCES)"), "{output}");
    assert_eq!(call("true").success(), "ran\n");
    assert_eq!(call("auto").success(), "ran\n");
}

#[test]
fn an_ordinary_user_needs_a_user_namespace() {
    needs!(is_root(), "needs root");
    conformance::peer_differs!(Crun, "it makes one that nobody asked for");
    let bundle = shell().namespace("user", None).edit(|config| {
        let linux = config["linux"].as_object_mut().expect("linux");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    });
    bundle.assert_refused(&["linux.namespaces", "user namespace"]);
}

#[test]
fn mappings_that_the_user_may_not_make_are_refused() {
    needs!(is_root(), "needs root");
    needs!(
        Path::new("/usr/bin/newuidmap").exists(),
        "needs the Debian package uidmap"
    );
    grant_subordinate_ids();
    let map = json!([{"containerID": 0, "hostID": 5, "size": 1}]);
    let own = json!([{"containerID": 0, "hostID": ID, "size": 1}]);
    let users = shell().set("/linux/uidMappings", map.clone());
    users.assert_refused(&["linux.uidMappings[0]", "/etc/subuid"]);
    let groups = shell().set("/linux/gidMappings", map);
    groups.assert_refused(&["linux.gidMappings[0]", "/etc/subgid"]);
    let too_many = shell().set(
        "/linux/uidMappings",
        json!([own[0], {"containerID": 1, "hostID": conformance::ordinary_user::SUBORDINATE, "size": 65_537}]),
    );
    too_many.assert_refused(&["linux.uidMappings[1]", "/etc/subuid"]);
}

#[test]
fn without_newuidmap_only_the_own_id_can_be_mapped() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = shell().with_subordinate_ids();
    let mut command = bundle.runtime();
    command
        .env("PATH", "/nonexistent")
        .args(["run", "--bundle"]);
    let output = run_command(command.arg(bundle.path()).arg(bundle.id()));
    let line = output.one_line_failure();
    for word in ["linux.uidMappings", "newuidmap", "uidmap"] {
        assert!(line.contains(word), "{output}");
    }
    bundle.assert_nothing_left();
}

#[test]
fn users_and_groups_without_a_meaning_inside_are_refused() {
    needs!(is_root(), "needs root");
    for (user, field) in [
        (json!({"uid": 1000, "gid": 0}), "process.user.uid"),
        (json!({"uid": 0, "gid": 1000}), "process.user.gid"),
        (
            json!({"uid": 0, "gid": 0, "additionalGids": [0]}),
            "process.user.additionalGids[0]",
        ),
        (
            json!({"uid": 0, "gid": 0, "additionalGids": [7]}),
            "process.user.additionalGids[0]",
        ),
    ] {
        if field.contains("additional") {
            conformance::peer_differs!(Crun, "it ignores additional groups");
        }
        shell().set("/process/user", user).assert_refused(&[field]);
    }
}

#[test]
fn options_that_name_unmapped_ids_are_refused() {
    needs!(is_root(), "needs root");
    let tmpfs = |option: &str| {
        let mount =
            json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": [option]});
        shell().mount(mount)
    };
    tmpfs("gid=5").assert_refused(&["mounts[7].options[0]", "gid=5"]);
    tmpfs("uid=1000").assert_refused(&["mounts[7].options[0]", "uid=1000"]);
}

/// A filesystem belongs to the user namespace of what it shows.
#[test]
fn filesystems_of_the_hosts_namespaces_are_refused() {
    needs!(is_root(), "needs root");
    for (namespace, kind) in [("network", "sysfs"), ("ipc", "mqueue"), ("pid", "proc")] {
        conformance::peer_differs!(Crun, "it binds the host's");
        let bundle = shell().namespace(namespace, None);
        let output = bundle.run();
        assert!(!output.stdout.contains("ran"), "{kind}: {output}");
        if conformance::runtime().kind == conformance::Kind::Gocker {
            let line = output.one_line_failure();
            assert!(line.contains(kind) && line.contains("(EPERM)"), "{output}");
            assert!(output.stderr.contains("hint: "), "{output}");
        }
    }
}

#[test]
fn what_needs_a_cgroup_says_that_there_is_none() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper().of_ordinary_user();
    let container = bundle.running();
    let call =
        |command: &str, options: &[&str]| run_command(&mut container.command(command, options));
    let pid: Value = json!([container.pid()]);
    gocker_only!();
    let processes = call("ps", &["--format", "json"]);
    let processes: Value = serde_json::from_str(processes.success()).expect("is JSON");
    assert_eq!(processes, pid);
    for (command, options) in [
        ("pause", [].as_slice()),
        ("events", &["--stats"]),
        ("events", &["--interval", "1s"]),
    ] {
        let output = call(command, options);
        let line = output.one_line_failure();
        assert!(line.contains("no cgroup of its own"), "{output}");
    }
    let output = call("update", &["--memory", "50000000"]);
    let line = output.one_line_failure();
    assert!(line.contains("linux.resources.memory.limit"), "{output}");
    assert_eq!(container.status(), "running");
}

#[test]
fn without_a_runtime_directory_the_error_tells_what_to_set() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = shell();
    bundle.write_config();
    let mut command = bundle.bare_runtime();
    command
        .env_remove("XDG_RUNTIME_DIR")
        .args(["run", "--bundle"]);
    let output = run_command(command.arg(bundle.path()).arg(bundle.id()));
    assert!(
        output.one_line_failure().contains("/run/gocker-runc"),
        "{output}"
    );
    assert!(output.stderr.contains("XDG_RUNTIME_DIR"), "{output}");
}
