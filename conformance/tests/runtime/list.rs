//! `list`, as table, as JSON and as ids.

use std::fs;

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs};
use serde_json::{Value, json};

#[test]
fn list_shows_containers_as_table_json_and_ids() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let table = bundle.call(&["list"]);
    let lines: Vec<&str> = table.success().lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    for heading in ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"] {
        assert!(lines[0].contains(heading), "{table}");
    }
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    let pid = container.pid().to_string();
    assert_eq!(words[..3], [bundle.id(), &pid, "created"], "{table}");
    assert_eq!(words[3], bundle.path().to_str().expect("a path"));

    let output = bundle.call(&["list", "--format", "json"]);
    let all: Value = serde_json::from_str(output.success()).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{output}");
    assert_eq!(all[0]["id"], bundle.id());
    assert_eq!(all[0]["status"], "created");
    assert_eq!(all[0]["pid"], json!(container.pid()));
    assert_eq!(all[0]["bundle"], json!(bundle.path()));

    for option in ["--quiet", "-q"] {
        assert_eq!(
            bundle.call(&["list", option]).success().trim_end(),
            bundle.id()
        );
    }
}

#[test]
fn list_of_no_containers_is_null_in_json() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it prints an empty array");
    let bundle = TestBundle::new();
    fs::create_dir(bundle.state_root()).expect("make the state root");
    assert_eq!(
        bundle
            .call(&["list", "--format", "json"])
            .success()
            .trim_end(),
        "null"
    );
    assert_eq!(bundle.call(&["list", "--quiet"]).success(), "");
    assert_eq!(bundle.call(&["list"]).success().lines().count(), 1);
}

#[test]
fn list_of_a_state_root_that_is_not_there_is_no_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it prints an empty array");
    let bundle = TestBundle::new();
    assert_eq!(
        bundle
            .call(&["list", "--format", "json"])
            .success()
            .trim_end(),
        "null"
    );
}
