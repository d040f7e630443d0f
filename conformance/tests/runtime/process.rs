//! What the process gets: config.md#process, #posix-process, #linux-process,
//! #user, config-linux.md#sysctl.

use std::fs;

use conformance::host::{has_sys_resource, is_root};
use conformance::{TestBundle, needs, peer_differs};
use serde_json::{Value, json};

/// A line of the process's own /proc/self/status, after its name.
#[track_caller]
fn status_line(bundle: &TestBundle, name: &str) -> String {
    let output = bundle.run();
    let line = output
        .success()
        .lines()
        .find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}: {output}"))
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

fn cat_status() -> TestBundle {
    TestBundle::new().args(&["/bin/cat", "/proc/self/status"])
}

fn set_of(numbers: &[u32]) -> String {
    format!(
        "{:016x}",
        numbers.iter().fold(0_u64, |set, number| set | 1 << number)
    )
}

const CHOWN: u32 = 0;
const KILL: u32 = 5;
const SETUID: u32 = 7;
const SYS_CHROOT: u32 = 18;

/// All five sets, as capabilities(7) transforms them at execve of a user who is
/// not root.
#[test]
fn the_five_capability_sets_of_a_user_are_as_configured() {
    needs!(is_root(), "needs root");
    for (name, expected) in [
        ("CapInh", set_of(&[CHOWN, KILL])),
        ("CapPrm", set_of(&[KILL])),
        ("CapEff", set_of(&[KILL])),
        ("CapBnd", set_of(&[CHOWN, KILL, SETUID])),
        ("CapAmb", set_of(&[KILL])),
    ] {
        let bundle = cat_status()
            .set("/process/user", json!({"uid": 1000, "gid": 1000}))
            .set(
                "/process/capabilities",
                json!({
                    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
                    "permitted": ["CAP_CHOWN", "CAP_KILL"],
                    "inheritable": ["CAP_CHOWN", "CAP_KILL"],
                    "effective": ["CAP_KILL"],
                    "ambient": ["CAP_KILL"],
                }),
            );
        assert_eq!(status_line(&bundle, name), expected, "{name}");
    }
}

/// At execve root gets what the bounding set leaves.
#[test]
fn the_capabilities_of_root_are_those_of_the_bounding_set() {
    needs!(is_root(), "needs root");
    let sets = json!(["CAP_CHOWN", "CAP_SYS_CHROOT"]);
    let bundle = || {
        cat_status().set(
            "/process/capabilities",
            json!({"bounding": sets, "permitted": sets, "effective": sets}),
        )
    };
    let expected = set_of(&[CHOWN, SYS_CHROOT]);
    for name in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(status_line(&bundle(), name), expected, "{name}");
    }
    for name in ["CapInh", "CapAmb"] {
        assert_eq!(status_line(&bundle(), name), set_of(&[]), "{name}");
    }
}

#[test]
fn without_capabilities_all_sets_are_empty() {
    needs!(is_root(), "needs root");
    for capabilities in [
        Value::Null,
        json!({}),
        json!({"bounding": [], "permitted": []}),
    ] {
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let bundle = cat_status().set("/process/capabilities", capabilities.clone());
            assert_eq!(status_line(&bundle, name), set_of(&[]), "{name}");
        }
    }
}

/// runc warns of a name that it does not know; images of a newer kernel's time
/// still run.
#[test]
fn an_unknown_capability_does_not_take_the_others_with_it() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it refuses");
    let sets = json!(["CAP_CHOWN", "CAP_OF_THE_FUTURE"]);
    let bundle = cat_status().set(
        "/process/capabilities",
        json!({"bounding": sets, "permitted": sets, "effective": sets}),
    );
    assert_eq!(status_line(&bundle, "CapBnd"), set_of(&[CHOWN]));
    let output = bundle.run();
    output.success();
    let warnings = output.stderr.lines();
    let mut warnings = warnings.filter(|line| line.contains("warning"));
    let warned = warnings.any(|line| line.contains("CAP_OF_THE_FUTURE"));
    assert!(warned, "{output}");
}

#[test]
fn user_and_groups_are_those_of_the_config() {
    needs!(is_root(), "needs root");
    for (user, uid, gid, groups) in [
        (json!({"uid": 0, "gid": 0}), "0\t0\t0\t0", "0\t0\t0\t0", ""),
        (
            json!({"uid": 1000, "gid": 1001}),
            "1000\t1000\t1000\t1000",
            "1001\t1001\t1001\t1001",
            "",
        ),
        (
            json!({"uid": 12_345_678, "gid": 5, "additionalGids": [7, 70_000, 5]}),
            "12345678\t12345678\t12345678\t12345678",
            "5\t5\t5\t5",
            "5 7 70000",
        ),
        (
            json!({"uid": 0, "gid": 0, "additionalGids": [10]}),
            "0\t0\t0\t0",
            "0\t0\t0\t0",
            "10",
        ),
    ] {
        let bundle = || cat_status().set("/process/user", user.clone());
        assert_eq!(status_line(&bundle(), "Uid"), uid, "{user}");
        assert_eq!(status_line(&bundle(), "Gid"), gid, "{user}");
        let mut found: Vec<u32> = status_line(&bundle(), "Groups")
            .split_whitespace()
            .map(|group| group.parse().expect("a group"))
            .collect();
        found.sort_unstable();
        let found: Vec<String> = found.iter().map(u32::to_string).collect();
        assert_eq!(found.join(" "), groups, "{user}");
    }
}

#[test]
fn ids_that_are_none_are_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its parser cuts them");
    for (field, value) in [
        ("uid", json!(-1)),
        ("uid", json!(4_294_967_296_u64)),
        ("gid", json!(-5)),
        ("uid", json!("0")),
        ("uid", json!(0.5)),
        ("additionalGids", json!([-1])),
    ] {
        let bundle = TestBundle::new().set(&format!("/process/user/{field}"), value.clone());
        let output = bundle.run();
        assert!(
            output.one_line_failure().contains(field),
            "{value}: {output}"
        );
        bundle.assert_nothing_left();
    }
}

#[test]
fn umask_is_022_unless_configured() {
    needs!(is_root(), "needs root");
    assert_eq!(TestBundle::shell("umask").run_ok(), "0022\n");
    for (umask, expected) in [(0o077, "0077\n"), (0, "0000\n"), (0o777, "0777\n")] {
        let bundle = TestBundle::shell("umask").set("/process/user/umask", json!(umask));
        assert_eq!(bundle.run_ok(), expected);
    }
}

#[test]
fn rlimits_are_set() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new()
        .args(&["/bin/cat", "/proc/self/limits"])
        .set(
            "/process/rlimits",
            json!([
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_NPROC", "soft": 5000, "hard": 6000},
                {"type": "RLIMIT_STACK", "soft": 1_048_576, "hard": 18_446_744_073_709_551_615_u64},
                {"type": "RLIMIT_FSIZE", "soft": 12_288, "hard": 16_384},
            ]),
        );
    let limits = bundle.run_ok();
    for (name, soft, hard) in [
        ("Max open files", "100", "200"),
        ("Max core file size", "0", "0"),
        ("Max processes", "5000", "6000"),
        ("Max stack size", "1048576", "unlimited"),
        ("Max file size", "12288", "16384"),
    ] {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect(name);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], [soft, hard], "{name}");
    }
}

#[test]
fn a_hard_limit_can_be_raised_by_who_may() {
    needs!(is_root(), "needs root");
    needs!(has_sys_resource(), "needs CAP_SYS_RESOURCE");
    let bundle = TestBundle::shell("ulimit -Hn").set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 500_000}]),
    );
    assert_eq!(bundle.run_ok(), "500000\n");
}

/// config.md#posix-process: unknown types and duplicates must be errors.
#[test]
fn wrong_rlimits_are_refused() {
    needs!(is_root(), "needs root");
    let nofile = json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20});
    for rlimits in [
        json!([{"type": "RLIMIT_NOSUCH", "soft": 10, "hard": 20}]),
        json!([{"type": "NOFILE", "soft": 10, "hard": 20}]),
        json!([{"type": "RLIMIT_NOFILE", "soft": 30, "hard": 20}]),
        json!([nofile, nofile]),
    ] {
        if rlimits[1] == nofile && conformance::runtime().kind != conformance::Kind::Gocker {
            continue;
        }
        let bundle = TestBundle::new().set("/process/rlimits", rlimits.clone());
        let output = bundle.run();
        assert!(!output.one_line_failure().is_empty(), "{rlimits}: {output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn no_new_privileges_is_set_only_when_asked_for() {
    needs!(is_root(), "needs root");
    for (value, expected) in [(json!(true), "1"), (json!(false), "0"), (Value::Null, "0")] {
        let bundle = cat_status().set("/process/noNewPrivileges", value);
        assert_eq!(status_line(&bundle, "NoNewPrivs"), expected);
    }
}

#[test]
fn oom_score_adj_is_set_or_left_alone() {
    needs!(is_root(), "needs root");
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("read");
    let cat = || TestBundle::new().args(&["/bin/cat", "/proc/self/oom_score_adj"]);
    assert_eq!(cat().run_ok(), own);
    for score in [500, 1000] {
        let bundle = cat().set("/process/oomScoreAdj", json!(score));
        assert_eq!(bundle.run_ok(), format!("{score}\n"));
    }
}

#[test]
fn the_working_directory_is_the_configured_one_and_made_if_missing() {
    needs!(is_root(), "needs root");
    for cwd in ["/tmp", "/made/for/me", "/"] {
        let bundle = TestBundle::shell("pwd").set("/process/cwd", json!(cwd));
        assert_eq!(bundle.run_ok(), format!("{cwd}\n"));
    }
}

#[test]
fn a_working_directory_must_be_an_absolute_directory() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes a relative one from the root");
    for cwd in ["tmp", "", "/etc/passwd", "/bin/sh/x"] {
        let bundle = TestBundle::shell("pwd").set("/process/cwd", json!(cwd));
        let output = bundle.run();
        assert!(!output.one_line_failure().is_empty(), "{cwd:?}: {output}");
        bundle.assert_nothing_left();
    }
}

/// A directory that only the user may enter, and one that only root may.
#[test]
fn the_working_directory_is_entered_as_whoever_may() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("pwd")
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .set("/process/cwd", json!("/home"));
    let home = bundle.rootfs().join("home");
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).expect("chown");
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    assert_eq!(bundle.run_ok(), "/home\n");
}

#[test]
fn the_environment_is_the_configured_one_and_nothing_of_the_host() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().args(&["/bin/env"]).set(
        "/process/env",
        json!(["A=1", "B=two words", "C=", "HOME=/x", "D=x=y"]),
    );
    let mut command = bundle.runtime();
    command.env("FROM_THE_HOST", "1").env("LD_PRELOAD_X", "1");
    let path = bundle.path();
    let output = conformance::run_command(command.args(["run", "-b"]).arg(&path).arg(bundle.id()));
    let mut lines: Vec<&str> = output.success().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=1", "B=two words", "C=", "D=x=y", "HOME=/x"]);
}

/// Not in the specification, but what every caller of runc relies on.
#[test]
fn home_comes_from_passwd_where_it_is_not_set() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it leaves HOME out for a user without an entry");
    for (uid, home) in [(0, "/root\n"), (1000, "/home\n"), (4242, "/\n")] {
        let bundle =
            TestBundle::shell("echo $HOME").set("/process/user", json!({"uid": uid, "gid": 0}));
        assert_eq!(bundle.run_ok(), home, "{uid}");
    }
}

#[test]
fn a_program_is_looked_up_in_the_path_of_the_container() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new()
        .args(&["only-here", "a", "b c"])
        .set("/process/env", json!(["PATH=/nowhere:/opt/own", "X=y"]));
    fs::create_dir_all(bundle.rootfs().join("opt/own")).expect("mkdir");
    let script = bundle.rootfs().join("opt/own/only-here");
    fs::write(&script, "#!/bin/sh\necho \"$0 $# $2\"\n").expect("write");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    assert_eq!(bundle.run_ok(), "/opt/own/only-here 2 b c\n");
}

#[test]
fn a_relative_program_is_found_from_the_working_directory() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new()
        .args(&["./echo", "ok"])
        .set("/process/cwd", json!("/bin"));
    assert_eq!(bundle.run_ok(), "ok\n");
}

/// Engines turn these words into the exit codes 126 and 127.
#[test]
fn a_program_that_cannot_run_is_told_in_the_words_that_callers_match() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has words of its own");
    for (program, words) in [
        (
            "nosuchprogram",
            "exec: \"nosuchprogram\": executable file not found in $PATH",
        ),
        ("/no/such/program", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
        ("/etc", ""),
    ] {
        let bundle = TestBundle::new().args(&[program]);
        let output = bundle.run();
        // A log line in text form escapes the quotes.
        let line = output.one_line_failure().replace("\\\"", "\"");
        assert!(line.contains(words) && line.contains(program), "{output}");
        if program == "/etc" {
            let told = line.contains("permission denied") || line.contains("is a directory");
            assert!(told, "{output}");
        }
        assert_eq!(output.code(), 1, "{output}");
        let container = bundle.container();
        let created = container.create(&[]);
        let line = created.one_line_failure().replace("\\\"", "\"");
        assert!(line.contains(words), "{created}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn sysctls_are_set_in_the_container_alone() {
    needs!(is_root(), "needs root");
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let before = (read("kernel/msgmax"), read("net/ipv4/ip_default_ttl"));
    let bundle = TestBundle::shell("cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl")
        .set(
            "/linux/sysctl",
            json!({"kernel.msgmax": "4321", "net.ipv4.ip_default_ttl": "77"}),
        );
    assert_eq!(bundle.run_ok(), "4321\n77\n");
    assert_eq!(
        (read("kernel/msgmax"), read("net/ipv4/ip_default_ttl")),
        before
    );
}

#[test]
fn a_sysctl_that_would_change_the_host_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "some reach the kernel");
    for (name, absent) in [
        ("kernel.panic", "none"),
        ("vm.swappiness", "none"),
        ("net.ipv4.ip_default_ttl", "network"),
        ("kernel.msgmax", "ipc"),
        ("fs.file-max", "none"),
        ("kernel.../../vm/swappiness", "none"),
    ] {
        let bundle = TestBundle::new()
            .namespace(absent, None)
            .set("/linux/sysctl", json!({name: "60"}));
        let output = bundle.run();
        assert!(output.one_line_failure().contains(name), "{output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_sysctl_that_is_not_there_is_named() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().set("/linux/sysctl", json!({"net.no.such": "1"}));
    let output = bundle.run();
    let line = output.one_line_failure();
    assert!(
        line.contains("net.no.such") || line.contains("net/no/such"),
        "{output}"
    );
    bundle.assert_nothing_left();
}
