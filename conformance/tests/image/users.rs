//! The user of an image's config: numbers, and names of the image's own files.
//!
//! Spec: image-spec conversion.md#process-user, config.md#properties (User).

use std::fs;

use conformance::images::{Entry, ImageBuilder, Layer};
use serde_json::{Value, json};

use super::bundle::Bundles;

#[test]
fn users_are_numbers_or_names_of_the_image() {
    let mut bundles = Bundles::new();
    let table: [(&str, u32, u32, &[u32]); 8] = [
        ("", 0, 0, &[]),
        ("root", 0, 0, &[]),
        ("1000", 1000, 0, &[]),
        ("1000:2000", 1000, 2000, &[]),
        ("4294967294:4294967294", 4_294_967_294, 4_294_967_294, &[]),
        ("web", 33, 44, &[55, 66]),
        ("web:log", 33, 55, &[]),
        ("7:log", 7, 55, &[]),
    ];
    for (user, uid, gid, more) in table {
        let config = bundles.config(json!({"Cmd": ["x"], "User": user}), &[]);
        let got = &config["process"]["user"];
        assert_eq!(
            (&got["uid"], &got["gid"]),
            (&json!(uid), &json!(gid)),
            "{user}: {got}"
        );
        let mut gids: Vec<u64> = got["additionalGids"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        gids.retain(|own| *own != u64::from(gid));
        gids.sort_unstable();
        assert_eq!(
            gids,
            more.iter().map(|gid| u64::from(*gid)).collect::<Vec<_>>(),
            "{user}: {got}"
        );
    }
}

#[test]
fn users_that_are_none_are_errors_and_never_root() {
    let mut bundles = Bundles::new();
    for user in [
        "nobody-here",
        "web:no-group",
        "4294967296",
        "0:4294967296",
        "-1",
        "1000:",
        "99999999999999999999",
        "0x0",
        " 0",
    ] {
        let output = bundles.try_bundle(json!({"Cmd": ["x"], "User": user}), &[]);
        if output.code() == 0 {
            let config = bundles.read_config();
            assert!(
                user == "1000:" && config["process"]["user"]["uid"] == 1000,
                "{user:?}: {}",
                config["process"]["user"]
            );
            continue;
        }
        output.one_line_failure();
        assert!(!bundles.directory().exists(), "{user:?}: nothing is left");
    }
}

#[test]
fn passwd_is_read_inside_the_root_and_only_as_a_regular_file() {
    let mut bundles = Bundles::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("passwd"), "host:x:777:777::/:/bin/sh\n").unwrap();
    let target = outside.path().join("passwd").to_str().unwrap().to_owned();
    let config = json!({"Cmd": ["x"], "User": "host"});
    for entry in [
        Entry::symlink("etc/passwd", target),
        Entry::fifo("etc/passwd"),
        Entry::char_device("etc/passwd", 1, 5),
    ] {
        let layer = Layer::of([Entry::dir("."), Entry::dir("etc"), entry]);
        let reference = bundles.pull(
            &ImageBuilder::new()
                .config(config.clone())
                .layer(&layer.finish())
                .build(),
        );
        let id = bundles.id();
        bundles
            .store
            .run(&["bundle", &reference, "--name", &id])
            .one_line_failure();
    }
}
