//! `exec`: a further process in a container, as callers ask for it and hear of it.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::command::run_with_stdin;
use conformance::host::is_root;
use conformance::{
    Container, Output, TestBundle, gocker_only, needs, peer_differs, run_command, wait_until,
};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

/// `exec OPTIONS ID COMMAND`
pub(super) fn exec(container: &Container<'_>, options: &[&str], command: &[&str]) -> Output {
    run_command(container.command("exec", options).args(command))
}

/// `exec OPTIONS ID sh -c SCRIPT`
pub(super) fn exec_shell(container: &Container<'_>, options: &[&str], script: &str) -> Output {
    exec(container, options, &["sh", "-c", script])
}

/// `exec --process FILE ID`
fn exec_file(bundle: &TestBundle, container: &Container<'_>, process: &Value) -> Output {
    let file = bundle.scratch().join("process.json");
    fs::write(&file, process.to_string()).expect("write");
    exec(
        container,
        &["--process", file.to_str().expect("a path")],
        &[],
    )
}

#[test]
fn exec_gives_the_exit_code_of_the_process() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for code in [0, 3, 127, 255] {
        let output = exec_shell(&container, &[], &format!("exit {code}"));
        assert_eq!(output.code(), code, "{output}");
    }
    for (signal, code) in [("TERM", 143), ("KILL", 137)] {
        let output = exec_shell(&container, &[], &format!("kill -{signal} $$; sleep 5"));
        assert_eq!(output.code(), code, "{output}");
    }
}

/// 255 is the runtime's own, so that callers can tell it from the process's.
#[test]
fn a_failed_exec_is_255_and_one_line() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its failures have other codes and words");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let missing = "exec: \"/no/such\": stat /no/such: no such file or directory";
    let cases: &[(&[&str], &[&str], &str)] = &[
        (
            &[],
            &["nothing-like-it"],
            "exec: \"nothing-like-it\": executable file not found in $PATH",
        ),
        (&[], &["/no/such"], missing),
        (&["--cwd", "/nope"], &["true"], "no such file or directory"),
        (&["--user", "5x"], &["true"], "5x"),
        (
            &["--cgroup", "nope"],
            &["true"],
            "no such file or directory",
        ),
        (&["--cgroup", "nope:/"], &["true"], "nope"),
        (&["--env", "FOO"], &["true"], "FOO"),
        (&[], &[], "args"),
    ];
    for (options, command, words) in cases {
        let output = exec(&container, options, command);
        assert_eq!(output.code(), 255, "{output}");
        // runc tells the words with their quotes escaped.
        let line = output.failure().trim_end().replace('\\', "");
        assert!(line.contains(words) || command.is_empty(), "{output}");
        assert_eq!(line.lines().count(), 1, "{output}");
    }
    let output = exec(&bundle.container_named("nobody"), &[], &["true"]);
    assert_eq!(output.code(), 255, "{output}");
    assert!(output.stderr.contains("does not exist"), "{output}");
}

#[test]
fn programs_that_cannot_be_executed_are_told_in_words_that_engines_know() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's say less");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for (program, words) in [
        ("/etc", "exec: \"/etc\": is a directory: permission denied"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let output = exec(&container, &[], &[program]);
        assert!(output.one_line_failure().contains(words), "{output}");
    }
}

#[test]
fn exec_passes_stdin_stdout_and_stderr_through() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let mut input = tempfile::tempfile().expect("a file");
    input.write_all(b"to stdin\n").expect("write");
    std::io::Seek::rewind(&mut input).expect("rewind");
    let mut command = container.command("exec", &[]);
    command
        .args(["sh", "-c", "cat; echo to stderr >&2"])
        .stdin(Stdio::from(input));
    let output = run_with_stdin(&mut command);
    assert_eq!(output.success(), "to stdin\n");
    assert_eq!(output.stderr, "to stderr\n");
}

#[test]
fn what_follows_the_id_is_the_commands() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for args in [
        &["echo", "--tty", "-d", "-user"][..],
        &["echo", "--", "-log"],
    ] {
        let output = exec(&container, &[], args);
        assert_eq!(output.success(), format!("{}\n", args[1..].join(" ")));
    }
    peer_differs!(Runc | Crun, "newer ones only");
    let output = exec(&container, &[], &["--", "echo", "x"]);
    assert_eq!(output.success(), "x\n");
}

#[test]
fn one_dash_is_enough_for_long_flags() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it is not written in Go");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let output = exec(&container, &["-cwd", "/tmp", "-env", "A=-b"], &["env"]);
    assert!(output.success().contains("A=-b\n"), "{output}");
}

#[test]
fn an_unknown_flag_is_an_error() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    exec(&container, &["--no-such-flag"], &["true"]).failure();
}

#[test]
fn flags_change_the_containers_process() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "without --user it is root");
    let bundle = TestBundle::sleeper().set(
        "/process/user",
        json!({"uid": 5, "gid": 6, "additionalGids": [7]}),
    );
    let container = bundle.running();
    let shell = |options: &[&str], script: &str| {
        let output = exec_shell(&container, options, script);
        output.success().trim_end().to_owned()
    };
    assert_eq!(shell(&[], "id -u; id -g; id -G; pwd"), "5\n6\n6 7\n/");
    assert_eq!(shell(&["--user", "8"], "id -u; id -g"), "8\n6");
    assert_eq!(
        shell(&["-u", "8:9", "-g", "10"], "id -u; id -G"),
        "8\n9 7 10"
    );
    assert_eq!(shell(&["--cwd", "/tmp"], "pwd"), "/tmp");
    assert_eq!(
        shell(
            &["--env", "A=1", "--env", "TERM=x", "--env", "A=2"],
            "echo $A $TERM"
        ),
        "2 x"
    );
    let status = |options: &[&str], key: &str| {
        let script = format!("grep {key}: /proc/self/status | tr -d '\\t'");
        shell(options, &script)
    };
    assert_eq!(status(&[], "NoNewPrivs"), "NoNewPrivs:1");
    let root = ["--user", "0", "--cap", "CAP_SYS_TIME"];
    assert_eq!(status(&root, "CapBnd"), "CapBnd:0000000022000420");
    assert_eq!(status(&root, "CapEff"), "CapEff:0000000022000420");
    // CVE-2022-29162: what is inheritable comes back with a file that has it.
    assert_eq!(status(&root, "CapInh"), "CapInh:0000000000000000");
    assert_eq!(status(&root, "CapAmb"), "CapAmb:0000000000000000");
}

#[test]
fn no_new_privs_can_be_asked_for() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper().set("/process/noNewPrivileges", json!(false));
    let container = bundle.running();
    let script = "grep NoNewPrivs /proc/self/status";
    for (options, expected) in [(&[][..], "0"), (&["--no-new-privs"], "1")] {
        let output = exec_shell(&container, options, script);
        assert_eq!(
            output.success().trim_end(),
            format!("NoNewPrivs:\t{expected}")
        );
    }
}

#[test]
fn a_process_file_describes_the_whole_process() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let script = "id -u; id -g; pwd; echo $A; ulimit -n; ulimit -c
        grep -e CapBnd -e CapInh -e NoNew /proc/self/status; exit 4";
    let output = exec_file(
        &bundle,
        &container,
        &json!({
            "args": ["sh", "-c", script], "cwd": "/tmp", "env": ["PATH=/bin", "A=b"],
            "user": {"uid": 1000, "gid": 5},
            "capabilities": {"bounding": ["CAP_KILL"], "inheritable": [], "effective": []},
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        }),
    );
    assert_eq!(output.code(), 4, "{output}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[..4], ["1000", "5", "/tmp", "b"]);
    assert_eq!(
        lines[5..8],
        [
            "0",
            "CapInh:\t0000000000000000",
            "CapBnd:\t0000000000000020"
        ]
    );
    assert_eq!(lines[8..], ["NoNewPrivs:\t0"]);
}

/// What the file leaves out of capabilities is the container's.
#[test]
fn a_process_file_leaves_the_containers_capabilities() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes none for none");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let script = "umask; grep CapBnd /proc/self/status";
    let mut process = json!({"args": ["/bin/sh", "-c", script], "cwd": "/", "user": {}});
    let output = exec_file(&bundle, &container, &process);
    assert_eq!(output.success(), "0022\nCapBnd:\t0000000020000420\n");
    peer_differs!(Runc, "newer ones only");
    process["user"]["umask"] = json!(0o27);
    let output = exec_file(&bundle, &container, &process);
    assert!(output.success().starts_with("0027\n"), "{output}");
}

#[test]
fn a_bad_process_file_is_an_error_that_names_the_field() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let cases = [
        (
            json!({"args": ["true"], "cwd": "tmp", "user": {}}),
            "process.cwd",
        ),
        (json!({"args": [], "cwd": "/", "user": {}}), "process.args"),
        (
            json!({"args": ["true"], "cwd": "/", "user": {"uid": -1}}),
            "process.user.uid",
        ),
        (
            json!({"args": ["true"], "cwd": "/", "user": {}, "apparmorProfile": "x"}),
            "process.apparmorProfile",
        ),
        (
            json!({"args": ["true"], "cwd": "/", "user": {}, "selinuxLabel": "x"}),
            "process.selinuxLabel",
        ),
    ];
    for (process, field) in cases {
        let output = exec_file(&bundle, &container, &process);
        assert_eq!(output.code(), 255, "{output}");
        assert!(output.one_line_failure().contains(field), "{output}");
    }
    for (options, field) in [
        (["--apparmor", "x"], "process.apparmorProfile"),
        (["--process-label", "x"], "process.selinuxLabel"),
        (["--process", "/no/such/file"], "/no/such/file"),
    ] {
        let command: &[&str] = if options[0] == "--process" {
            &[]
        } else {
            &["true"]
        };
        let output = exec(&container, &options, command);
        assert!(output.one_line_failure().contains(field), "{output}");
    }
}

#[test]
fn flags_that_a_process_file_would_overrule_are_refused() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let file = bundle.scratch().join("process.json");
    let process = json!({"args": ["true"], "cwd": "/", "user": {}, "env": ["PATH=/bin"]});
    fs::write(&file, process.to_string()).expect("write");
    let file = file.to_str().expect("a path");
    exec(&container, &["--process", file], &[]).success();
    for flag in [
        &["--user", "5"][..],
        &["--cwd", "/tmp"],
        &["--env", "A=1"],
        &["--cap", "CAP_KILL"],
        &["--no-new-privs"],
        &["--additional-gids", "5"],
    ] {
        let options = [&["--process", file], flag].concat();
        let output = exec(&container, &options, &[]);
        assert!(output.one_line_failure().contains(flag[0]), "{output}");
    }
    exec(&container, &["--process", file], &["true"]).one_line_failure();
}

/// The bundle may have changed since `create`.
#[test]
fn exec_takes_its_defaults_from_create() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they read the bundle again");
    let bundle = TestBundle::sleeper().set("/process/env", json!(["PATH=/bin", "A=before"]));
    let container = bundle.running();
    let mut command = container.command("exec", &[]);
    command.args(["sh", "-c", "echo $A"]);
    fs::remove_file(bundle.path().join("config.json")).expect("remove");
    assert_eq!(run_command(&mut command).success(), "before\n");
}

#[test]
fn a_detached_exec_returns_while_the_process_runs() {
    needs!(is_root(), "needs root");
    set_child_subreaper(true).expect("become a subreaper");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let file = bundle.scratch().join("pid");
    let path = file.to_str().expect("a path");
    let output = exec_shell(
        &container,
        &["--detach", "--pid-file", path],
        "read x < /proc/self/stat; echo ${x%% *}; sleep 0.3; exit 6",
    );
    output.success();
    let text = fs::read_to_string(&file).expect("a pid file");
    assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text:?}");
    assert_eq!(container.wait_exit(text.parse().expect("a pid")), 6);
}

/// Its absence is how a caller knows that there is no process.
#[test]
fn a_failed_exec_leaves_no_pid_file() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let file = bundle.scratch().join("pid");
    let path = file.to_str().expect("a path");
    for options in [&["--pid-file", path][..], &["--detach", "--pid-file", path]] {
        exec(&container, options, &["nothing-like-it"]).failure();
        assert!(!file.exists());
    }
}

#[test]
fn a_pid_file_that_cannot_be_written_leaves_no_process() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it leaves the process");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let options = ["--detach", "--pid-file", "/no/such/directory/pid"];
    exec(&container, &options, &["sleep", "1000"]).failure();
    let alone = || {
        let output = exec_shell(&container, &[], "ps | grep -c '[s]leep 1000'");
        output.stdout == "1\n"
    };
    assert!(wait_until(Duration::from_secs(10), alone));
}

#[test]
fn exec_reaches_a_created_container_and_no_stopped_one() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has words of its own");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    assert_eq!(
        exec(&container, &[], &["echo", "early"]).success(),
        "early\n"
    );
    assert_eq!(container.status(), "created");
    container.kill("KILL").success();
    container.wait_for("stopped");
    let output = exec(&container, &[], &["true"]);
    assert_eq!(output.code(), 255);
    assert!(
        output
            .one_line_failure()
            .contains("cannot exec in a stopped container"),
        "{output}"
    );
}

#[test]
fn exec_hands_signals_on() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let mut command = container.command("exec", &[]);
    command.args([
        "sh",
        "-c",
        "trap 'exit 9' TERM; touch /ready; while :; do :; done",
    ]);
    let mut child = command.stdin(Stdio::null()).spawn().expect("spawn");
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(wait_until(Duration::from_secs(10), ready));
    let pid = conformance::command::process_id(child.id());
    kill(pid, Signal::SIGTERM).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(9));
}

#[test]
fn dozens_of_execs_at_once() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "Debian's fails at some of them");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let mut children: Vec<_> = (0..48)
        .map(|number: i32| {
            let mut command: Command = container.command("exec", &[]);
            command.args(["sh", "-c", &format!("exit {number}")]);
            command.stdin(Stdio::null()).spawn().expect("spawn")
        })
        .collect();
    for (number, child) in (0..).zip(&mut children) {
        assert_eq!(child.wait().expect("wait").code(), Some(number));
    }
}
