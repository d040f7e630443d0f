//! `diff`: what a container has changed.

use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use conformance::images::{self, Entry};
use conformance::test_bundle::unique_id;
use serde_json::{Value, json};

use super::bundle::Bundles;
use super::image_of;

/// A bundle of the small system in which `script` has run.
#[track_caller]
pub(super) fn container_after(bundles: &mut Bundles, script: &str) -> String {
    let reference = bundles.pull(&images::busybox().unwrap());
    let id = bundles.id();
    let args = ["bundle", &reference, "--name", &id, "--", "/bin/sh", "-ec"];
    bundles
        .store
        .run(&[&args[..], &[script]].concat())
        .success();
    let run = bundles.store.run_bundle(&bundles.directory(), &unique_id());
    run.success();
    id
}

/// A bundle of an image that has `entries`, and its root.
#[track_caller]
pub(super) fn bundle_of(bundles: &mut Bundles, entries: Vec<Entry>) -> (String, PathBuf) {
    let reference = bundles.pull(&image_of([entries]));
    let id = bundles.id();
    let args = ["bundle", &reference, "--name", &id, "--", "/bin/true"];
    bundles.store.run(&args).success();
    (id, bundles.directory().join("rootfs"))
}

#[track_caller]
fn diff_json(bundles: &Bundles, names: &[&str]) -> Value {
    let args = [&["diff", "--format", "json"], names].concat();
    bundles.store.run(&args).json()
}

/// What `diff` says of `path` in its JSON.
fn differs(diff: &Value, path: &str) -> Value {
    let rows = diff.as_array().unwrap();
    let row = rows.iter().find(|row| row["path"] == path);
    row.map_or(Value::Null, |row| row["differs"].clone())
}

#[test]
fn what_a_container_changed_is_listed_in_the_order_of_paths() {
    let mut bundles = Bundles::new();
    let id = container_after(
        &mut bundles,
        "echo new > /etc/new; echo more >> /etc/passwd; rm /etc/group; chmod 700 /root
         ln -s x /link; mkfifo /tmp/fifo; mkdir -p /a/b; rm -r /var/www; rm /bin/yes",
    );
    let expected = "A /a\nA /a/b\nC /bin\nD /bin/yes\nC /etc\nD /etc/group\nA /etc/new\n\
                    C /etc/passwd\nA /link\nC /root\nC /tmp\nA /tmp/fifo\nC /var\nD /var/www\n";
    let directory = bundles.directory();
    for name in [id.as_str(), directory.to_str().unwrap()] {
        assert_eq!(bundles.store.run(&["diff", name]).success(), expected);
    }
}

#[test]
fn a_container_that_changed_nothing_has_no_changes() {
    let mut bundles = Bundles::new();
    let id = container_after(&mut bundles, "cat /etc/passwd; ls -lR / >/dev/null");
    assert_eq!(bundles.store.run(&["diff", &id]).success(), "");
    assert_eq!(diff_json(&bundles, &[&id]), json!([]));
}

#[test]
fn every_aspect_of_a_file_is_compared() {
    let mut bundles = Bundles::new();
    let names = [
        "content", "mode", "owner", "mtime", "xattrs", "type", "same",
    ];
    let mut entries: Vec<Entry> = (names.iter())
        .map(|name| Entry::file(format!("d/{name}"), "1").mtime(1_700_000_000, 5))
        .collect();
    entries.push(Entry::symlink("d/target", "old"));
    entries.push(Entry::char_device("d/device", 1, 3));
    let (id, root) = bundle_of(&mut bundles, entries);
    let d = root.join("d");
    let keep_time = |path: &Path, change: &dyn Fn()| {
        let times = FileTimes::new().set_modified(path.metadata().unwrap().modified().unwrap());
        change();
        File::open(path).unwrap().set_times(times).unwrap();
    };
    // of the same size and time as before
    let content = d.join("content");
    keep_time(&content, &|| fs::write(&content, "2").unwrap());
    fs::set_permissions(d.join("mode"), fs::Permissions::from_mode(0o4711)).unwrap();
    lchown(d.join("owner"), Some(0), Some(7)).unwrap();
    let file = File::open(d.join("mtime")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(d.join("xattrs"), "user.x", b"1", flags).unwrap();
    fs::remove_file(d.join("type")).unwrap();
    fs::create_dir(d.join("type")).unwrap();
    fs::remove_file(d.join("target")).unwrap();
    symlink("new", d.join("target")).unwrap();
    let diff = diff_json(&bundles, &[&id]);
    for name in ["content", "mode", "owner", "mtime", "xattrs", "type"] {
        assert_eq!(
            differs(&diff, &format!("/d/{name}")),
            json!([name]),
            "{diff}"
        );
    }
    assert_eq!(
        differs(&diff, "/d/target"),
        json!(["mtime", "target"]),
        "{diff}"
    );
    for name in ["same", "device"] {
        assert_eq!(differs(&diff, &format!("/d/{name}")), Value::Null, "{diff}");
    }
}

#[test]
fn names_that_are_linked_otherwise_have_changed() {
    let mut bundles = Bundles::new();
    let entries = vec![
        Entry::file("a", "1"),
        Entry::hard_link("b", "a"),
        Entry::file("c", "2"),
        Entry::hard_link("d", "c"),
        Entry::hard_link("e", "c"),
    ];
    let (id, root) = bundle_of(&mut bundles, entries);
    // a and b are two files now, as alike as before
    let time = root.join("b").metadata().unwrap().modified().unwrap();
    fs::copy(root.join("b"), root.join("new")).unwrap();
    let copy = File::open(root.join("new")).unwrap();
    copy.set_modified(time).unwrap();
    fs::rename(root.join("new"), root.join("b")).unwrap();
    // the others of a file are as linked as before when one of its names goes
    fs::remove_file(root.join("e")).unwrap();
    let diff = diff_json(&bundles, &[&id]);
    for (path, expected) in [
        ("/a", json!(["links"])),
        ("/b", json!(["links"])),
        ("/c", Value::Null),
        ("/d", Value::Null),
    ] {
        assert_eq!(differs(&diff, path), expected, "{path}: {diff}");
    }
    assert_eq!(
        bundles.store.run(&["diff", &id]).success(),
        "C /a\nC /b\nD /e\n"
    );
}

#[test]
fn a_root_is_compared_with_any_other() {
    let mut bundles = Bundles::new();
    let (one, _) = bundle_of(
        &mut bundles,
        vec![Entry::file("a", "1"), Entry::file("b", "1")],
    );
    let (two, _) = bundle_of(
        &mut bundles,
        vec![Entry::file("a", "2"), Entry::file("c", "1")],
    );
    let upper = bundles.pull(&image_of([
        vec![Entry::file("a", "1"), Entry::file("b", "1")],
        vec![Entry::whiteout("b"), Entry::file("d", "1")],
    ]));
    for (names, expected) in [
        (vec![two.as_str(), &one], "C /a\nD /b\nA /c\n"),
        (vec![&one, &two], "C /a\nA /b\nD /c\n"),
        (vec![&one, &one], ""),
        (vec![&one, &upper], "A /b\nD /d\n"),
        // an image by itself: what its topmost layer has changed
        (vec![&upper], "D /b\nA /d\n"),
    ] {
        let args = [vec!["diff"], names].concat();
        assert_eq!(bundles.store.run(&args).success(), expected, "{args:?}");
    }
}

#[test]
fn names_that_are_no_text_do_not_reach_the_terminal_as_they_are() {
    let mut bundles = Bundles::new();
    let (id, root) = bundle_of(&mut bundles, vec![Entry::file("a", "1")]);
    let name = std::ffi::OsStr::from_bytes(b"\x1b[31m\n\xff");
    fs::write(root.join(name), "").unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    let text = bundles.store.run(&["diff", &id]).success().to_owned();
    assert_eq!(text, "A /\\u{1b}[31m\\n\\xff\nA /socket\n");
}

#[test]
fn what_is_neither_a_bundle_nor_an_image_has_no_changes() {
    let mut bundles = Bundles::new();
    let (id, _) = bundle_of(&mut bundles, vec![Entry::file("a", "1")]);
    for args in [vec!["diff", "missing"], vec!["diff", &id, "missing"]] {
        let output = bundles.store.run(&args);
        let line = output.one_line_failure();
        assert!(
            line.contains("missing") && line.contains("is not here"),
            "{line}"
        );
    }
    let line = bundles
        .store
        .run(&["diff", "/-/"])
        .one_line_failure()
        .to_owned();
    assert!(line.contains("bundle \"/-/\" does not exist"), "{line}");
}
