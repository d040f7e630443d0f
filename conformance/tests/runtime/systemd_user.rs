//! Cgroups that the systemd of an ordinary user makes, in the part of the tree that the machine's
//! systemd has given to it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conformance::host::{CgroupLayout, cgroup_layout, is_root};
use conformance::ordinary_user::{self, ID};
use conformance::{
    Container, Output, TestBundle, gocker_only, needs, peer_differs, run_command, wait_until,
};
use serde_json::json;

use super::systemd::{assert_goes, read, unit};

const MIB: u64 = 1024 * 1024;

macro_rules! needs_users_systemd {
    () => {
        needs!(is_root(), "needs root");
        needs!(
            cgroup_layout() == CgroupLayout::V2 && ordinary_user::start_systemd(),
            "needs cgroup v2 and systemd, with a user of id {ID}"
        );
    };
}

fn sleeper() -> TestBundle {
    TestBundle::sleeper().of_ordinary_user().users_systemd()
}

/// A property of a unit as the user's systemd shows it.
fn show(unit: &str, property: &str) -> String {
    let mut command = Command::new("systemctl");
    command.args(["--user", "show", "--value", "-p", property, unit]);
    ordinary_user::run_as_user(&mut command, Path::new("/"));
    command.env("XDG_RUNTIME_DIR", ordinary_user::systemd_directory());
    run_command(&mut command).success().trim().to_owned()
}

#[track_caller]
fn assert_no_unit(unit: &str) {
    assert_goes(unit, show);
}

fn cgroup_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
    text.trim().trim_start_matches("0::").to_owned()
}

fn exec(container: &Container<'_>, args: &[&str]) -> Output {
    run_command(container.command("exec", &[]).args(args))
}

/// The test's own cgroup is the machine's: there the user may move nobody away, and systemd does.
#[test]
fn the_container_is_a_scope_of_the_users_systemd() {
    needs_users_systemd!();
    peer_differs!(Crun, "it finds the user's bus by the environment alone");
    let bundle = sleeper();
    let container = bundle.created();
    let unit = unit(&bundle);
    assert_eq!(cgroup_of(container.pid()), bundle.cgroups_path());
    assert_eq!(show(&unit, "ActiveState"), "active");
    assert_eq!(show(&unit, "Slice"), "user.slice");
    assert_eq!(show(&unit, "Delegate"), "yes");
    container.start().success();
    assert_eq!(container.status(), "running");
    let output = exec(&container, &["/bin/cat", "/proc/self/cgroup"]);
    let expected = format!("0::{}", bundle.cgroups_path());
    assert_eq!(output.success().trim(), expected);
    container.delete(&["--force"]).success();
    assert_no_unit(&unit);
    bundle.assert_nothing_left();
}

#[test]
fn the_limits_of_a_users_container_are_set_and_changed() {
    needs_users_systemd!();
    peer_differs!(Runc | Crun, "Debian's convert some values otherwise");
    let resources = json!({
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB},
        "cpu": {"shares": 1024, "quota": 20_000, "period": 50_000},
        "pids": {"limit": 33},
    });
    let bundle = sleeper().set("/linux/resources", resources);
    let container = bundle.running();
    let unit = unit(&bundle);
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("pids.max", "33"),
        ("cpu.weight", "100"),
        ("cpu.max", "20000 50000"),
    ] {
        assert_eq!(read(&bundle, file), value, "{file}");
    }
    assert_eq!(show(&unit, "TasksMax"), "33");
    let mut update = container.command("update", &["--pids-limit", "20", "--memory", "50331648"]);
    run_command(&mut update).success();
    assert_eq!(read(&bundle, "pids.max"), "20");
    assert_eq!(show(&unit, "TasksMax"), "20");
    assert_eq!(read(&bundle, "memory.max"), "50331648");
    assert_eq!(show(&unit, "MemoryMax"), "50331648");
}

#[test]
fn a_users_container_can_be_paused_listed_and_killed_whole() {
    needs_users_systemd!();
    let script = "sleep 1000 & sleep 1000 & sleep 1000";
    let bundle = TestBundle::shell(script).of_ordinary_user().users_systemd();
    let container = bundle.running();
    let processes = || read(&bundle, "cgroup.procs").lines().count();
    assert!(
        wait_until(Duration::from_secs(20), || processes() == 3),
        "{}",
        processes()
    );
    let call = |subcommand| run_command(&mut container.command(subcommand, &[]));
    call("pause").success();
    assert_eq!(read(&bundle, "cgroup.freeze"), "1");
    assert_eq!(container.status(), "paused");
    call("resume").success();
    assert_eq!(call("ps").success().lines().count(), 4);
    container.delete(&["--force"]).success();
    assert_no_unit(&unit(&bundle));
    bundle.assert_nothing_left();
}

/// systemd hands users memory, pids and cpu, and no sets of processors.
#[test]
fn a_controller_that_the_user_was_not_given_is_named_and_nothing_is_left() {
    needs_users_systemd!();
    gocker_only!();
    let handed = format!(
        "/sys/fs/cgroup{}/cgroup.controllers",
        ordinary_user::systemd_cgroup()
    );
    let handed = fs::read_to_string(handed).expect("controllers");
    needs!(!handed.contains("hugetlb"), "the user was given hugetlb");
    let limits = json!([{"pageSize": "2MB", "limit": 0}]);
    let bundle = sleeper().set("/linux/resources/hugepageLimits", limits);
    let output = bundle.container().create(&[]);
    let line = output.one_line_failure();
    assert!(line.contains("linux.resources.hugepageLimits"), "{line}");
    bundle.assert_nothing_left();
    assert_no_unit(&unit(&bundle));
}

#[test]
fn a_user_without_a_systemd_is_told_so() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = sleeper();
    let mut command = bundle.runtime();
    command
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .arg(bundle.id())
        .env("XDG_RUNTIME_DIR", bundle.scratch().join("home/run"));
    let output = run_command(&mut command);
    let line = output.one_line_failure();
    assert!(line.contains(&format!("systemd of user {ID}")), "{line}");
    bundle.assert_nothing_left();
}
