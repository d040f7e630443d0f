//! Which devices the process may open: config-linux.md#allowed-device-list.

use conformance::host::{CgroupLayout, cgroup_layout, is_root};
use conformance::{TestBundle, gocker_only, needs};
use serde_json::{Value, json};

/// A script with the kernel's log at /dev/klog, and these rules.
fn with_log(script: &str, rules: &Value) -> TestBundle {
    TestBundle::shell(script)
        .set("/linux/resources/devices", rules.clone())
        .set(
            "/linux/devices",
            json!([{"path": "/dev/klog", "type": "c", "major": 1, "minor": 11,
                "fileMode": 0o666, "uid": 0, "gid": 0}]),
        )
}

/// config-linux.md#allowed-device-list
#[test]
fn device_rules_let_through_what_they_allow_and_nothing_else() {
    needs!(is_root(), "needs root");
    let deny_all = json!({"allow": false, "access": "rwm"});
    let rule = |allow: bool, access: &str, minor: Value| json!({"allow": allow, "type": "c", "major": 1, "minor": minor, "access": access});
    for (rules, opens) in [
        (json!([deny_all]), false),
        (json!([deny_all, rule(true, "rwm", json!(11))]), true),
        (json!([deny_all, rule(true, "w", json!(11))]), true),
        (json!([deny_all, rule(true, "r", json!(11))]), false),
        (json!([deny_all, rule(true, "rwm", json!(12))]), false),
        (
            json!([deny_all, {"allow": true, "type": "c", "major": 1, "access": "rw"}]),
            true,
        ),
        (
            json!([deny_all, {"allow": true, "type": "b", "major": 1, "minor": 11, "access": "rw"}]),
            false,
        ),
        (json!([rule(true, "rwm", json!(11)), deny_all]), false),
        (
            json!([
                deny_all,
                rule(true, "rwm", json!(11)),
                rule(false, "w", json!(11))
            ]),
            false,
        ),
    ] {
        // Opening the kernel's log for writing asks nothing but the device cgroup.
        let bundle = with_log(
            ": > /dev/klog; echo x > /dev/null && head -c 1 /dev/zero",
            &rules,
        );
        let output = bundle.run();
        let refused = output.stderr.contains("Operation not permitted");
        assert_eq!(refused, !opens, "{rules}: {output}");
        if opens {
            assert_eq!(
                output.success(),
                "\0",
                "the default devices stay open: {output}"
            );
        }
    }
}

/// A v1 cgroup keeps a default and exceptions to it, and no exceptions to these; but what takes all
/// devices of a kind can be the default.
#[test]
fn a_hole_in_a_wider_rule_is_kept_or_refused_by_the_field() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let deny_all = json!({"allow": false, "access": "rwm"});
    let all_of_kind = json!({"allow": true, "type": "c", "access": "rw"});
    let all_of_major = json!({"allow": true, "type": "c", "major": 1, "access": "rw"});
    for (minor, opens) in [(1, true), (11, false)] {
        let hole = json!({"allow": false, "type": "c", "major": 1, "minor": minor, "access": "rw"});
        for (wider, is_kept) in [
            (&all_of_kind, true),
            (&all_of_major, cgroup_layout() == CgroupLayout::V2),
        ] {
            let rules = json!([deny_all, wider, hole]);
            let bundle = with_log(": > /dev/klog && echo open", &rules);
            let output = bundle.run();
            if is_kept {
                assert_eq!(output.stdout == "open\n", opens, "{rules}: {output}");
            } else {
                let line = output.one_line_failure();
                assert!(line.contains("linux.resources.devices[2]: "), "{line}");
                bundle.assert_nothing_left();
            }
        }
    }
}

#[test]
fn the_default_devices_are_open_under_a_rule_that_denies_all() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "echo x > /dev/null; for d in zero full random urandom; do head -c 1 /dev/$d | wc -c; done
         : < /dev/ptmx && echo ptmx",
    );
    assert_eq!(bundle.run_ok(), "1\n1\n1\n1\nptmx\n");
}
