//! Attacks that a shipped runtime once fell for, by what it is handed: a working directory, a
//! user, capabilities of a further process, text that is longer than a message.

use std::fs;

use conformance::host::is_root;
use conformance::{Kind, TestBundle, gocker_only, needs, peer_differs, runtime};
use serde_json::{Value, json};

use super::exec::{exec, exec_shell};

/// CVE-2024-21626: a working directory by way of a descriptor that leaked, for `exec`.
#[test]
fn an_execs_working_directory_cannot_be_a_leaked_descriptor() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let secret = bundle.scratch().join("secret");
    fs::write(&secret, "of the host\n").expect("write");
    let climb = format!("../../../../../../../../..{}", secret.display());
    let container = bundle.running();
    for number in 3..16 {
        for prefix in ["/proc/self/fd", "/dev/fd"] {
            let cwd = format!("{prefix}/{number}");
            let output = exec(&container, &["--cwd", &cwd], &["/bin/cat", &climb]);
            assert!(!output.stdout.contains("of the host"), "{cwd}: {output}");
            assert_ne!(output.code(), 0, "{cwd}: {output}");
        }
    }
}

/// CVE-2022-29162, CVE-2022-27650: inheritable capabilities that nobody asked for.
#[test]
fn the_inheritable_set_of_an_exec_is_empty_unless_asked_for() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let sets = ["bounding", "effective", "permitted"];
    let sets: serde_json::Map<_, _> = sets
        .map(|name| (name.to_owned(), json!(["CAP_CHOWN", "CAP_NET_RAW"])))
        .into_iter()
        .collect();
    let file = bundle.scratch().join("process.json");
    let process = json!({"args": ["/bin/grep", "CapInh", "/proc/self/status"], "cwd": "/",
        "user": {}, "capabilities": sets});
    fs::write(&file, process.to_string()).expect("write");
    let by_file = [
        "--process".to_owned(),
        file.to_str().expect("a path").to_owned(),
    ];
    let by_flag = ["--cap".to_owned(), "CAP_NET_RAW".to_owned()];
    for (options, command) in [([].as_slice(), true), (&by_flag, true), (&by_file, false)] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let command: &[&str] = if command {
            &["/bin/grep", "CapInh", "/proc/self/status"]
        } else {
            &[]
        };
        let output = exec(&container, &options, command);
        assert_eq!(
            output.success(),
            "CapInh:\t0000000000000000\n",
            "{options:?}"
        );
    }
}

/// CVE-2016-3697: a number is never looked up as a name.
#[test]
fn a_user_that_reads_as_a_number_is_that_number() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let names = "4321:x:0:0::/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n";
    fs::write(bundle.rootfs().join("etc/passwd"), names).expect("write");
    fs::write(bundle.rootfs().join("etc/group"), "1234:x:0:\n").expect("write");
    let container = bundle.running();
    let output = exec_shell(&container, &["--user", "4321:1234"], "id -u; id -g");
    assert_eq!(output.success(), "4321\n1234\n");
}

/// CVE-2026-30892: no number is read by half, and none wraps round to root.
#[test]
fn a_user_that_is_no_number_of_32_bits_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they take some");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for user in [
        "1000x",
        "0x10",
        "-1",
        "+5",
        " 5",
        "5 ",
        "1:",
        ":1",
        "",
        "4294967296",
        "4294967295",
        "18446744073709551616",
        "1:4294967296",
        "1:-1",
        "1:2:3",
        "1:2x",
    ] {
        let output = exec(&container, &["--user", user], &["/bin/true"]);
        let line = output.one_line_failure();
        assert!(line.contains("user"), "{user:?}: {output}");
    }
}

#[test]
fn an_id_of_the_config_that_is_no_number_of_32_bits_is_refused() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (field, value) in [
        ("uid", json!(4_294_967_296_u64)),
        ("uid", json!(4_294_967_295_u64)),
        ("uid", json!(-1)),
        ("uid", json!("0")),
        ("uid", json!(1.5)),
        ("gid", json!(4_294_967_296_u64)),
        ("gid", json!("root")),
        ("additionalGids", json!([4_294_967_296_u64])),
        ("additionalGids", json!([-1])),
    ] {
        refuses_user(field, &value);
    }
}

#[track_caller]
fn refuses_user(field: &str, value: &Value) {
    let bundle = TestBundle::new().set(&format!("/process/user/{field}"), value.clone());
    let output = bundle.run();
    let line = output.one_line_failure();
    assert!(line.contains("config.json"), "{field}: {output}");
    bundle.assert_nothing_left();
}

/// CVE-2021-43784: what is longer than a message, or than its 16 bits of length, is told whole or
/// refused; what comes after it is never read as something else.
#[test]
fn text_that_is_longer_than_a_message_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it tells more than a line");
    for length in [4_095, 65_535, 65_536, 70_000, 1 << 20] {
        let long = format!("/{}", "x".repeat(length));
        for pointer in [
            "/process/args/0",
            "/process/cwd",
            "/linux/namespaces/0/path",
        ] {
            let bundle = TestBundle::new().set(pointer, json!(long));
            let output = bundle.run();
            if runtime().kind == Kind::Gocker {
                output.one_line_failure();
            }
            assert_ne!(output.code(), 0, "{pointer}, {length}");
            bundle.assert_nothing_left();
        }
    }
}
