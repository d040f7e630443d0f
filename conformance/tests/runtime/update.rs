//! `update`: the limits of a living container.

use std::fs;
use std::process::Stdio;

use conformance::command::run_with_stdin;
use conformance::host::{CgroupLayout, cgroup_directory, cgroup_layout, is_root};
use conformance::{Container, Output, TestBundle, gocker_only, needs, peer_differs, run_command};
use serde_json::{Value, json};

fn update(container: &Container<'_>, options: &[&str]) -> Output {
    run_command(&mut container.command("update", options))
}

fn update_from(bundle: &TestBundle, container: &Container<'_>, resources: &Value) -> Output {
    let file = bundle.scratch().join("resources.json");
    fs::write(&file, resources.to_string()).expect("write");
    update(container, &["--resources", file.to_str().expect("a path")])
}

/// A file of the container's cgroup, by its name on v1 and on v2.
fn limit(bundle: &TestBundle, controller: &str, v1: &str, v2: &str) -> String {
    let name = match cgroup_layout() {
        CgroupLayout::V1 => v1,
        CgroupLayout::V2 => v2,
    };
    let directory = cgroup_directory(controller, bundle.cgroups_path()).expect("a hierarchy");
    let text = fs::read_to_string(directory.join(name)).expect("read");
    text.trim_end().to_owned()
}

fn memory(bundle: &TestBundle) -> String {
    limit(bundle, "memory", "memory.limit_in_bytes", "memory.max")
}

fn pids(bundle: &TestBundle) -> String {
    limit(bundle, "pids", "pids.max", "pids.max")
}

/// Quota and period.
fn cpu(bundle: &TestBundle) -> (String, String) {
    if cgroup_layout() == CgroupLayout::V2 {
        let text = limit(bundle, "cpu", "", "cpu.max");
        let (quota, period) = text.split_once(' ').expect("two numbers");
        return (quota.to_owned(), period.to_owned());
    }
    let file = |name| limit(bundle, "cpu", name, "");
    (file("cpu.cfs_quota_us"), file("cpu.cfs_period_us"))
}

fn has_controllers() -> bool {
    ["memory", "pids", "cpu", "cpuset"]
        .iter()
        .all(|controller| cgroup_directory(controller, "/").is_some())
}

#[test]
fn single_flags_change_single_limits() {
    needs!(is_root() && has_controllers(), "needs root and controllers");
    peer_differs!(Crun, "it takes no units");
    let bundle = TestBundle::sleeper().set("/linux/resources/pids", json!({"limit": 50}));
    let container = bundle.running();
    update(&container, &["--memory", "64m"]).success();
    assert_eq!(memory(&bundle), (64 << 20).to_string());
    assert_eq!(pids(&bundle), "50");
    update(&container, &["--pids-limit", "20"]).success();
    assert_eq!(pids(&bundle), "20");
    update(
        &container,
        &["--cpu-quota", "50000", "--cpu-period", "200000"],
    )
    .success();
    assert_eq!(cpu(&bundle), ("50000".into(), "200000".into()));
    update(&container, &["--cpuset-cpus", "0"]).success();
    assert_eq!(limit(&bundle, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    update(&container, &["--memory", "134217728"]).success();
    assert_eq!(memory(&bundle), (128 << 20).to_string());
    assert_eq!(pids(&bundle), "20");
}

/// What Docker sends for "no limit".
#[test]
fn minus_one_lifts_limits() {
    needs!(is_root() && has_controllers(), "needs root and controllers");
    peer_differs!(Crun, "it does not know -1");
    let bundle = TestBundle::sleeper().set("/linux/resources/memory", json!({"limit": 67_108_864}));
    let container = bundle.running();
    let unlimited = |text: &str| text == "max" || text.parse::<u64>().is_ok_and(|n| n > 1 << 62);
    let resources = json!({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1},
        "cpu": {"quota": -1}});
    update_from(&bundle, &container, &resources).success();
    assert!(unlimited(&memory(&bundle)));
    assert_eq!(pids(&bundle), "max");
    assert!(["-1", "max"].contains(&cpu(&bundle).0.as_str()));
}

#[test]
fn resources_come_from_a_file_or_stdin() {
    needs!(is_root() && has_controllers(), "needs root and controllers");
    peer_differs!(Crun, "it writes zeros");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let resources = json!({"memory": {"limit": 33_554_432, "swap": 0}, "pids": {"limit": 30},
        "cpu": {"shares": 0, "quota": 20_000, "period": 100_000, "cpus": "", "mems": ""},
        "blockIO": {"weight": 0}});
    update_from(&bundle, &container, &resources).success();
    assert_eq!(memory(&bundle), (32 << 20).to_string());
    assert_eq!(pids(&bundle), "30");
    assert_eq!(cpu(&bundle).0, "20000");
    let file = bundle.scratch().join("stdin.json");
    fs::write(&file, r#"{"pids": {"limit": 31}}"#).expect("write");
    let mut command = container.command("update", &["-r", "-"]);
    command.stdin(Stdio::from(fs::File::open(&file).expect("open")));
    run_with_stdin(&mut command).success();
    assert_eq!(pids(&bundle), "31");
    assert_eq!(cpu(&bundle).0, "20000");
}

#[test]
fn a_created_and_a_paused_container_can_be_updated_and_no_stopped_one() {
    needs!(is_root() && has_controllers(), "needs root and controllers");
    peer_differs!(Crun, "it has words of its own");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    update(&container, &["--pids-limit", "20"]).success();
    assert_eq!(pids(&bundle), "20");
    container.start().success();
    run_command(&mut container.command("pause", &[])).success();
    update(&container, &["--pids-limit", "21"]).success();
    assert_eq!(pids(&bundle), "21");
    assert_eq!(container.status(), "paused");
    container.kill("KILL").success();
    container.wait_for("stopped");
    let output = update(&container, &["--pids-limit", "22"]);
    assert!(
        output.one_line_failure().contains("container not running"),
        "{output}"
    );
    let output = update(&bundle.container_named("nobody"), &["--pids-limit", "22"]);
    assert!(output.stderr.contains("does not exist"), "{output}");
}

/// The kernel takes no shares for a cgroup that is idle: the order of the two decides.
#[test]
fn an_idle_container_gets_shares_with_its_end_of_idleness() {
    needs!(is_root() && has_controllers(), "needs root and controllers");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let weight = || limit(&bundle, "cpu", "cpu.shares", "cpu.weight");
    let idle = || limit(&bundle, "cpu", "cpu.idle", "cpu.idle");
    let first = json!({"cpu": {"shares": 2, "idle": 1}});
    update_from(&bundle, &container, &first).success();
    assert_eq!(idle(), "1");
    let second = json!({"cpu": {"shares": 262_144, "idle": 0}});
    update_from(&bundle, &container, &second).success();
    assert_eq!(idle(), "0");
    assert!(
        ["262144", "10000"].contains(&weight().as_str()),
        "{}",
        weight()
    );
}

#[test]
fn what_cannot_be_served_is_named_and_nothing_changes() {
    needs!(is_root() && has_controllers(), "needs root and controllers");
    gocker_only!();
    let bundle = TestBundle::sleeper().set("/linux/resources/pids", json!({"limit": 50}));
    let container = bundle.running();
    for (resources, field) in [
        (
            json!({"pids": {"limit": 9}, "cpu": {"quota": "x"}}),
            "cpu.quota",
        ),
        (
            json!({"pids": {"limit": 9}, "cpu": {"quota": -3}}),
            "cpu.quota",
        ),
        (
            json!({"pids": {"limit": 9}, "memory": {"limit": -3}}),
            "memory.limit",
        ),
        (
            json!({"pids": {"limit": 9}, "blockIO": {"weight": 5}}),
            "blockIO.weight",
        ),
        (
            json!({"pids": {"limit": 9}, "unified": {"nope.max": "1"}}),
            "unified[\"nope.max\"]",
        ),
        (json!(null), "linux.resources"),
    ] {
        let output = update_from(&bundle, &container, &resources);
        assert!(output.one_line_failure().contains(field), "{output}");
        assert_eq!(pids(&bundle), "50", "{resources}");
    }
    for (options, words) in [
        (&["--memory", "1x"][..], "--memory"),
        (&["--l3-cache-schema", "x"], "--l3-cache-schema"),
        (&["--mem-bw-schema", "x"], "--mem-bw-schema"),
        (&["--resources", "/no/such/file"], "/no/such/file"),
        (&["--resources", "-", "--pids-limit", "9"], "--resources"),
        (&["--cpuset-cpus", "4000"], "cpu.cpus"),
    ] {
        let output = update(&container, options);
        assert!(output.one_line_failure().contains(words), "{output}");
    }
    assert_eq!(pids(&bundle), "50");
}
