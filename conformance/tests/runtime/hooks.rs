//! Hooks: config.md#posix-platform-hooks and their place in runtime.md#lifecycle.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs};
use serde_json::{Value, json};

const ALL: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A script of the host that appends its first argument to the log, and keeps
/// what it got on stdin.
fn script(bundle: &TestBundle) -> PathBuf {
    let path = bundle.scratch().join("hook");
    let log = bundle.scratch().display();
    let text = format!(
        "#!/bin/sh\necho \"$1\" >> {log}/log\ncat > {log}/$1.json\n\
         readlink /proc/self/ns/mnt > {log}/$1.mnt\n[ \"$2\" = fail ] && exit 3\nexit 0\n"
    );
    fs::write(&path, text).expect("write");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("chmod");
    path
}

fn hook(path: &std::path::Path, name: &str, more: &str) -> Value {
    json!([{"path": path, "args": ["hook", name, more], "env": ["PATH=/usr/bin:/bin"]}])
}

fn log(bundle: &TestBundle) -> String {
    fs::read_to_string(bundle.scratch().join("log"))
        .unwrap_or_default()
        .replace('\n', " ")
}

/// With the hooks that the host's programs can serve; `startContainer` is run in
/// the container and gets a script of its own.
fn with_hooks(bundle: TestBundle, failing: &str) -> TestBundle {
    let path = script(&bundle);
    let inside = bundle.rootfs().join("hook");
    fs::write(
        &inside,
        "#!/bin/sh\necho startContainer >> /log\ncat > /stdin.json\n",
    )
    .expect("write");
    fs::set_permissions(&inside, Permissions::from_mode(0o755)).expect("chmod");
    let mut hooks = json!({});
    for name in ALL {
        let more = if name == failing { "fail" } else { "" };
        hooks[name] = match name {
            "startContainer" => json!([{"path": "/hook", "args": ["hook"], "env": []}]),
            _ => hook(&path, name, more),
        };
    }
    bundle.set("/hooks", hooks)
}

#[test]
fn hooks_run_at_their_place_in_the_lifecycle() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "its create runs poststart already");
    let bundle = with_hooks(TestBundle::shell("cat /log; sleep 1000"), "");
    let container = bundle.container();
    let output = container.create(&[]);
    output.success();
    assert_eq!(log(&bundle), "prestart createRuntime createContainer ");
    assert!(!bundle.rootfs().join("log").exists());
    container.start().success();
    assert_eq!(
        log(&bundle),
        "prestart createRuntime createContainer poststart "
    );
    let before = || output.stdout_now() == "startContainer\n";
    assert!(conformance::wait_until(
        std::time::Duration::from_secs(10),
        before
    ));
    container.delete(&["--force"]).success();
    assert_eq!(
        log(&bundle),
        "prestart createRuntime createContainer poststart poststop "
    );
    bundle.assert_nothing_left();
}

/// config.md#posix-platform-hooks: the state is passed over stdin.
#[test]
fn hooks_get_the_state_on_stdin() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they tell another status for some");
    let bundle = with_hooks(TestBundle::sleeper(), "");
    let container = bundle.running();
    let pid = container.pid();
    container.delete(&["--force"]).success();
    for (name, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let text = fs::read_to_string(bundle.scratch().join(format!("{name}.json")));
        let state: Value = serde_json::from_str(&text.expect(name)).expect(name);
        assert_eq!(state["id"], bundle.id(), "{name}");
        assert_eq!(state["status"], status, "{name}");
        assert_eq!(state["bundle"], json!(bundle.path()), "{name}");
        let expected = if name == "poststop" { 0 } else { pid };
        // As the hook itself sees the process: from within it is the first one.
        let within = name == "createContainer" && state["pid"] == 1;
        assert!(
            state["pid"] == expected || within || state.get("pid").is_none(),
            "{state}"
        );
    }
}

#[test]
fn hooks_run_in_the_namespace_that_the_specification_says() {
    needs!(is_root(), "needs root");
    let bundle = with_hooks(TestBundle::sleeper(), "");
    let container = bundle.running();
    let link = |path: String| fs::read_link(path).expect("readlink").display().to_string();
    let inside = link(format!("/proc/{}/ns/mnt", container.pid()));
    let outside = link("/proc/thread-self/ns/mnt".to_owned());
    for name in ["prestart", "createRuntime", "createContainer", "poststart"] {
        let file = bundle.scratch().join(format!("{name}.mnt"));
        let found = fs::read_to_string(file).expect(name);
        let expected = if name == "createContainer" {
            &inside
        } else {
            &outside
        };
        assert_eq!(found.trim(), expected, "{name}");
    }
}

/// runtime.md#lifecycle: a failing hook before the start is an error, and the
/// container is taken away.
#[test]
fn a_hook_that_fails_before_the_start_ends_the_container() {
    needs!(is_root(), "needs root");
    for name in ["prestart", "createRuntime", "createContainer"] {
        let bundle = with_hooks(TestBundle::sleeper(), name);
        let container = bundle.container();
        let output = container.create(&[]);
        output.one_line_failure();
        bundle.assert_nothing_left();
    }
}

/// runtime.md#lifecycle: after the start it is a warning.
#[test]
fn a_hook_that_fails_after_the_end_is_no_error() {
    needs!(is_root(), "needs root");
    let bundle = with_hooks(TestBundle::sleeper(), "poststop");
    let container = bundle.running();
    container.delete(&["--force"]).success();
    bundle.assert_nothing_left();
}

#[test]
fn a_hook_that_takes_longer_than_its_timeout_is_killed() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper().set(
        "/hooks",
        json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}),
    );
    let container = bundle.container();
    let start = std::time::Instant::now();
    container.create(&[]).failure();
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
    bundle.assert_nothing_left();
}

#[test]
fn a_hook_has_the_environment_of_its_entry_alone() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let out = bundle.scratch().join("env");
    let script = format!("/usr/bin/env > {}", out.display());
    let bundle = bundle.set(
        "/hooks",
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script],
            "env": ["ONLY=this"]}]}),
    );
    let container = bundle.created();
    drop(container);
    let text = fs::read_to_string(out).expect("read");
    // What the shell adds by itself is not counted.
    let own: Vec<&str> = text
        .lines()
        .filter(|line| {
            !["PWD=", "SHLVL=", "_=", "OLDPWD="]
                .iter()
                .any(|own| line.starts_with(own))
        })
        .collect();
    assert_eq!(own, ["ONLY=this"]);
}

#[test]
fn a_hook_must_be_named_by_an_absolute_path() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they try to run it");
    for entry in [
        json!({"path": "relative"}),
        json!({"path": ""}),
        json!({"args": ["x"]}),
    ] {
        let bundle = TestBundle::new().set("/hooks", json!({"createRuntime": [entry]}));
        let output = bundle.run();
        assert!(output.one_line_failure().contains("hooks"), "{output}");
        bundle.assert_nothing_left();
    }
}
