//! Which devices the process may open: config-linux.md#allowed-device-list.

use conformance::host::is_root;
use conformance::{TestBundle, needs};
use serde_json::{Value, json};

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
        let bundle = TestBundle::shell(": > /dev/klog; echo x > /dev/null && head -c 1 /dev/zero")
            .set("/linux/resources/devices", rules.clone())
            .set(
                "/linux/devices",
                json!([{"path": "/dev/klog", "type": "c", "major": 1, "minor": 11,
                    "fileMode": 0o666, "uid": 0, "gid": 0}]),
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

#[test]
fn the_default_devices_are_open_under_a_rule_that_denies_all() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "echo x > /dev/null; for d in zero full random urandom; do head -c 1 /dev/$d | wc -c; done
         : < /dev/ptmx && echo ptmx",
    );
    assert_eq!(bundle.run_ok(), "1\n1\n1\n1\nptmx\n");
}
