//! Cgroups that systemd makes, for `--systemd-cgroup`: what the unit says and what the files
//! say. config-linux.md#cgroups-path leaves the form `slice:prefix:name` to the runtime; it is
//! runc's.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conformance::host::{CgroupLayout, cgroup_layout, has_systemd, is_root};
use conformance::{
    Container, Output, TestBundle, gocker_only, leftovers, needs, peer_differs, run_command,
    wait_until,
};
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;

macro_rules! needs_systemd {
    () => {
        needs!(is_root(), "needs root");
        needs!(
            has_systemd() && cgroup_layout() == CgroupLayout::V2,
            "needs systemd and cgroup v2"
        );
    };
}

fn sleeper() -> TestBundle {
    TestBundle::sleeper().systemd()
}

pub(super) fn unit(bundle: &TestBundle) -> String {
    format!("conformance-{}.scope", bundle.id())
}

/// A property of a unit as systemd shows it.
fn show(unit: &str, property: &str) -> String {
    let mut command = Command::new("systemctl");
    command.args(["show", "--value", "-p", property, unit]);
    run_command(&mut command).success().trim().to_owned()
}

#[track_caller]
fn assert_no_unit(unit: &str) {
    assert_goes(unit, show);
}

/// Asserts that a unit, whose properties `show` tells, is soon no more.
#[track_caller]
pub(super) fn assert_goes(unit: &str, show: fn(&str, &str) -> String) {
    let is_gone =
        || show(unit, "LoadState") == "not-found" || show(unit, "ActiveState") == "inactive";
    assert!(
        wait_until(Duration::from_secs(20), is_gone),
        "{unit} is {} {}",
        show(unit, "LoadState"),
        show(unit, "ActiveState")
    );
}

#[track_caller]
pub(super) fn read(bundle: &TestBundle, file: &str) -> String {
    let directory = Path::new("/sys/fs/cgroup").join(bundle.cgroups_path().trim_start_matches('/'));
    let path = directory.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.trim().to_owned()
}

fn cgroup_of(container: &Container<'_>) -> String {
    let pid = container.state()["pid"].as_i64().expect("a pid");
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
    text.trim().trim_start_matches("0::").to_owned()
}

#[test]
fn the_container_is_a_scope_in_its_slice() {
    needs_systemd!();
    let bundle = sleeper();
    let container = bundle.created();
    let unit = unit(&bundle);
    assert_eq!(show(&unit, "ActiveState"), "active");
    assert_eq!(show(&unit, "Slice"), "system.slice");
    assert_eq!(show(&unit, "Delegate"), "yes");
    assert_eq!(show(&unit, "ControlGroup"), bundle.cgroups_path());
    assert_eq!(cgroup_of(&container), bundle.cgroups_path());
    container.start().success();
    container.delete(&["--force"]).success();
    assert_no_unit(&unit);
    assert!(leftovers::cgroups(bundle.cgroups_path()).is_empty());
}

#[test]
fn a_slice_of_its_own_is_made_with_the_slices_above_it() {
    needs_systemd!();
    let path = format!("gocker-conformance.slice:a:{}", TestBundle::new().id());
    let bundle = sleeper().set("/linux/cgroupsPath", json!(path));
    let container = bundle.running();
    let cgroup = cgroup_of(&container);
    assert!(
        cgroup.starts_with("/gocker.slice/gocker-conformance.slice/a-"),
        "{cgroup}"
    );
    assert_eq!(cgroup, bundle.cgroups_path());
}

#[test]
fn without_a_path_the_unit_is_named_by_the_id() {
    needs_systemd!();
    let bundle = sleeper().edit(|config| {
        let linux = config["linux"].as_object_mut().expect("an object");
        linux.remove("cgroupsPath");
    });
    let container = bundle.running();
    let unit = format!("runc-{}.scope", bundle.id());
    assert_eq!(cgroup_of(&container), format!("/system.slice/{unit}"));
    container.delete(&["--force"]).success();
    assert_no_unit(&unit);
}

/// Resources; a property and its value; a file and its content.
type Row<'t> = (Value, (&'t str, &'t str), (&'t str, &'t str));

fn rows() -> [Row<'static>; 8] {
    [
        (
            json!({"memory": {"limit": 64 * MIB, "swap": 96 * MIB}}),
            ("MemoryMax", "67108864"),
            ("memory.max", "67108864"),
        ),
        (
            json!({"memory": {"limit": 64 * MIB, "reservation": 32 * MIB}}),
            ("MemoryLow", "33554432"),
            ("memory.low", "33554432"),
        ),
        (
            json!({"cpu": {"shares": 1024}}),
            ("CPUWeight", "100"),
            ("cpu.weight", "100"),
        ),
        // systemd keeps whole percents; the file has the exact value.
        (
            json!({"cpu": {"quota": 33_333, "period": 100_000}}),
            ("CPUQuotaPerSecUSec", "340ms"),
            ("cpu.max", "33333 100000"),
        ),
        (
            json!({"cpu": {"cpus": "0", "mems": "0"}}),
            ("AllowedCPUs", "0"),
            ("cpuset.cpus", "0"),
        ),
        (
            json!({"pids": {"limit": 33}}),
            ("TasksMax", "33"),
            ("pids.max", "33"),
        ),
        (
            json!({"pids": {"limit": -1}}),
            ("TasksMax", "infinity"),
            ("pids.max", "max"),
        ),
        (
            json!({"unified": {"memory.high": "50331648", "pids.max": "44"}}),
            ("MemoryHigh", "50331648"),
            ("memory.high", "50331648"),
        ),
    ]
}

#[test]
fn limits_are_known_to_systemd_and_set_in_the_files() {
    needs_systemd!();
    peer_differs!(Runc | Crun, "Debian's convert some values otherwise");
    for (resources, (property, shown), (file, content)) in rows() {
        let bundle = sleeper().set("/linux/resources", resources.clone());
        let _container = bundle.created();
        assert_eq!(show(&unit(&bundle), property), shown, "{resources}");
        assert_eq!(read(&bundle, file), content, "{resources}");
    }
}

#[test]
fn limits_and_device_rules_outlive_a_reload_of_systemd() {
    needs_systemd!();
    let resources = json!({
        "memory": {"limit": 64 * MIB},
        "pids": {"limit": 33},
        "devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"},
        ],
    });
    let bundle = sleeper().set("/linux/resources", resources);
    let container = bundle.running();
    // Another property makes systemd write all that it knows.
    let mut reload = Command::new("systemctl");
    run_command(reload.arg("daemon-reload")).success();
    let mut set = Command::new("systemctl");
    let changed = set.args(["set-property", "--runtime", &unit(&bundle), "CPUWeight=77"]);
    run_command(changed).success();
    assert_eq!(read(&bundle, "cpu.weight"), "77");
    assert_eq!(read(&bundle, "memory.max"), (64 * MIB).to_string());
    assert_eq!(read(&bundle, "pids.max"), "33");
    let script = "cat /dev/null && head -c1 /dev/zero >/dev/null && mknod /tmp/mem c 1 1 && \
                  ! head -c1 /tmp/mem 2>/dev/null && echo as before";
    let bundle_id = bundle.id().to_owned();
    let output = bundle.call(&[
        "exec",
        "--cap",
        "CAP_MKNOD",
        &bundle_id,
        "/bin/sh",
        "-c",
        script,
    ]);
    assert_eq!(output.success().trim(), "as before");
    drop(container);
}

#[test]
fn update_tells_systemd_too() {
    needs_systemd!();
    peer_differs!(Runc | Crun, "Debian's convert some values otherwise");
    let bundle = sleeper().set(
        "/linux/resources",
        json!({"cpu": {"quota": 20_000, "period": 50_000}, "memory": {"limit": 64 * MIB}}),
    );
    let container = bundle.running();
    let update = |flags: &[&str]| {
        run_command(&mut container.command("update", flags)).success();
    };
    // The period that is there counts for the new quota.
    update(&["--cpu-quota", "25000"]);
    assert_eq!(show(&unit(&bundle), "CPUQuotaPerSecUSec"), "500ms");
    assert_eq!(read(&bundle, "cpu.max"), "25000 50000");
    update(&["--memory", "50331648", "--pids-limit", "20"]);
    assert_eq!(show(&unit(&bundle), "MemoryMax"), "50331648");
    assert_eq!(read(&bundle, "memory.max"), "50331648");
    assert_eq!(show(&unit(&bundle), "TasksMax"), "20");
    assert_eq!(read(&bundle, "pids.max"), "20");
}

#[test]
fn annotations_become_properties() {
    needs_systemd!();
    let bundle = sleeper()
        .set(
            "/annotations/org.systemd.property.TimeoutStopSec",
            json!("7"),
        )
        .set(
            "/annotations/org.systemd.property.CollectMode",
            json!("'inactive-or-failed'"),
        )
        .set(
            "/annotations/org.systemd.property.Documentation",
            json!("['man:one(1)']"),
        )
        .set(
            "/annotations/org.systemd.property.SendSIGHUP",
            json!("true"),
        )
        .set(
            "/annotations/org.systemd.property.RuntimeMaxUSec",
            json!("uint64 3600000000"),
        );
    let _container = bundle.created();
    let unit = unit(&bundle);
    assert_eq!(show(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(show(&unit, "CollectMode"), "inactive-or-failed");
    assert_eq!(show(&unit, "SendSIGHUP"), "yes");
    assert_eq!(show(&unit, "RuntimeMaxUSec"), "1h");
    assert_eq!(show(&unit, "Documentation").trim_matches('"'), "man:one(1)");
}

/// Known before systemd is asked.
#[test]
fn an_annotation_that_can_be_no_property_is_refused_by_its_key() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (name, value) in [
        ("TimeoutStopSec", "'soon'"),
        ("TimeoutStopSec", "-1"),
        ("SendSIGHUP", "maybe"),
        ("a/b", "1"),
        ("Documentation", "['x', 1]"),
    ] {
        let key = format!("org.systemd.property.{name}");
        let bundle = sleeper().edit(|config| config["annotations"] = json!({(&key): value}));
        let output = bundle.container().create(&[]);
        let line = output.one_line_failure();
        assert!(line.contains(&format!("annotations[{key:?}]: ")), "{line}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_property_that_systemd_refuses_is_named_and_nothing_is_left() {
    needs_systemd!();
    gocker_only!();
    let key = "org.systemd.property.NoSuchThing";
    let bundle = sleeper().set(&format!("/annotations/{key}"), json!("true"));
    let output = bundle.container().create(&[]);
    let line = output.one_line_failure();
    for part in [key, "NoSuchThing", &unit(&bundle), "systemd"] {
        assert!(line.contains(part), "{line}");
    }
    bundle.assert_nothing_left();
    assert_no_unit(&unit(&bundle));
}

#[test]
fn a_value_that_the_kernel_refuses_leaves_no_unit() {
    needs_systemd!();
    let bundle = sleeper().set("/linux/resources/cpu", json!({"cpus": "4000"}));
    let output = bundle.container().create(&[]);
    assert_ne!(output.code(), 0, "{output}");
    bundle.assert_nothing_left();
    assert_no_unit(&unit(&bundle));
}

#[test]
fn a_failed_start_leaves_no_unit() {
    needs_systemd!();
    let bundle = TestBundle::new().systemd().args(&["/no/such/program"]);
    assert_ne!(bundle.run().code(), 0);
    bundle.assert_nothing_left();
    assert_no_unit(&unit(&bundle));
}

#[test]
fn a_container_that_was_killed_for_its_memory_is_deleted_whole() {
    needs_systemd!();
    let bundle = TestBundle::shell("head -c 200m /dev/zero | tail")
        .systemd()
        .set(
            "/linux/resources/memory",
            json!({"limit": 16 * MIB, "swap": 16 * MIB}),
        );
    let container = bundle.running();
    let stopped = || container.state()["status"] == "stopped";
    assert!(wait_until(Duration::from_secs(30), stopped), "still runs");
    container.delete(&[]).success();
    assert_no_unit(&unit(&bundle));
    // The name is free again.
    let container = bundle.running();
    container.delete(&["--force"]).success();
}

#[test]
fn a_unit_that_is_in_use_is_not_taken() {
    needs_systemd!();
    let bundle = sleeper();
    let first = bundle.running();
    let second = bundle.container_named(&format!("{}-second", bundle.id()));
    let output = second.create(&[]);
    assert_ne!(output.code(), 0, "{output}");
    assert_eq!(first.state()["status"], "running");
    assert_eq!(show(&unit(&bundle), "ActiveState"), "active");
}

#[test]
fn a_path_of_another_form_is_refused() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for path in [
        "/docker/web",
        "a.slice:web",
        "a.slice:b:c:d",
        "a.slice:b:",
        "a:b:c",
        "::a/b",
    ] {
        let bundle = sleeper().set("/linux/cgroupsPath", json!(path));
        let output = bundle.container().create(&[]);
        let line = output.one_line_failure();
        assert!(line.contains("linux.cgroupsPath: "), "{line}");
        bundle.assert_nothing_left();
    }
}

/// Before it has said who it is, and after.
#[test]
fn a_systemd_that_does_not_answer_is_given_up() {
    needs!(is_root(), "needs root");
    gocker_only!();
    std::thread::scope(|scope| {
        for said in ["", "DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n"] {
            scope.spawn(move || check_given_up(said));
        }
    });
}

/// A bus that says `said` to whoever comes, and is silent then.
fn check_given_up(said: &str) {
    let bundle = sleeper();
    let socket = bundle.scratch().join("bus");
    let bus = UnixListener::bind(&socket).expect("bind");
    let address = format!("unix:path={}", socket.display());
    let output = std::thread::scope(|scope| {
        let create = scope.spawn(|| create_by_bus(&bundle, &address));
        let (mut stream, _) = bus.accept().expect("accept");
        stream.write_all(said.as_bytes()).expect("write");
        create.join().expect("is run")
    });
    let line = output.one_line_failure();
    assert!(line.contains("systemd does not answer within"), "{line}");
    bundle.assert_nothing_left();
}

fn create_by_bus(bundle: &TestBundle, address: &str) -> Output {
    let mut command = bundle.runtime();
    command
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .arg(bundle.id())
        .env("DBUS_SYSTEM_BUS_ADDRESS", address);
    run_command(&mut command)
}

#[test]
fn a_bus_that_is_not_there_is_told() {
    needs!(is_root(), "needs root");
    needs!(!has_systemd(), "systemd is here, and needs no bus");
    gocker_only!();
    let bundle = sleeper();
    let output = create_by_bus(&bundle, "unix:path=/no/such/bus");
    let line = output.one_line_failure();
    assert!(line.contains("/no/such/bus"), "{line}");
    bundle.assert_nothing_left();
}
