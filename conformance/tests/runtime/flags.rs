//! Every flag that runc documents, in every form that its callers send: it is known, it takes
//! its value, and then the command goes on to what it is about.

use std::process::Command;

use conformance::host::is_root;
use conformance::{
    Kind, Output, TestBundle, gocker_only, needs, peer_differs, run_command, runtime,
};

/// What a flag takes.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// Nothing, or a bool after an equals sign.
    Nothing,
    /// This value, for example.
    Value(&'static str),
    /// The same, in newer versions than Debian's runc.
    Newer(&'static str),
    /// Nothing, in newer versions than Debian's runc.
    NewerNothing,
}
use Takes::{Newer, NewerNothing, Nothing, Value};

type Flags = &'static [(&'static str, Takes)];

const CREATE: Flags = &[
    ("console-socket", Value("/s")),
    ("pidfd-socket", Newer("/s")),
    ("pid-file", Value("/p")),
    ("no-pivot", Nothing),
    ("no-new-keyring", Nothing),
    ("preserve-fds", Value("0")),
];

const EXEC: Flags = &[
    ("console-socket", Value("/s")),
    ("pidfd-socket", Newer("/s")),
    ("cwd", Value("/")),
    ("env", Value("A=b")),
    ("tty", Nothing),
    ("user", Value("5:6")),
    ("additional-gids", Value("7")),
    ("detach", Nothing),
    ("pid-file", Value("/p")),
    ("process-label", Value("l")),
    ("apparmor", Value("p")),
    ("no-new-privs", Nothing),
    ("cap", Value("CAP_KILL")),
    ("preserve-fds", Value("0")),
    ("cgroup", Value("sub")),
    ("ignore-paused", Nothing),
];

const UPDATE: Flags = &[
    ("blkio-weight", Value("100")),
    ("cpu-period", Value("10000")),
    ("cpu-quota", Value("5000")),
    ("cpu-burst", Newer("0")),
    ("cpu-share", Value("100")),
    ("cpu-rt-period", Value("10000")),
    ("cpu-rt-runtime", Value("0")),
    ("cpuset-cpus", Value("0")),
    ("cpuset-mems", Value("0")),
    ("cpu-idle", Newer("1")),
    ("kernel-memory", Newer("1m")),
    ("kernel-memory-tcp", Newer("1m")),
    ("memory", Value("64m")),
    ("memory-reservation", Value("64m")),
    ("memory-swap", Value("-1")),
    ("pids-limit", Value("10")),
];

const CHECKPOINT: Flags = &[
    ("image-path", Value("/i")),
    ("work-path", Value("/w")),
    ("parent-path", Value("/p")),
    ("leave-running", Nothing),
    ("tcp-established", Nothing),
    ("tcp-skip-in-flight", NewerNothing),
    ("link-remap", NewerNothing),
    ("ext-unix-sk", Nothing),
    ("shell-job", Nothing),
    ("lazy-pages", Nothing),
    ("status-fd", Value("5")),
    ("page-server", Value("1.2.3.4:5")),
    ("file-locks", Nothing),
    ("pre-dump", Nothing),
    ("manage-cgroups-mode", Value("ignore")),
    ("empty-ns", Value("network")),
    ("auto-dedup", Nothing),
];

const RESTORE: Flags = &[
    ("console-socket", Value("/s")),
    ("image-path", Value("/i")),
    ("work-path", Value("/w")),
    ("tcp-established", Nothing),
    ("ext-unix-sk", Nothing),
    ("shell-job", Nothing),
    ("file-locks", Nothing),
    ("manage-cgroups-mode", Value("soft")),
    ("detach", Nothing),
    ("pid-file", Value("/p")),
    ("no-subreaper", Nothing),
    ("no-pivot", Nothing),
    ("empty-ns", Value("network")),
    ("auto-dedup", Nothing),
    ("lazy-pages", Nothing),
    ("lsm-profile", Value("apparmor:p")),
    ("lsm-mount-context", Value("c")),
];

const RUN: Flags = &[
    ("detach", Nothing),
    ("keep", Nothing),
    ("no-subreaper", Nothing),
];

/// Each command, its flags, and what a call without a container says.
const COMMANDS: &[(&str, Flags, &str)] = &[
    ("checkpoint", CHECKPOINT, "does not exist"),
    ("create", CREATE, "no such file"),
    ("delete", &[("force", Value("false"))], "does not exist"),
    (
        "events",
        &[("interval", Value("1s")), ("stats", Nothing)],
        "does not exist",
    ),
    ("exec", EXEC, "does not exist"),
    ("kill", &[("all", Nothing)], "does not exist"),
    ("ps", &[("format", Value("json"))], "does not exist"),
    ("run", CREATE, "no such file"),
    ("run", RUN, "no such file"),
    ("update", UPDATE, "does not exist"),
];

fn call(root: &TestBundle, args: &[&str]) -> Output {
    run_command(root.runtime().args(args))
}

/// The ways to write a flag.
fn forms(flag: &str, takes: Takes) -> Vec<Vec<String>> {
    match takes {
        // The one switch whose plain form changes the outcome.
        Value("false") => vec![
            vec![format!("--{flag}=false")],
            vec![format!("-{flag}=false")],
        ],
        Value(value) | Newer(value) => vec![
            vec![format!("--{flag}"), value.to_owned()],
            vec![format!("--{flag}={value}")],
            vec![format!("-{flag}"), value.to_owned()],
            vec![format!("-{flag}={value}")],
        ],
        Nothing | NewerNothing => ["--", "-"]
            .iter()
            .flat_map(|dash| {
                ["", "=true", "=false"].map(|value| vec![format!("{dash}{flag}{value}")])
            })
            .collect(),
    }
}

#[test]
fn every_flag_of_every_command_is_taken_in_every_form() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its flags are fewer, and take fewer forms");
    let bundle = TestBundle::new();
    for (command, flags, answer) in COMMANDS {
        for (flag, takes) in *flags {
            let is_newer = matches!(takes, Newer(_) | NewerNothing);
            if is_newer && runtime().kind != Kind::Gocker {
                continue;
            }
            for form in forms(flag, *takes) {
                let mut args = vec![*command];
                args.extend(form.iter().map(String::as_str));
                match *command {
                    "create" | "run" => args.extend(["--bundle", "/no/such/bundle", "nobody"]),
                    "exec" => args.extend(["nobody", "true"]),
                    _ => args.push("nobody"),
                }
                let output = call(&bundle, &args);
                assert!(output.failure().contains(answer), "{output}");
            }
        }
    }
}

#[test]
fn options_after_the_id_are_taken_too() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes them before alone");
    let bundle = TestBundle::new();
    for args in [
        &["delete", "nobody", "--force=false"][..],
        &["events", "nobody", "--stats"],
        &["update", "nobody", "--memory", "64m"],
        &["checkpoint", "nobody", "--image-path", "/i"],
    ] {
        let output = call(&bundle, args);
        assert!(output.failure().contains("does not exist"), "{output}");
    }
}

/// What follows the id of these is no flag of theirs.
#[test]
fn ps_and_exec_stop_at_the_id() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its parser goes on");
    let bundle = TestBundle::sleeper();
    let _container = bundle.running();
    let output = call(&bundle, &["ps", bundle.id(), "-eo", "comm,pid"]);
    assert!(output.success().contains("\nsleep "), "{output}");
    let output = call(&bundle, &["exec", bundle.id(), "echo", "-cwd", "--help"]);
    assert_eq!(output.success(), "-cwd --help\n");
}

/// The one flag that `kill` has is taken after the id, too; all else there is the signal.
#[test]
fn what_follows_the_id_of_kill_is_the_signal() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun | Runc, "they take it for a number, or for a flag");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let output = container.kill("-9");
    assert!(
        output.one_line_failure().contains("unknown signal \"-9\""),
        "{output}"
    );
    call(&bundle, &["kill", bundle.id(), "KILL", "-all"]).success();
    container.wait_for("stopped");
}

#[test]
fn every_flag_of_restore_is_taken_in_every_form() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::new();
    // There is no bundle, which is what is wrong with the call.
    let path = bundle.scratch().join("nowhere");
    let path = path.to_str().expect("a path");
    for (flag, takes) in RESTORE {
        for form in forms(flag, *takes) {
            let mut args = vec!["restore", "--bundle", path, bundle.id()];
            args.extend(form.iter().map(String::as_str));
            let output = call(&bundle, &args);
            assert!(output.one_line_failure().contains("restore"), "{output}");
            assert!(output.stderr.contains("no such file"), "{output}");
        }
    }
    bundle.assert_nothing_left();
}

/// As runc's own pages name them.
#[test]
fn help_names_every_command_and_every_flag() {
    gocker_only!();
    let help = |args: &[&str]| {
        let output = run_command(Command::new(&runtime().program).args(args).arg("--help"));
        output.success().to_owned()
    };
    let all = help(&[]);
    for name in [
        "--debug",
        "--log ",
        "--log-format",
        "--root",
        "--systemd-cgroup",
        "--rootless",
        "--version",
    ] {
        assert!(all.contains(name), "{name}: {all}");
    }
    for name in [
        "features", "list", "pause", "restore", "resume", "spec", "start", "state",
    ] {
        assert!(all.contains(&format!("\n  {name} ")), "{name}: {all}");
    }
    let obsolete = ["kernel-memory", "kernel-memory-tcp"];
    for (command, flags, _) in COMMANDS.iter().chain(&[("restore", RESTORE, "")]) {
        assert!(all.contains(&format!("\n  {command} ")), "{command}: {all}");
        let text = help(&[command]);
        for (flag, _) in flags.iter() {
            let is_told = obsolete.contains(flag) || text.contains(&format!("--{flag}"));
            assert!(is_told, "{command} --{flag}: {text}");
        }
    }
}

#[test]
fn values_that_a_flag_cannot_have_are_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun | Runc, "they look later, or not at all");
    let bundle = TestBundle::new();
    for args in [
        &["--log-format", "xml", "list"][..],
        &["--rootless", "perhaps", "list"],
        &["--debug=perhaps", "list"],
        &["create", "--preserve-fds", "-1", "nobody"],
        &["create", "--preserve-fds", "x", "nobody"],
        &["run", "--detach=x", "nobody"],
        &["checkpoint", "--manage-cgroups-mode", "x", "nobody"],
        &["checkpoint", "--status-fd", "x", "nobody"],
        &["events", "--interval", "5", "nobody"],
        &["ps", "--format", "xml", "nobody"],
        &["update", "--memory", "much", "nobody"],
        &["update", "--cpu-idle", "x", "nobody"],
        &["exec", "--cap", "CAP_FLY", "nobody", "true"],
        &["exec", "--preserve-fds=x", "nobody", "true"],
    ] {
        let output = call(&bundle, args);
        let stderr = output.failure();
        assert!(!stderr.contains("does not exist"), "{output}");
    }
}
