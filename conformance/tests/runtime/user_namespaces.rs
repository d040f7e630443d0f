//! User namespaces that are joined, alone and beside others, and mappings that contradict.

use std::fs;

use conformance::host::is_root;
use conformance::{Container, TestBundle, gocker_only, needs, run_command};
use nix::sys::prctl::set_child_subreaper;
use serde_json::{Value, json};

/// A bundle that joins these namespaces of a container, and has no mappings.
fn joining(bundle: TestBundle, first: &Container<'_>, kinds: &[&str]) -> TestBundle {
    let bundle = bundle.edit(|config| {
        let linux = config["linux"].as_object_mut().expect("linux");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        config
            .as_object_mut()
            .expect("an object")
            .remove("hostname");
    });
    kinds.iter().fold(bundle, |bundle, kind| {
        bundle.namespace(kind, Some(first.joined(kind)))
    })
}

const COMBINATIONS: &[&[&str]] = &[
    &["user"],
    &["user", "network"],
    &["user", "network", "ipc", "uts"],
    &["user", "pid"],
];

/// Starts a container in each combination, and a further process in it.
fn join_in_all_combinations(make: fn() -> TestBundle) {
    // Nobody else would collect a container's process, and its PID namespace would not end.
    set_child_subreaper(true).expect("become a subreaper");
    let first = make();
    let pod = first.running();
    for kinds in COMBINATIONS {
        let second = joining(make(), &pod, kinds);
        let container = second.running();
        for kind in ["user", "network", "ipc", "pid", "mount"] {
            let is_joined = kinds.contains(&kind);
            let is_same = container.namespace(kind) == pod.namespace(kind);
            assert_eq!(is_same, is_joined, "{kind} of {kinds:?}");
        }
        let script = "id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/net";
        let output = run_command(
            container
                .command("exec", &[])
                .args(["/bin/sh", "-c", script]),
        );
        let expected = format!(
            "0\n{}\n{}\n",
            pod.namespace("user"),
            container.namespace("network")
        );
        assert_eq!(output.success(), expected, "{kinds:?}");
        let pid = container.pid();
        container.kill("KILL").success();
        assert_eq!(container.wait_exit(pid), 137);
        container.delete(&["--force"]).success();
    }
    let pid = pod.pid();
    pod.kill("KILL").success();
    assert_eq!(pod.wait_exit(pid), 137);
}

#[test]
fn a_user_namespace_is_joined_beside_joined_and_new_ones() {
    needs!(is_root(), "needs root");
    conformance::peer_differs!(Runc, "Debian's wants mappings of what is joined");
    join_in_all_combinations(|| TestBundle::sleeper().user_namespace());
}

#[test]
fn an_ordinary_user_joins_its_own_user_namespace_beside_others() {
    needs!(is_root(), "needs root");
    conformance::peer_differs!(Runc | Crun, "they want mappings of an ordinary user");
    join_in_all_combinations(|| TestBundle::sleeper().of_ordinary_user());
}

/// containerd and CRI-O give both.
#[test]
fn mappings_may_repeat_those_of_the_user_namespace_that_is_joined() {
    needs!(is_root(), "needs root");
    let first = TestBundle::sleeper().user_namespace();
    let pod = first.running();
    let by_process = format!("/proc/{}/ns/user", pod.pid());
    let elsewhere = first.scratch().join("user");
    fs::write(&elsewhere, "").expect("write");
    run_command(
        std::process::Command::new("mount")
            .args(["--bind", &by_process])
            .arg(&elsewhere),
    )
    .success();
    for path in [json!(by_process), json!(elsewhere)] {
        let second = TestBundle::shell("readlink /proc/self/ns/user")
            .user_namespace()
            .namespace("user", Some(json!({"type": "user", "path": path})));
        assert_eq!(second.run_ok().trim(), pod.namespace("user"), "{path}");
    }
    nix::mount::umount(&elsewhere).expect("umount");
}

#[test]
fn mappings_that_are_not_those_of_the_user_namespace_that_is_joined_are_refused() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let first = TestBundle::sleeper().user_namespace();
    let pod = first.running();
    let path = format!("/proc/{}/ns/user", pod.pid());
    for field in ["uidMappings", "gidMappings"] {
        let second = TestBundle::shell("echo ran")
            .user_namespace()
            .namespace("user", Some(json!({"type": "user", "path": path})))
            .set(&format!("/linux/{field}/0/size"), json!(10));
        let output = second.run();
        let named = format!("linux.{field}");
        assert!(output.one_line_failure().contains(&named), "{output}");
        second.assert_nothing_left();
    }
}

#[test]
fn mappings_that_contradict_each_other_are_refused_before_anything_is_made() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let one = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    let cases: &[(&str, Value, &str)] = &[
        ("uidMappings", json!([]), "linux.uidMappings"),
        ("gidMappings", json!([]), "linux.gidMappings"),
        (
            "uidMappings",
            json!([one(0, 1000, 0)]),
            "linux.uidMappings[0]",
        ),
        (
            "uidMappings",
            json!([one(1, 1000, 10)]),
            "linux.uidMappings: does not map user 0",
        ),
        (
            "gidMappings",
            json!([one(5, 1000, 10)]),
            "linux.gidMappings: does not map group 0",
        ),
        (
            "gidMappings",
            json!([one(0, 1000, 10), one(9, 5000, 1)]),
            "linux.gidMappings[1]",
        ),
        (
            "uidMappings",
            json!([one(0, 1000, 10), one(10, 1009, 1)]),
            "linux.uidMappings[1]",
        ),
    ];
    for (field, value, named) in cases {
        let bundle = TestBundle::shell("echo ran")
            .user_namespace()
            .set(&format!("/linux/{field}"), value.clone());
        let output = bundle.run();
        assert!(
            output.one_line_failure().contains(named),
            "{value}: {output}"
        );
        bundle.assert_nothing_left();
    }
}
