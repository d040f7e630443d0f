//! The command line and the surroundings that commands are started in: what is typed wrongly, a
//! root that is no directory or may not be read, an output that takes nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::{Command, Stdio};

use conformance::{HostileRegistry, Output, StoreRoot, run_command};
use serde_json::json;

use super::{small_image, state};

/// What works on a store that need not be there yet.
const READERS: [&[&str]; 9] = [
    &["ls"],
    &["df"],
    &["fsck"],
    &["prune"],
    &["mount"],
    &["rm", "x"],
    &["inspect", "x"],
    &["unbundle", "x"],
    &["bundle", "x", "--name", "y"],
];

#[track_caller]
fn assert_not_taken_for_empty(mut run: impl FnMut(&[&str]) -> Output, errno: &str) {
    for args in READERS {
        let output = run(args);
        assert_eq!(output.code(), 1, "{args:?}: {output}");
        let text = output.one_line_failure();
        assert!(
            text.contains("open store") && text.contains(errno),
            "{args:?}: {output}"
        );
    }
}

#[test]
fn a_root_that_is_no_directory_is_no_empty_store() {
    let store = StoreRoot::new().unwrap();
    let (file, circle) = (store.beside("file"), store.beside("circle"));
    fs::write(&file, "").unwrap();
    symlink(&circle, &circle).unwrap();
    for (root, errno) in [(file, "ENOTDIR"), (circle, "ELOOP")] {
        let root = root.to_str().unwrap();
        let run = |args: &[&str]| {
            let program = store.command(args).get_program().to_owned();
            run_command(Command::new(program).args(["--root", root]).args(args))
        };
        assert_not_taken_for_empty(run, errno);
    }
}

/// Root without any capability is as good as an ordinary user.
#[test]
fn a_store_that_may_not_be_read_is_no_empty_store() {
    let store = StoreRoot::new().unwrap();
    let root = store.path();
    fs::create_dir_all(&root).unwrap();
    chown(&root, Some(64_999), Some(64_999)).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
    let run = |args: &[&str]| {
        let inner = store.command(args);
        let mut command = Command::new("setpriv");
        command
            .args(["--inh-caps", "-all", "--bounding-set", "-all"])
            .arg(inner.get_program())
            .args(inner.get_args());
        run_command(&mut command)
    };
    assert_not_taken_for_empty(run, "EACCES");
}

#[test]
fn an_output_that_is_full_is_a_failure_with_its_cause() {
    let store = StoreRoot::new().unwrap();
    for (args, status) in [
        (&["ls"][..], 5),
        (&["df", "--format", "json"], 5),
        (&["--help"], 1),
        (&["pull", "--help"], 1),
        (&["--version"], 1),
    ] {
        let mut command = store.command(args);
        command.stdout(File::create("/dev/full").unwrap());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let cause = "write to standard output: no space left on device (ENOSPC)";
        assert!(text.contains(cause), "{args:?}: {text}");
    }
}

#[test]
fn what_is_typed_wrongly_is_said_with_what_to_type() {
    let store = StoreRoot::new().unwrap();
    for (args, expected) in [
        (&["pull", "docker://a.io/b"][..], "leave \"docker://\" out"),
        (&["pull", "https://a.io/b"], "leave \"https://\" out"),
        (&["tags", "a.io/b:c"], "without a tag or a digest"),
        (&["ls", "--qiet"], "'--quiet'"),
        (&["rm", "-x", "a"], "usage: gocker-image rm"),
        (
            &["bundle", "a", "b", "--stop-signal", "SIGNONE"],
            "there is no signal \"SIGNONE\"",
        ),
        (
            &["bundle", "a", "b", "--pids-limit", "-1"],
            "-1 is not in 1..",
        ),
        (&["bundle", "a", "b", "-m", "-1"], "write a number of bytes"),
    ] {
        let output = store.run(args);
        assert_eq!(output.code(), 2, "{args:?}: {output}");
        assert!(output.stderr.contains(expected), "{args:?}: {output}");
        assert!(!output.stderr.contains("as a value"), "{args:?}: {output}");
    }
}

#[test]
fn a_digest_alone_is_asked_of_no_registry() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let reference = server.serve(&small_image("one"), "one", "latest");
    store.run(&["pull", "-q", &reference]).success();
    let digest = small_image("two").manifest.digest;
    let output = store.run(&["pull", &digest]);
    let expected = format!("NAME@{digest}");
    assert!(output.one_line_failure().contains(&expected), "{output}");
}

#[test]
fn names_alone_and_what_is_json_anyway_are_json_when_it_is_asked_for() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let reference = server.serve(&small_image("one"), "one", "latest");
    store.run(&["pull", "-q", &reference]).success();
    let names = store.run(&["ls", "-q", "--format", "json"]).json();
    assert_eq!(names, json!([reference]));
    let asked = store.run(&["inspect", "--format", "json", &reference]);
    assert_eq!(asked.json(), store.run(&["inspect", &reference]).json());
}

#[test]
fn a_bundle_in_a_directory_without_a_utf_8_name_is_refused_and_not_begun() {
    let mut bundles = super::bundle::Bundles::new();
    let reference = bundles.pull(&small_image("one"));
    let before = state(&bundles.store);
    let directory = bundles.store.beside("x").join(OsStr::from_bytes(b"\xff"));
    let mut command = bundles.store.command(&["bundle", &reference]);
    let output = run_command(command.arg(&directory));
    assert!(output.one_line_failure().contains("not UTF-8"), "{output}");
    assert!(!directory.exists());
    assert_eq!(state(&bundles.store), before);
}

/// Those of some years ago take no later one.
#[test]
fn a_bundle_names_a_version_that_all_runtimes_take() {
    let mut bundles = super::bundle::Bundles::new();
    let config = bundles.config(json!({"Cmd": ["x"]}), &[]);
    assert_eq!(config["ociVersion"], "1.0.2");
}
