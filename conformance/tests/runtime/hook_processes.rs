//! Hooks as processes: what they start from, what becomes of those that fail or do not end, and
//! what they leave behind (config.md#posix-platform-hooks, runtime.md#lifecycle).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs, run_command, wait_until};
use serde_json::{Value, json};

/// A hook of the host's shell.
fn shell(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

fn is_alive(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).expect("a pid");
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

#[test]
fn a_timeout_kills_all_of_the_hook_and_names_it() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "what the hook has started lives on");
    for name in ["prestart", "createRuntime", "createContainer"] {
        // Without a PID namespace all of them see the ids that the test sees.
        let bundle = TestBundle::sleeper().namespace("pid", None);
        let pid_file = bundle.scratch().join("pid");
        let mut hook = shell(&format!(
            "sleep 1000 & echo $! > {}; wait",
            pid_file.display()
        ));
        hook["timeout"] = json!(1);
        let bundle = bundle.set("/hooks", json!({ name: [shell("true"), hook] }));
        let container = bundle.container();
        let output = container.create(&[]);
        let line = output.one_line_failure();
        assert!(
            line.contains(&format!("{name}[1]")) && line.contains("1 s"),
            "{output}"
        );
        assert!(
            wait_until(Duration::from_secs(5), || !is_alive(&pid_file)),
            "{name}"
        );
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_failing_hook_is_told_with_its_status_and_what_it_said() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they have words of their own");
    for name in ["prestart", "createRuntime", "createContainer"] {
        let bundle = TestBundle::sleeper().set(
            "/hooks",
            json!({ name: [shell("echo to stdout; echo to stderr >&2; exit 7")] }),
        );
        for subcommand in ["create", "run"] {
            let container = bundle.container();
            let output = match subcommand {
                "create" => container.create(&[]),
                _ => container.run(&[]),
            };
            let line = output.one_line_failure();
            for word in [name, "7", "to stdout", "to stderr"] {
                assert!(line.contains(word), "{word}: {output}");
            }
            bundle.assert_nothing_left();
        }
    }
}

#[test]
fn a_hook_after_a_failing_one_is_not_run() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let touch = format!("touch {}", bundle.scratch().join("ran").display());
    let bundle = bundle.set(
        "/hooks",
        json!({"prestart": [shell("exit 1"), shell(&touch)], "createRuntime": [shell(&touch)]}),
    );
    bundle.container().create(&[]).failure();
    assert!(!bundle.scratch().join("ran").exists());
    bundle.assert_nothing_left();
}

/// runtime.md#lifecycle, step 8.
#[test]
fn a_start_container_hook_that_fails_fails_the_start() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they cannot tell who calls start");
    let hooks = json!({"startContainer": [
        {"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 5"]}]});
    let bundle = TestBundle::shell("echo started").set("/hooks", hooks);
    let container = bundle.container();
    let created = container.create(&[]);
    created.success();
    container.start().failure();
    container.wait_for("stopped");
    assert!(!created.stdout_now().contains("started"));
    container.delete(&[]).success();
    bundle.assert_nothing_left();
    let output = bundle.run();
    assert!(output.failure().contains("hook"), "{output}");
    assert!(!output.stdout.contains("started"), "{output}");
    bundle.assert_nothing_left();
}

/// As runc does it: the process is ended and the start has failed.
#[test]
fn a_poststart_hook_that_fails_ends_the_process_and_fails_the_start() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "runc runs it in create, crun only warns");
    let bundle = TestBundle::sleeper().set("/hooks", json!({"poststart": [shell("exit 5")]}));
    let container = bundle.created();
    let pid = container.pid();
    let output = container.start();
    assert!(
        output.one_line_failure().contains("poststart[0]"),
        "{output}"
    );
    let gone =
        || !Path::new(&format!("/proc/{pid}/ns")).exists() || container.state_output().code() != 0;
    assert!(wait_until(Duration::from_secs(5), gone));
    container.delete(&["--force"]).success();
    bundle.assert_nothing_left();
    bundle.run().one_line_failure();
    bundle.assert_nothing_left();
}

/// Each of them is tried, whatever became of the one before.
#[test]
fn every_poststop_hook_is_run_and_a_failing_one_is_a_warning() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they stop at the first");
    let bundle = TestBundle::sleeper();
    let touch = format!("touch {}", bundle.scratch().join("ran").display());
    let bundle = bundle.set(
        "/hooks",
        json!({"poststop": [shell("exit 6"), shell(&touch)]}),
    );
    let container = bundle.running();
    let output = container.delete(&["--force"]);
    output.success();
    assert!(
        output.stderr.contains("poststop[0]") && output.stderr.contains('6'),
        "{output}"
    );
    assert!(bundle.scratch().join("ran").exists());
    bundle.assert_nothing_left();
}

/// A state that is larger than a pipe, and a hook that reads nothing of it.
#[test]
fn a_hook_that_reads_nothing_and_one_that_prints_much_hold_nothing_up() {
    needs!(is_root(), "needs root");
    let annotations: Value = (0..2000)
        .map(|n| (format!("key{n}"), Value::from("v".repeat(100))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let bundle = TestBundle::sleeper().set("/annotations", annotations).set(
        "/hooks",
        json!({"createRuntime": [shell("exit 0"), shell("head -c 2000000 /dev/zero"),
            shell("exec 0<&- 1>&- 2>&-")]}),
    );
    let container = bundle.created();
    container.start().success();
}

/// A daemon that a hook starts must not hold up who waits for the runtime's output.
#[test]
fn what_a_hook_leaves_behind_holds_nothing_up() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "it waits for the pipe to close");
    let bundle = TestBundle::sleeper();
    let pid_file = bundle.scratch().join("pid");
    let hook = shell(&format!("sleep 1000 & echo $! > {}", pid_file.display()));
    let bundle = bundle.set("/hooks", json!({"createRuntime": [hook]}));
    let mut command = bundle.making("create", &[]);
    let container = bundle.container();
    let start = Instant::now();
    run_command(&mut command).success();
    assert!(start.elapsed() < Duration::from_secs(20));
    // It is the hook's own, and lives on.
    let alive = is_alive(&pid_file);
    let pid = fs::read_to_string(&pid_file).expect("a pid");
    run_command(std::process::Command::new("/bin/kill").args(["-9", pid.trim()])).success();
    assert!(alive);
    drop(container);
}

/// A foreground `run` blocks signals for itself; a hook that waits for one would never end.
#[test]
fn hooks_have_no_signal_blocked() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it hands on what it blocks");
    let bundle = TestBundle::shell("cat /inside").namespace("pid", None);
    let out = bundle.scratch().display().to_string();
    let inside = json!({"path": "/bin/sh", "args": ["sh", "-c",
        "grep SigBlk /proc/self/status > /inside"]});
    let grep = |name: &str| shell(&format!("grep SigBlk /proc/self/status > {out}/{name}"));
    let bundle = bundle.set(
        "/hooks",
        json!({"createRuntime": [grep("createRuntime")], "createContainer": [grep("createContainer")],
            "startContainer": [inside], "poststart": [grep("poststart")]}),
    );
    assert_eq!(bundle.run_ok(), "SigBlk:\t0000000000000000\n");
    for name in ["createRuntime", "createContainer", "poststart"] {
        let text = fs::read_to_string(bundle.scratch().join(name)).expect(name);
        assert_eq!(text, "SigBlk:\t0000000000000000\n", "{name}");
    }
}

/// runtime.md#state: what has been made and not executed is `created`.
#[test]
fn a_start_container_hook_is_told_created() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it tells starting");
    let hooks =
        json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /state"]}]});
    let bundle = TestBundle::shell("cat /state").set("/hooks", hooks);
    let state: Value = serde_json::from_str(&bundle.run_ok()).expect("JSON");
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("created"), &json!(1))
    );
}

#[test]
fn the_arguments_of_a_hook_are_its_whole_argument_list() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let out = bundle.scratch().join("args");
    let script = format!("printf '%s|' \"$0\" \"$@\" > {}", out.display());
    let bundle = bundle.set(
        "/hooks",
        json!({"createRuntime": [{"path": "/bin/sh",
            "args": ["another name", "-c", script, "zero", "with space", "", "*"]}]}),
    );
    drop(bundle.created());
    assert_eq!(
        fs::read_to_string(out).expect("read"),
        "zero|with space||*|"
    );
}

#[test]
fn a_hook_that_is_no_program_is_an_error_that_names_it() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it says less");
    let bundle = TestBundle::sleeper();
    let not_executable = bundle.scratch().join("plain");
    fs::write(&not_executable, "#!/bin/sh\n").expect("write");
    let plain = not_executable.to_str().expect("a path").to_owned();
    let mut bundle = bundle;
    for (path, words) in [
        ("/no/such/hook", "no such file or directory"),
        (plain.as_str(), "permission denied"),
        ("/etc", "permission denied"),
    ] {
        bundle = bundle.set("/hooks", json!({"createRuntime": [{"path": path}]}));
        let output = bundle.container().create(&[]);
        let line = output.one_line_failure();
        assert!(line.contains(path) && line.contains(words), "{output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn what_is_wrong_with_a_hook_is_named_by_its_field() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they take more");
    for (entry, field) in [
        (json!({"path": "/bin/true", "timeout": 0}), "timeout"),
        (json!({"path": "/bin/true", "timeout": -1}), "timeout"),
        (json!({"path": "/bin/true", "env": ["NOEQUALS"]}), "env"),
        (json!({"path": "/bin/true", "args": "x"}), "args"),
        (json!("x"), "createRuntime"),
    ] {
        let bundle = TestBundle::new().set("/hooks", json!({ "createRuntime": [entry] }));
        let output = bundle.run();
        let line = output.one_line_failure();
        assert!(line.contains("hooks") && line.contains(field), "{output}");
        bundle.assert_nothing_left();
    }
}
