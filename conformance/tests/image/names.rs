//! `tag` and `history`: the names of an image, and the steps by which it was made.

use conformance::images::{self, ImageBuilder};
use conformance::{HostileRegistry, StoreRoot};
use serde_json::json;

use super::small_image;

#[test]
fn a_new_name_is_as_good_as_the_old_one() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let image = small_image("one");
    let reference = server.serve(&image, "image", "latest");
    store.run(&["pull", &reference]).success();
    store
        .run(&["tag", &reference, "mine/one:2", "localhost/two"])
        .success();
    store.run(&["rm", &reference]).success();
    store.run(&["prune"]).success();
    let rows = store.run(&["ls", "--format", "json"]).json();
    let names: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["reference"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["docker.io/mine/one:2", "localhost/two:latest"]);
    // by its digest too
    store
        .run(&["tag", &image.manifest.digest, "three"])
        .success();
    assert!(store.bundle("three", "b").join("rootfs/name").exists());
}

#[test]
fn a_name_is_taken_from_the_image_that_had_it() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let (one, two) = (small_image("one"), small_image("two"));
    let first = server.serve(&one, "one", "latest");
    let second = server.serve(&two, "two", "latest");
    for reference in [&first, &second] {
        store.run(&["pull", reference]).success();
        store.run(&["tag", reference, "name"]).success();
    }
    let answer = store.run(&["inspect", "name"]).json();
    assert_eq!(answer["manifest"], two.manifest.digest.as_str());
    let missing = store.run(&["tag", "not/here", "x"]);
    assert!(
        missing.one_line_failure().contains("is not here"),
        "{missing}"
    );
    let digest = format!("x@{}", one.manifest.digest);
    let output = store.run(&["tag", "--format", "json", &first, "before", &digest]);
    assert!(output.one_line_failure().contains("digest"), "{output}");
    let told: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let before = "docker.io/library/before:latest";
    let expected = json!([{"reference": before, "manifest": one.manifest.digest}]);
    assert_eq!(told, expected, "the name before the one that failed");
}

#[test]
fn the_history_has_the_layer_of_each_step() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let steps = json!([
        {"created": "2020-01-01T00:00:00Z", "created_by": "ADD base", "comment": "the base"},
        {"created": "2020-01-02T00:00:00Z", "created_by": "ENV a=b", "empty_layer": true},
        {"created": "2020-01-03T00:00:00Z", "created_by": "RUN something"},
    ]);
    let image = ImageBuilder::new()
        .top_level("history", steps)
        .layer(&images::filler_layer("base", 2, 1000))
        .layer(&images::filler_layer("upper", 1, 500))
        .build();
    let reference = server.serve(&image, "image", "latest");
    store.run(&["pull", &reference]).success();
    let rows = store
        .run(&["history", "--format", "json", &reference])
        .json();
    let expected = [
        ("RUN something", json!(image.layers[1].digest), 500),
        ("ENV a=b", json!(null), 0),
        ("ADD base", json!(image.layers[0].digest), 2000),
    ];
    assert_eq!(rows.as_array().unwrap().len(), expected.len());
    for (row, (command, blob, bytes)) in rows.as_array().unwrap().iter().zip(expected) {
        assert_eq!(row["created_by"], command);
        assert_eq!(row["blob"], blob, "{command}");
        assert_eq!(row["empty_layer"], row["diff_id"].is_null(), "{command}");
        assert_eq!(row["content_bytes"], bytes, "{command}");
    }
    let table = store.run(&["history", &reference]);
    let lines: Vec<_> = table.success().lines().collect();
    assert!(lines[0].starts_with("CREATED"), "{table}");
    assert!(
        lines[3].contains("years ago") && lines[3].contains("ADD base"),
        "{table}"
    );
    assert!(
        lines[3].contains("1.9 KiB") && lines[3].ends_with("the base"),
        "{table}"
    );
}
