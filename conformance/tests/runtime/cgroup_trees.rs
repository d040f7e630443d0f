//! What a container and others do with cgroups while it lives, and what its limits do to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use conformance::host::{CgroupLayout, cgroup_directory, cgroup_layout, is_root};
use conformance::{TestBundle, gocker_only, leftovers, needs, run_command, wait_until};
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

/// What is allowed before and after is allowed all the time.
#[test]
fn a_change_of_device_rules_leaves_no_gap() {
    needs!(
        is_root() && (cgroup_layout() == CgroupLayout::V2 || has("devices")),
        "needs root"
    );
    gocker_only!();
    let rules = |minor: u32| {
        json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": minor, "access": "rw"},
        ]})
    };
    let script = "mknod /tmp/log c 1 11; while [ ! -e /stop ]; do \
                  true > /tmp/log || echo x >> /gaps; echo x >> /opened; done; touch /done";
    let capabilities = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]);
    let bundle = TestBundle::shell(script)
        .set("/linux/resources", rules(200))
        .set("/process/capabilities/bounding", capabilities.clone())
        .set("/process/capabilities/permitted", capabilities.clone())
        .set("/process/capabilities/effective", capabilities)
        .set("/process/noNewPrivileges", json!(false));
    let container = bundle.running();
    let file = |name: &str| bundle.rootfs().join(name);
    assert!(
        wait_until(PATIENCE, || file("opened").exists()),
        "nothing was opened"
    );
    let resources = bundle.scratch().join("rules.json");
    for minor in 201..216 {
        fs::write(&resources, rules(minor).to_string()).expect("write");
        let options = ["--resources", resources.to_str().expect("a path")];
        run_command(&mut container.command("update", &options)).success();
    }
    fs::write(file("stop"), "").expect("write");
    assert!(
        wait_until(PATIENCE, || file("done").exists()),
        "it does not end"
    );
    assert!(
        !file("gaps").exists(),
        "an allowed device could not be opened"
    );
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
    for mount in conformance::host::cgroup_mounts() {
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
