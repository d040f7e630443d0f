//! Fields that gocker-runc does not serve yet are refused by name: a container
//! never runs less confined, or otherwise, than its config says.
//!
//! A field that comes to be served leaves this table for a suite of its own.

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs};
use serde_json::json;

/// The field's place and a valid value; the refusal must name the place.
const UNSERVED: &[(&str, &str)] = &[
    ("/process/apparmorProfile", r#""conformance""#),
    ("/process/selinuxLabel", r#""system_u:system_r:x:s0""#),
    ("/vm", r#"{"kernel": {"path": "/vmlinuz"}}"#),
    ("/solaris", r#"{"limitpriv": "default"}"#),
    ("/windows", r#"{"layerFolders": ["x"]}"#),
];

#[test]
fn a_field_that_is_not_served_is_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let mut wrong = Vec::new();
    for (pointer, value) in UNSERVED {
        let words = pointer.trim_start_matches('/').replace('/', ".");
        let value = serde_json::from_str(value).expect("JSON");
        let bundle = TestBundle::new().set(pointer, value);
        let output = bundle.run();
        if output.code() == 0 || !output.one_line_failure().contains(&words) {
            wrong.push(format!("{words}: {output}"));
        }
        bundle.assert_nothing_left();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

/// linux.intelRdt: a machine without resctrl cannot keep what the field promises.
#[test]
fn a_share_of_the_cache_without_resctrl_is_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts");
    needs!(!mounts.contains(" resctrl "), "resctrl is mounted here");
    let bundle = TestBundle::new().set("/linux/intelRdt", json!({"l3CacheSchema": "L3:0=f"}));
    let output = bundle.run();
    let line = output.one_line_failure();
    assert!(line.contains("linux.intelRdt: no resctrl"), "{output}");
    bundle.assert_nothing_left();
}
