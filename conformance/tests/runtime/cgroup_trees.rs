//! What a container and others do with cgroups while it lives, and what its limits do to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use conformance::host::{self, CgroupLayout, cgroup_directory, cgroup_layout, is_root};
use conformance::{
    Container, TestBundle, gocker_only, leftovers, needs, peer_differs, run_command, wait_until,
};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// The value after `key` in a file of the cgroup.
fn count(bundle: &TestBundle, controller: &str, file: &str, key: &str) -> u64 {
    let directory = cgroup_directory(controller, bundle.cgroups_path()).expect("the controller");
    let text = fs::read_to_string(directory.join(file)).expect("read");
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.expect("the key").trim().parse().expect("a number")
}

fn has(controller: &str) -> bool {
    cgroup_directory(controller, "/").is_some()
}

/// A directory of the test's own, one level below the container's, in each hierarchy.
fn below(bundle: &TestBundle, name: &str) -> Vec<PathBuf> {
    let cgroups = leftovers::cgroups(bundle.cgroups_path()).into_iter();
    let made: Vec<PathBuf> = cgroups.map(|cgroup| cgroup.join(name)).collect();
    for directory in &made {
        fs::create_dir(directory).expect("make a cgroup");
        // v1's cpuset takes nobody before it has these.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let parent = directory.parent().expect("a parent").join(file);
            if cgroup_layout() == CgroupLayout::V1 && parent.exists() {
                let value = fs::read_to_string(parent).expect("read");
                fs::write(directory.join(file), value).expect("write");
            }
        }
    }
    made
}

/// A process that is no container's, and ends with the test.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().expect("sleep"))
    }

    fn enter(&self, cgroup: &Path) {
        fs::write(cgroup.join("cgroup.procs"), self.0.id().to_string()).expect("enter");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

#[test]
fn a_quota_keeps_a_busy_process_waiting() {
    needs!(is_root() && has("cpu"), "needs root and the controller cpu");
    let bundle = TestBundle::shell("while :; do :; done").set(
        "/linux/resources/cpu",
        json!({"quota": 5000, "period": 50_000}),
    );
    let _container = bundle.running();
    let throttled = || count(&bundle, "cpu", "cpu.stat", "nr_throttled ");
    assert!(wait_until(PATIENCE, || throttled() > 3), "{}", throttled());
}

#[test]
fn pressure_is_told_where_the_kernel_counts_it() {
    needs!(is_root() && has("cpu"), "needs root and the controller cpu");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let text = run_command(&mut container.command("events", &["--stats"]));
    let event: Value = serde_json::from_str(text.success()).expect("JSON");
    assert_eq!(event["data"]["intel_rdt"], json!({}));
    for (section, controller) in [("cpu", "cpu"), ("memory", "memory"), ("blkio", "io")] {
        let file = cgroup_directory(controller, bundle.cgroups_path())
            .map(|directory| directory.join(format!("{controller}.pressure")));
        // Some kernels have the file and do not count.
        let is_counted = file.is_some_and(|file| fs::read_to_string(file).is_ok());
        let told = &event["data"][section]["psi"];
        assert_eq!(
            told["some"]["total"].is_u64(),
            is_counted,
            "{section}: {told}"
        );
        assert_eq!(
            told["full"]["avg10"].is_number(),
            is_counted,
            "{section}: {told}"
        );
    }
}

/// What is allowed before and after is allowed all the time, and so for what is denied; also where
/// kinds of access come and go beside.
#[test]
fn a_change_of_device_rules_leaves_no_gap() {
    needs!(
        is_root() && (cgroup_layout() == CgroupLayout::V2 || has("devices")),
        "needs root"
    );
    gocker_only!();
    let rules = |round: u32| {
        let access = if round.is_multiple_of(2) { "rw" } else { "rwm" };
        json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 11, "access": access},
            {"allow": true, "type": "c", "major": 10, "minor": 200 + round, "access": "rw"},
        ]})
    };
    assert_no_gap_between(16, rules);
}

/// v1 tells nobody what a cgroup denies that allows all the rest.
#[test]
fn a_change_from_all_but_some_devices_leaves_no_gap() {
    needs!(
        is_root() && (cgroup_layout() == CgroupLayout::V2 || has("devices")),
        "needs root"
    );
    gocker_only!();
    let rules = |round: u32| {
        json!({"devices": [
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 1, "minor": 1, "access": "rw"},
            {"allow": false, "type": "c", "major": 10, "minor": 200 + round, "access": "rw"},
        ]})
    };
    assert_no_gap_between(8, rules);
}

/// Changes the resources of a container that watches its devices, from those of round 0 on.
#[track_caller]
fn assert_no_gap_between(rounds: u32, rules: impl Fn(u32) -> Value) {
    let bundle = opener(&rules(0));
    let container = bundle.running();
    let opened = bundle.rootfs().join("opened");
    assert!(
        wait_until(PATIENCE, || opened.exists()),
        "nothing was opened"
    );
    for round in 1..rounds {
        update(&bundle, &container, &rules(round));
    }
    assert_no_gap(&bundle);
}

/// A container that all the time opens the kernel's log for writing and its memory for reading,
/// and notes when the first is denied or the second allowed.
fn opener(resources: &Value) -> TestBundle {
    let script = "mknod /tmp/log c 1 11; mknod /tmp/mem c 1 1; while [ ! -e /stop ]; do \
                  true > /tmp/log || echo log >> /gaps; { true < /tmp/mem; } && echo mem >> /gaps; \
                  echo x > /opened; done; touch /done";
    let capabilities = json!([
        "CAP_MKNOD",
        "CAP_DAC_OVERRIDE",
        "CAP_SYS_ADMIN",
        "CAP_SYS_RAWIO"
    ]);
    TestBundle::shell(script)
        .set("/linux/resources", resources.clone())
        .set("/process/capabilities/bounding", capabilities.clone())
        .set("/process/capabilities/permitted", capabilities.clone())
        .set("/process/capabilities/effective", capabilities)
        .set("/process/noNewPrivileges", json!(false))
}

fn update(bundle: &TestBundle, container: &Container<'_>, resources: &Value) {
    let file = bundle.scratch().join("resources.json");
    fs::write(&file, resources.to_string()).expect("write");
    let options = ["--resources", file.to_str().expect("a path")];
    run_command(&mut container.command("update", &options)).success();
}

#[track_caller]
fn assert_no_gap(bundle: &TestBundle) {
    let file = |name: &str| bundle.rootfs().join(name);
    fs::write(file("stop"), "").expect("write");
    assert!(
        wait_until(PATIENCE, || file("done").exists()),
        "it does not end"
    );
    let gaps = fs::read_to_string(file("gaps")).unwrap_or_default();
    assert_eq!(gaps, "", "opened, or not, at a wrong time");
}

#[test]
fn processes_in_sub_cgroups_are_killed_and_the_cgroups_go() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let exec = |name: &str| {
        let pid_file = bundle.scratch().join(name);
        let options = ["-d", "--pid-file", pid_file.to_str().expect("a path")];
        let mut command = container.command("exec", &options);
        run_command(command.args(["/bin/sleep", "1000"])).success();
        fs::read_to_string(pid_file).expect("a pid")
    };
    let pid = exec("pid");
    let cgroups = below(&bundle, "sub");
    for cgroup in &cgroups {
        fs::write(cgroup.join("cgroup.procs"), &pid).expect("move");
    }
    container.delete(&["--force"]).success();
    let gone = || !Path::new("/proc").join(&pid).join("exe").exists();
    assert!(wait_until(PATIENCE, gone), "{pid} lives");
    bundle.assert_nothing_left();
}

/// Each process starts another and ends: a list of them is old when it is read.
#[test]
fn processes_that_fork_all_the_time_are_killed_to_the_last() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "newer ones only");
    let bundle = forker();
    let container = bundle.running();
    kill_to_the_last(&bundle, &container);
}

/// Kernels before 5.14 have no `cgroup.kill`; this one's is hidden by that of a cgroup that is
/// gone, which nobody can write.
#[test]
fn without_cgroup_kill_a_tree_is_killed_by_the_freezer() {
    needs!(
        is_root() && cgroup_layout() == CgroupLayout::V2,
        "needs root and cgroup v2"
    );
    gocker_only!();
    host::enter_private_mounts();
    let bundle = forker();
    let container = bundle.running();
    let cgroup = cgroup_directory("pids", bundle.cgroups_path()).expect("the controller");
    let gone = cgroup_directory("pids", &format!("/conformance-gone-{}", bundle.id()));
    let gone = gone.expect("the controller");
    fs::create_dir(&gone).expect("make a cgroup");
    let hidden = cgroup.join("cgroup.kill");
    mount(
        Some(&gone.join("cgroup.kill")),
        &hidden,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .expect("hide cgroup.kill");
    fs::remove_dir(&gone).expect("remove a cgroup");
    fs::write(&hidden, "1").expect_err("is hidden");
    kill_to_the_last(&bundle, &container);
    match umount2(&hidden, MntFlags::MNT_DETACH) {
        // systemd takes an empty cgroup away, and what is mounted in it.
        Ok(()) | Err(Errno::ENOENT) => (),
        Err(error) => panic!("unmount: {error}"),
    }
}

/// A container without a pid namespace, the end of whose init ends nobody else.
fn forker() -> TestBundle {
    TestBundle::shell("hop() { touch /hopped; hop & }; hop; exec sleep 1000")
        .namespace("pid", None)
        .set("/linux/resources/pids", json!({"limit": 100}))
}

#[track_caller]
fn kill_to_the_last(bundle: &TestBundle, container: &Container<'_>) {
    let hopped = bundle.rootfs().join("hopped");
    assert!(wait_until(PATIENCE, || hopped.exists()), "does not run");
    container.kill("KILL").success();
    let cgroups = leftovers::cgroups(bundle.cgroups_path());
    assert!(
        wait_until(PATIENCE, || leftovers::processes(&cgroups).is_empty()),
        "{:?} live",
        leftovers::processes(&cgroups)
    );
    container.wait_for("stopped");
}

/// A cgroup that says nothing of processors has those of the one above it, on v1 by copy.
#[test]
fn a_container_has_the_processors_of_the_cgroup_above_it() {
    needs!(
        is_root() && has("cpuset"),
        "needs root and the controller cpuset"
    );
    needs!(!by_systemd(), "systemd makes its own");
    let parent = format!("/conformance-{}", TestBundle::new().id());
    let dir = cgroup_directory("cpuset", &parent).expect("the controller");
    fs::create_dir(&dir).expect("make a cgroup");
    let _removed = RemovedCgroups(parent.clone());
    if cgroup_layout() == CgroupLayout::V2 {
        let handed = cgroup_directory("cpuset", "/").expect("the controller");
        fs::write(handed.join("cgroup.subtree_control"), "+cpuset").expect("hand down");
    } else {
        fs::write(dir.join("cpuset.mems"), "0").expect("write");
    }
    fs::write(dir.join("cpuset.cpus"), "1").expect("write");
    let bundle = TestBundle::shell("grep Cpus_allowed_list /proc/self/status")
        .set("/linux/cgroupsPath", json!(format!("{parent}/below")));
    assert_eq!(bundle.run_ok(), "Cpus_allowed_list:\t1\n");
}

/// Takes cgroups of the test's own away when it ends.
struct RemovedCgroups(String);

impl Drop for RemovedCgroups {
    fn drop(&mut self) {
        leftovers::remove_cgroups(&self.0);
    }
}

#[test]
fn threaded_cgroups_that_a_container_made_go_with_it() {
    needs!(
        is_root() && cgroup_layout() == CgroupLayout::V2,
        "needs root and cgroup v2"
    );
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for directory in below(&bundle, "threads") {
        fs::write(directory.join("cgroup.type"), "threaded").expect("make it threaded");
        let deeper = directory.join("deeper");
        fs::create_dir(&deeper).expect("make a cgroup");
        fs::write(deeper.join("cgroup.type"), "threaded").expect("make it threaded");
        fs::write(deeper.join("cgroup.threads"), container.pid().to_string()).expect("move");
    }
    container.delete(&["--force"]).success();
    bundle.assert_nothing_left();
}

/// Somebody has made it, and nobody is in it: it becomes the container's.
#[test]
fn an_empty_cgroup_that_was_there_is_used_and_goes() {
    needs!(is_root(), "needs root");
    needs!(!by_systemd(), "systemd makes its own");
    let bundle = TestBundle::sleeper();
    for mount in host::cgroup_mounts() {
        fs::create_dir(mount.join(bundle.cgroups_path().trim_start_matches('/'))).expect("make");
    }
    let container = bundle.running();
    container.delete(&["--force"]).success();
    bundle.assert_nothing_left();
}

#[test]
fn a_cgroup_that_somebody_is_in_is_refused_and_left_alone() {
    needs!(is_root(), "needs root");
    needs!(!by_systemd(), "systemd makes its own");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let controller = if cgroup_layout() == CgroupLayout::V2 {
        "pids"
    } else {
        "devices"
    };
    let cgroup = cgroup_directory(controller, bundle.cgroups_path()).expect("the controller");
    fs::create_dir(&cgroup).expect("make");
    let stranger = Stranger::new();
    stranger.enter(&cgroup);
    let output = bundle.container().create(&[]);
    let line = output.one_line_failure();
    assert!(line.contains("is not empty: 1 process"), "{line}");
    assert!(line.contains(bundle.cgroups_path()), "{line}");
    let inside = fs::read_to_string(cgroup.join("cgroup.procs")).expect("is there");
    assert_eq!(inside.trim(), stranger.0.id().to_string());
    drop(stranger);
    assert!(
        wait_until(PATIENCE, || fs::remove_dir(&cgroup).is_ok()),
        "stays"
    );
    bundle.assert_nothing_left();
}

fn by_systemd() -> bool {
    std::env::var("GOCKER_SYSTEMD").as_deref() == Ok("1")
}
