//! Bad input: one clear line, a non-zero exit, and nothing left behind
//! (runtime.md#errors).

use std::fs;

use conformance::host::is_root;
use conformance::{Kind, TestBundle, gocker_only, needs, peer_differs, runtime};
use serde_json::{Value, json};

/// `run` and `create` must fail in one line that has all of these words, and
/// leave nothing.
#[track_caller]
fn refuses(bundle: &TestBundle, words: &[&str]) {
    let container = bundle.container();
    for output in [container.run(&[]), container.create(&[])] {
        let line = output.one_line_failure();
        // Which words is for ours alone to promise.
        if runtime().kind == Kind::Gocker {
            for word in words {
                assert!(line.contains(word), "should say {word:?}: {output}");
            }
            assert!(line.starts_with("gocker-runc: "), "{output}");
            assert_eq!(output.code(), 1, "{output}");
        }
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_config_that_is_not_json() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it points at the place in three lines");
    for text in [
        "",
        "{",
        "not json",
        "[]",
        "null",
        "42",
        "{\"ociVersion\": \"1.0.2\",}",
        "\u{0}",
    ] {
        // crun takes what is no object for an empty one, and says it in C's words.
        if runtime().kind != Kind::Gocker && ["null", "[]", "42"].contains(&text) {
            continue;
        }
        refuses(&TestBundle::new().raw_config(text), &["config.json"]);
    }
}

#[test]
fn something_after_the_config() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::new();
    let text = format!("{} surplus", bundle.config());
    refuses(&bundle.raw_config(&text), &["config.json"]);
}

#[test]
fn a_config_that_is_not_there() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let nowhere = bundle.scratch().join("nowhere");
    for (path, words) in [
        (nowhere.clone(), ["nowhere", "no such file or directory"]),
        (
            bundle.rootfs(),
            ["config.json", "no such file or directory"],
        ),
        (
            bundle.rootfs().join("etc/passwd"),
            ["etc/passwd", "not a directory"],
        ),
    ] {
        let path = path.to_str().expect("a path");
        let output = bundle.call(&["create", "--bundle", path, bundle.id()]);
        let line = output.one_line_failure();
        if runtime().kind == Kind::Gocker {
            assert!(
                words.iter().all(|word| line.contains(word)),
                "{words:?}: {output}"
            );
        }
        bundle.assert_nothing_left();
    }
    assert!(!nowhere.exists());
}

/// config.md: what is REQUIRED.
#[test]
fn a_config_without_a_required_part() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it leaves its state behind");
    for pointer in [
        "/process",
        "/process/args",
        "/process/cwd",
        "/root",
        "/root/path",
    ] {
        // crun and runc have defaults of their own for some.
        if runtime().kind != Kind::Gocker && pointer != "/process/args" {
            continue;
        }
        let bundle = TestBundle::new().edit(|config| {
            let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
            let parent = config.pointer_mut(parent).expect("the parent");
            parent.as_object_mut().expect("an object").remove(name);
        });
        let name = pointer.trim_start_matches('/').replace('/', ".");
        let last = name.rsplit('.').next().expect("a name").to_owned();
        refuses(&bundle, &[&last]);
    }
}

#[test]
fn empty_args() {
    needs!(is_root(), "needs root");
    refuses(&TestBundle::new().args(&[]), &["process.args"]);
    refuses(&TestBundle::new().args(&[""]), &[]);
}

#[test]
fn a_version_that_is_none_or_too_new() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for version in [
        json!("2.0.0"),
        json!("0.9.0"),
        json!("one"),
        json!(""),
        json!(1),
        Value::Null,
    ] {
        refuses(
            &TestBundle::new().set("/ociVersion", version),
            &["ociVersion"],
        );
    }
}

#[test]
fn every_version_1_is_taken() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it knows no newer one");
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0"] {
        let bundle = TestBundle::shell("echo ok").set("/ociVersion", json!(version));
        assert_eq!(bundle.run_ok(), "ok\n", "{version}");
    }
}

#[test]
fn a_value_of_a_wrong_kind_is_named() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (pointer, value, word) in [
        ("/process/args", json!("/bin/true"), "args"),
        ("/process/args", json!([1]), "args"),
        ("/process/env", json!({"A": "b"}), "env"),
        ("/process/cwd", json!(7), "cwd"),
        ("/process/terminal", json!("yes"), "terminal"),
        ("/process/user", json!("root"), "user"),
        ("/process/oomScoreAdj", json!(5000), "oomScoreAdj"),
        ("/root/readonly", json!("no"), "readonly"),
        ("/mounts", json!({}), "mounts"),
        ("/mounts/0/options", json!("ro"), "options"),
        ("/linux/maskedPaths", json!("/proc"), "maskedPaths"),
        ("/linux/namespaces", json!(["pid"]), "namespaces"),
        ("/linux/sysctl", json!([]), "sysctl"),
        ("/hostname", json!(1), "hostname"),
        ("/annotations", json!(["x"]), "annotations"),
    ] {
        refuses(
            &TestBundle::new().set(pointer, value.clone()),
            &["config.json", word],
        );
    }
}

/// A string with a NUL cannot be handed to the kernel, and must not be cut.
#[test]
fn a_nul_in_a_string() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (pointer, value) in [
        ("/process/args", json!(["/bin/true\u{0}x"])),
        ("/process/env", json!(["A=\u{0}"])),
        ("/process/cwd", json!("/tmp\u{0}x")),
        ("/hostname", json!("a\u{0}b")),
        ("/linux/maskedPaths", json!(["/tmp\u{0}"])),
        ("/linux/cgroupsPath", json!("/x\u{0}y")),
    ] {
        refuses(&TestBundle::new().set(pointer, value), &[]);
    }
}

#[test]
fn a_missing_program() {
    needs!(is_root(), "needs root");
    refuses(
        &TestBundle::new().args(&["/no/such/program"]),
        &["/no/such/program"],
    );
    refuses(
        &TestBundle::new().args(&["nosuchprogram"]),
        &["nosuchprogram", "$PATH"],
    );
}

#[test]
fn a_root_that_is_not_there() {
    needs!(is_root(), "needs root");
    refuses(
        &TestBundle::new().set("/root/path", json!("nowhere")),
        &["nowhere"],
    );
    refuses(
        &TestBundle::new().set("/root/path", json!("config.json")),
        &["config.json"],
    );
}

#[test]
fn a_bind_mount_of_what_is_not_there() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().mount(json!({"destination": "/data", "type": "bind",
        "source": "/no/such/source", "options": ["rbind"]}));
    refuses(
        &bundle,
        &["].source", "/no/such/source", "no such file or directory"],
    );
}

#[test]
fn a_file_in_the_way_of_a_mount_point() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new()
        .mount(json!({"destination": "/etc/passwd/below", "type": "tmpfs", "source": "tmpfs"}));
    refuses(&bundle, &["/etc/passwd/below"]);
}

#[test]
fn a_namespace_that_is_not_there() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().namespace(
        "network",
        Some(json!({"type": "network", "path": "/run/no/such/netns"})),
    );
    refuses(
        &bundle,
        &[
            "linux.namespaces",
            "/run/no/such/netns",
            "no such file or directory",
        ],
    );
}

#[test]
fn an_id_with_a_slash() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes some");
    let bundle = TestBundle::new();
    let path = bundle.path();
    let id = format!("{}/x", bundle.id());
    for id in [id.as_str(), "../x", "/x"] {
        let output = bundle.call(&["create", "--bundle", path.to_str().expect("a path"), id]);
        let line = output.one_line_failure();
        if runtime().kind == Kind::Gocker {
            assert!(line.contains(&format!("{id:?}")), "{output}");
        }
        bundle.assert_nothing_left();
        assert!(!bundle.state_root().join("x").exists());
        assert!(!bundle.scratch().join("x").exists());
    }
}

#[test]
fn a_duplicate_id() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let output = container.create(&[]);
    let line = output.one_line_failure();
    if runtime().kind == Kind::Gocker {
        assert!(
            line.contains(bundle.id()) && line.contains("exist"),
            "{output}"
        );
    }
    assert_eq!(container.status(), "running");
}

#[test]
fn a_device_that_is_none() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun | Runc, "some are taken");
    for device in [
        json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 3}),
        json!({"path": "/dev/x", "type": "c"}),
        json!({"path": "/dev/x", "type": "c", "major": -1, "minor": 3}),
        json!({"type": "c", "major": 1, "minor": 3}),
    ] {
        refuses(
            &TestBundle::new().set("/linux/devices", json!([device])),
            &["linux.devices"],
        );
    }
}

#[test]
fn a_state_root_that_cannot_be_made() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    fs::write(bundle.state_root(), "a file").expect("write");
    refuses(&bundle, &["state"]);
}

/// The runtime here has lost the capability before it begins.
#[test]
fn a_capability_that_the_runtime_lacks_is_told_by_the_set_that_names_it() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let sets = json!({"bounding": ["CAP_CHOWN", "CAP_SYS_TIME"],
        "effective": ["CAP_CHOWN", "CAP_SYS_TIME"], "permitted": ["CAP_CHOWN", "CAP_SYS_TIME"]});
    let bundle = TestBundle::sleeper().set("/process/capabilities", sets);
    bundle.write_config();
    let _container = bundle.container();
    let runtime = bundle.runtime();
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--bounding-set", "-sys_time"])
        .arg(runtime.get_program())
        .args(runtime.get_args())
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .arg(bundle.id());
    let output = conformance::run_command(&mut command);
    let line = output.one_line_failure();
    assert!(
        line.contains("process.capabilities.") && line.contains("operation not permitted (EPERM)"),
        "{output}"
    );
    bundle.assert_nothing_left();
}
