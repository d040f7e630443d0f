//! The command line, as engines and shims send it, and what they read back.

use std::fs;
use std::process::Command;

use conformance::host::is_root;
use conformance::{Output, TestBundle, gocker_only, needs, peer_differs, run_command, runtime};
use serde_json::{Value, json};

/// The runtime without any global option.
fn bare(args: &[&str]) -> Output {
    run_command(Command::new(&runtime().program).args(args))
}

#[test]
fn long_flags_are_taken_with_one_dash() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it reads them as clusters of short ones");
    let bundle = TestBundle::sleeper();
    let container = bundle.container();
    let (path, state) = (bundle.path(), bundle.state_root());
    let (path, state) = (
        path.to_str().expect("a path"),
        state.to_str().expect("a path"),
    );
    let pid_file = bundle.scratch().join("pid");
    let pid_file = pid_file.to_str().expect("a path");
    bundle.write_config();
    bare(&[
        "-root",
        state,
        "create",
        "-bundle",
        path,
        "-pid-file",
        pid_file,
        bundle.id(),
    ])
    .success();
    assert_eq!(
        fs::read_to_string(pid_file).expect("read"),
        container.pid().to_string()
    );
    bare(&["-root", state, "list", "-quiet", "-format", "table"]).success();
    bare(&["-root", state, "delete", "-force", bundle.id()]).success();
    bundle.assert_nothing_left();
}

#[test]
fn values_follow_an_equals_sign_or_a_space() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its switches take no value");
    let bundle = TestBundle::shell("echo ok");
    let (root, path) = (
        format!("--root={}", bundle.state_root().display()),
        format!("--bundle={}", bundle.path().display()),
    );
    bundle.write_config();
    bare(&[&root, "--debug=false", "create", &path, bundle.id()]).success();
    let list = bare(&[&root, "list", "--quiet=false", "--format=json"]);
    assert!(list.success().contains(bundle.id()), "{list}");
    bare(&[&root, "delete", "--force=true", bundle.id()]).success();
    let output = bare(&[
        &root,
        "run",
        "--detach=false",
        "--no-pivot=false",
        &path,
        bundle.id(),
    ]);
    assert_eq!(output.success(), "ok\n");
    bundle.assert_nothing_left();
}

#[test]
fn options_are_taken_after_the_id_too() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes them before alone");
    let bundle = TestBundle::sleeper();
    let path = bundle.path();
    let path = path.to_str().expect("a path");
    bundle
        .call(&["create", bundle.id(), "--bundle", path])
        .success();
    let container = bundle.container();
    assert_eq!(container.status(), "created");
    bundle.call(&["delete", bundle.id(), "--force"]).success();
    bundle.assert_nothing_left();
}

/// What follows the id of `kill` is the signal, whatever it looks like.
#[test]
fn kill_takes_all_before_the_id() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    bundle.call(&["kill", "-a", bundle.id(), "KILL"]).success();
    container.wait_for("stopped");
}

fn log_file(bundle: &TestBundle) -> std::path::PathBuf {
    bundle.scratch().join("log.json")
}

fn failing_create(bundle: &TestBundle, format: &str) -> Output {
    let path = bundle.path();
    run_command(
        bundle
            .runtime()
            .arg("--log")
            .arg(log_file(bundle))
            .args(["--log-format", format, "create", "--bundle"])
            .arg(&path)
            .arg(bundle.id()),
    )
}

/// Podman reads the whole file as one object.
#[test]
fn a_failure_is_logged_as_exactly_one_json_object() {
    needs!(is_root(), "needs root");
    for bundle in [
        TestBundle::new().args(&["/no/such/program"]),
        TestBundle::new().raw_config("{"),
        TestBundle::new().mount(json!({"destination": "/x", "type": "bind",
            "source": "/no/such/source", "options": ["bind"]})),
    ] {
        let output = failing_create(&bundle, "json");
        output.failure();
        let text = fs::read_to_string(log_file(&bundle)).expect("read the log");
        let entry: Value = serde_json::from_str(text.trim_end())
            .unwrap_or_else(|error| panic!("one object: {error}: {text}"));
        assert_eq!(entry["level"], "error", "{text}");
        let message = entry["msg"].as_str().expect("msg");
        let time = entry["time"].as_str().expect("time");
        assert!(
            time.len() >= 20 && time.as_bytes()[10] == b'T',
            "RFC 3339: {time}"
        );
        // In text form, quotes are escaped.
        let told = output.stderr.replace("\\\"", "\"");
        assert!(
            told.contains(message),
            "the same goes to stderr: {message}: {output}"
        );
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_log_is_appended_to() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().raw_config("{");
    for expected in 1..=2 {
        failing_create(&bundle, "json").failure();
        let text = fs::read_to_string(log_file(&bundle)).expect("read the log");
        assert_eq!(text.lines().count(), expected, "{text}");
    }
}

#[test]
fn success_leaves_the_log_empty() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let path = bundle.path();
    let container = bundle.container();
    run_command(
        bundle
            .runtime()
            .arg("--log")
            .arg(log_file(&bundle))
            .args(["--log-format", "json", "create", "--bundle"])
            .arg(&path)
            .arg(bundle.id()),
    )
    .success();
    assert_eq!(
        fs::read_to_string(log_file(&bundle)).unwrap_or_default(),
        ""
    );
    container.start().success();
}

#[test]
fn a_log_in_text_form_has_time_level_and_message() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its form is another");
    let bundle = TestBundle::new().raw_config("{");
    failing_create(&bundle, "text").failure();
    let text = fs::read_to_string(log_file(&bundle)).expect("read the log");
    assert!(text.starts_with("time=\""), "{text}");
    assert!(text.contains(" level=error msg="), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn an_unknown_log_format_is_refused() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let output = failing_create(&bundle, "xml");
    output.failure();
    bundle.assert_nothing_left();
}

#[test]
fn version_tells_name_commit_and_specification() {
    peer_differs!(Crun, "it tells it otherwise");
    for flag in ["--version", "-v"] {
        let output = bare(&[flag]);
        let lines: Vec<&str> = output.success().lines().collect();
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert_eq!(words[1], "version", "{output}");
        assert!(
            lines.iter().any(|line| line.starts_with("commit: ")),
            "{output}"
        );
        assert!(
            lines.iter().any(|line| line.starts_with("spec: 1.")),
            "{output}"
        );
    }
}

#[test]
fn version_is_gocker_runcs_own() {
    gocker_only!();
    let output = bare(&["--version"]);
    assert!(
        output.success().starts_with("gocker-runc version "),
        "{output}"
    );
    assert!(output.stdout.contains("\nspec: 1.3.0\n"), "{output}");
}

/// features.md of the runtime specification; called without any other option.
#[test]
fn features_is_json_with_every_section() {
    peer_differs!(Crun, "Debian's has none");
    let output = bare(&["features"]);
    let features: Value = serde_json::from_str(output.success()).expect("JSON");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(
        features["ociVersionMax"]
            .as_str()
            .expect("a string")
            .starts_with("1.")
    );
    let list = |value: &Value| -> Vec<String> {
        let all = value
            .as_array()
            .unwrap_or_else(|| panic!("a list: {value}"));
        all.iter()
            .map(|entry| entry.as_str().expect("a string").to_owned())
            .collect()
    };
    let options = list(&features["mountOptions"]);
    for option in [
        "ro", "rw", "bind", "rbind", "nosuid", "noexec", "nodev", "rprivate", "rslave",
    ] {
        assert!(options.iter().any(|known| known == option), "{option}");
    }
    let namespaces = list(&features["linux"]["namespaces"]);
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        assert!(namespaces.iter().any(|known| known == kind), "{kind}");
    }
    let capabilities = list(&features["linux"]["capabilities"]);
    assert!(capabilities.iter().any(|known| known == "CAP_CHOWN"));
    assert!(capabilities.len() >= 38, "{capabilities:?}");
    for field in ["v1", "v2", "systemd"] {
        assert!(features["linux"]["cgroup"][field].is_boolean(), "{field}");
    }
    for section in ["seccomp", "apparmor", "selinux"] {
        assert!(
            features["linux"][section]["enabled"].is_boolean(),
            "{section}"
        );
    }
}

#[test]
fn features_tells_what_newer_callers_ask_for() {
    gocker_only!();
    let output = bare(&["features"]);
    let features: Value = serde_json::from_str(output.success()).expect("JSON");
    assert_eq!(features["ociVersionMax"], "1.3.0");
    assert!(features["hooks"].is_array());
    assert!(features["linux"]["intelRdt"]["enabled"].is_boolean());
    assert!(features["linux"]["mountExtensions"]["idmap"]["enabled"].is_boolean());
    let rro = features["mountOptions"]
        .as_array()
        .expect("a list")
        .contains(&json!("rro"));
    assert!(rro, "containerd looks for it");
}

#[test]
fn spec_writes_a_config_that_runs() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let config = bundle.path().join("config.json");
    run_command(
        Command::new(&runtime().program)
            .arg("spec")
            .current_dir(bundle.path()),
    )
    .success();
    let text = fs::read_to_string(&config).expect("spec writes config.json");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["root"]["path"], "rootfs");
    // As it stands, but for the terminal, the command and the place of the cgroup.
    let cgroup = bundle.cgroups_path().to_owned();
    let bundle = bundle.edit(|config| {
        *config = spec;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/echo", "from the spec"]);
        config["linux"]["cgroupsPath"] = json!(cgroup);
    });
    assert_eq!(bundle.run_ok(), "from the spec\n");
}

#[test]
fn spec_does_not_overwrite() {
    let bundle = tempfile::tempdir().expect("a directory");
    let path = bundle.path().to_str().expect("a path");
    bare(&["spec", "--bundle", path]).success();
    let config = bundle.path().join("config.json");
    fs::write(&config, "mine").expect("write");
    bare(&["spec", "--bundle", path]).one_line_failure();
    assert_eq!(fs::read_to_string(&config).expect("read"), "mine");
}

#[test]
fn spec_for_the_rootless_has_a_user_namespace() {
    peer_differs!(Crun, "it leaves the mappings out");
    let bundle = tempfile::tempdir().expect("a directory");
    let path = bundle.path().to_str().expect("a path");
    bare(&["spec", "--rootless", "--bundle", path]).success();
    let text = fs::read_to_string(bundle.path().join("config.json")).expect("read");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    let namespaces = spec["linux"]["namespaces"].as_array().expect("namespaces");
    assert!(namespaces.contains(&json!({"type": "user"})), "{text}");
    assert_eq!(spec["linux"]["uidMappings"][0]["containerID"], 0);
    assert_eq!(spec["linux"]["gidMappings"][0]["size"], 1);
}

#[test]
fn wrong_command_lines_are_refused() {
    let bundle = tempfile::tempdir().expect("a directory");
    let root = bundle.path().to_str().expect("a path");
    for args in [
        ["no-such-command"].as_slice(),
        &["create"],
        &["create", "a", "b"],
        &["start"],
        &["state"],
        &["state", "a", "b"],
        &["delete"],
        &["kill"],
        &["list", "surplus"],
        &["list", "--format", "xml"],
        &["create", "--no-such-flag", "a"],
        &["--no-such-flag", "list"],
        &["run", "--pid-file"],
    ] {
        // A surplus argument is no error to the C parser of crun, nor to runc's list.
        if runtime().kind != conformance::Kind::Gocker
            && (args.contains(&"b") || args.contains(&"surplus"))
        {
            continue;
        }
        let output = bare(&[&["--root", root], args].concat());
        assert!(
            !output.failure().trim().is_empty() || !output.stdout.is_empty(),
            "{output}"
        );
        assert!(!output.stderr.contains("panicked"), "{output}");
    }
}

#[test]
fn help_succeeds() {
    for args in [
        ["--help"].as_slice(),
        &["-h"],
        &["create", "--help"],
        &["help"],
    ] {
        if args[0] != "--help" && runtime().kind == conformance::Kind::Crun {
            continue;
        }
        let output = bare(args);
        assert!(
            output.code() == 0 && output.stdout.len() > 100,
            "{args:?}: {output}"
        );
    }
}

#[test]
fn global_options_of_callers_are_taken() {
    needs!(is_root(), "needs root");
    for options in [
        ["--debug"].as_slice(),
        &["--rootless", "false"],
        &["--rootless=auto"],
        &["--log-format", "text"],
        &["--debug", "--log-format=json"],
    ] {
        if options[0].starts_with("--rootless") && runtime().kind == conformance::Kind::Crun {
            continue;
        }
        let bundle = TestBundle::shell("echo ok");
        let path = bundle.path();
        let output = run_command(
            bundle
                .runtime()
                .args(options)
                .args(["run", "--bundle"])
                .arg(&path)
                .arg(bundle.id()),
        );
        assert_eq!(output.success(), "ok\n", "{options:?}");
    }
}

#[test]
fn debug_tells_the_steps_in_the_logs_form() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::shell("true");
    let log = bundle.scratch().join("log");
    let run = |format: &str| {
        let mut command = bundle.runtime();
        command.args(["--debug", "--log-format", format, "--log"]);
        command
            .arg(&log)
            .args(["run", "--bundle"])
            .arg(bundle.path());
        let output = run_command(command.arg(bundle.id()));
        output.success();
        assert!(!output.stderr.contains("init is process"), "{output}");
        let text = fs::read_to_string(&log).expect("read the log");
        assert!(text.contains("init is process"), "{format}: {text}");
        fs::remove_file(&log).expect("remove the log");
        text
    };
    assert!(
        run("text")
            .lines()
            .all(|line| line.contains(" level=debug msg="))
    );
    for line in run("json").lines() {
        let entry: Value = serde_json::from_str(line).expect("an object a line");
        assert_eq!(entry["level"], "debug", "{line}");
    }
}

/// BuildKit's client asks for it of every runtime.
#[test]
fn no_new_keyring_and_no_subreaper_are_taken() {
    needs!(is_root(), "needs root");
    for option in ["--no-new-keyring", "--no-subreaper"] {
        let bundle = TestBundle::shell("echo ok");
        assert_eq!(
            bundle.container().run(&[option]).success(),
            "ok\n",
            "{option}"
        );
    }
}

#[test]
fn a_cgroup_manager_that_is_not_there_is_told() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has words of its own");
    needs!(
        !std::path::Path::new("/run/systemd/system").exists(),
        "systemd is here"
    );
    let bundle = TestBundle::new().set("/linux/cgroupsPath", json!("system.slice:prefix:name"));
    let path = bundle.path();
    let output = run_command(
        bundle
            .runtime()
            .args(["--systemd-cgroup", "create", "--bundle"])
            .arg(&path)
            .arg(bundle.id()),
    );
    assert!(output.one_line_failure().contains("systemd"), "{output}");
}
