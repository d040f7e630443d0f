//! `events`: figures and notices in runc's form.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::host::{CgroupLayout, cgroup_directory, cgroup_layout, is_root};
use conformance::{
    Container, TestBundle, gocker_only, needs, peer_differs, run_command, wait_until,
};
use serde_json::{Value, json};

fn stats(container: &Container<'_>) -> Value {
    let output = run_command(&mut container.command("events", &["--stats"]));
    let text = output.success();
    assert_eq!(text.lines().count(), 1, "{output}");
    serde_json::from_str(text).expect("JSON")
}

/// `events` that go on, into a file.
struct Events {
    child: Child,
    file: File,
}

impl Events {
    fn of(bundle: &TestBundle, container: &Container<'_>, interval: &str) -> Self {
        let path = bundle.scratch().join("events");
        let file = File::create(&path).expect("create");
        let child = container
            .command("events", &["--interval", interval])
            .stdin(Stdio::null())
            .stdout(Stdio::from(file))
            .spawn()
            .expect("spawn");
        let file = File::open(&path).expect("open");
        Self { child, file }
    }

    /// The whole lines so far that are new.
    fn read(&mut self) -> Vec<Value> {
        let mut text = String::new();
        self.file.read_to_string(&mut text).expect("read");
        let lines = text.lines().map(serde_json::from_str);
        lines.filter_map(Result::ok).collect()
    }

    fn ends(&mut self) -> bool {
        wait_until(Duration::from_secs(10), || {
            self.child.try_wait().expect("wait").is_some()
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn stats_are_one_event_with_every_section() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has no such command");
    let bundle = TestBundle::shell("echo; exec sleep 1000")
        .set("/linux/resources/pids", json!({"limit": 50}))
        .set("/linux/resources/memory", json!({"limit": 67_108_864}));
    let container = bundle.running();
    let event = stats(&container);
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], container.id());
    let data = event["data"].as_object().expect("an object");
    for section in [
        "cpu",
        "cpuset",
        "memory",
        "pids",
        "blkio",
        "hugetlb",
        "intel_rdt",
    ] {
        assert!(data[section].is_object(), "{section}: {event}");
    }
    assert!(data["network_interfaces"].is_null(), "{event}");
    assert_eq!(data["pids"], json!({"current": 1, "limit": 50}));
    assert!(data["cpu"]["usage"]["total"].as_u64() > Some(0), "{event}");
    assert!(data["cpu"]["throttling"].is_object());
    for key in ["kernel", "user"] {
        assert!(data["cpu"]["usage"][key].is_u64(), "{event}");
    }
    let memory = &data["memory"];
    assert_eq!(memory["usage"]["limit"], 67_108_864);
    assert!(memory["usage"]["usage"].as_u64() > Some(0), "{event}");
    for account in ["usage", "swap", "kernel", "kernelTCP"] {
        assert!(memory[account]["limit"].is_u64(), "{event}");
        assert!(memory[account]["failcnt"].is_u64(), "{event}");
    }
    assert!(memory["raw"]["pgfault"].as_u64() > Some(0), "{event}");
    if cgroup_layout() == CgroupLayout::V1 && cgroup_directory("cpuset", "/").is_some() {
        assert_eq!(data["cpuset"]["cpus"][0], 0, "{event}");
        assert_eq!(data["cpuset"]["sched_load_balance"], 1, "{event}");
        assert_eq!(data["cpuset"]["sched_relax_domain_level"], -1, "{event}");
    }
}

#[test]
fn without_a_limit_the_limit_is_what_runc_prints() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has no such command");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let event = stats(&container);
    let expected = match cgroup_layout() {
        CgroupLayout::V1 => 9_223_372_036_854_771_712,
        CgroupLayout::V2 => u64::MAX,
    };
    assert_eq!(event["data"]["memory"]["usage"]["limit"], expected);
}

#[test]
fn figures_come_at_each_interval_until_the_container_stops() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has no such command");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let mut events = Events::of(&bundle, &container, "100ms");
    let mut seen = Vec::new();
    let three = wait_until(Duration::from_secs(10), || {
        seen.extend(events.read());
        seen.len() >= 3
    });
    assert!(three, "{seen:?}");
    assert!(
        seen.iter().all(|event| event["type"] == "stats"),
        "{seen:?}"
    );
    container.kill("KILL").success();
    container.wait_for("stopped");
    container.delete(&[]).success();
    assert!(events.ends());
}

/// Without `delete`, too: nobody is in the cgroup any more.
#[test]
fn events_end_with_the_container() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let mut events = Events::of(&bundle, &container, "1h");
    container.kill("KILL").success();
    assert!(events.ends());
}

#[test]
fn running_out_of_memory_is_an_event() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has no such command");
    needs!(
        cgroup_directory("memory", "/").is_some(),
        "needs the memory controller"
    );
    let bundle = TestBundle::shell(
        "while ! [ -e /go ]; do sleep 0.05; done
         dd if=/dev/zero of=/dev/null bs=200M count=1; touch /done; exec sleep 1000",
    )
    .set(
        "/linux/resources/memory",
        json!({"limit": 33_554_432, "swap": 33_554_432}),
    );
    let container = bundle.running();
    let mut events = Events::of(&bundle, &container, "100ms");
    let mut seen = Vec::new();
    let mut wait_for = |kind: &str| {
        wait_until(Duration::from_secs(10), || {
            seen.extend(events.read());
            seen.iter().any(|event| event["type"] == kind)
        })
    };
    assert!(wait_for("stats"));
    std::fs::write(bundle.rootfs().join("go"), "").expect("write");
    assert!(wait_for("oom"));
    let oom = seen.iter().find(|event| event["type"] == "oom");
    assert_eq!(oom, Some(&json!({"type": "oom", "id": container.id()})));
}

#[test]
fn events_of_a_stopped_or_missing_container_are_an_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has no such command");
    let bundle = TestBundle::new();
    let container = bundle.running();
    container.wait_for("stopped");
    for options in [&["--stats"][..], &["--interval", "1s"]] {
        let output = run_command(&mut container.command("events", options));
        assert!(
            output.one_line_failure().contains("is not running"),
            "{output}"
        );
        let nobody = bundle.container_named("nobody");
        let output = run_command(&mut nobody.command("events", options));
        assert!(output.stderr.contains("does not exist"), "{output}");
    }
}

#[test]
fn an_interval_is_a_duration_above_zero() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has no such command");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for interval in ["0s", "5", "-1s", "x"] {
        let mut command = container.command("events", &["--interval", interval]);
        run_command(&mut command).failure();
    }
}

/// What `data` is made of: each key's path, and the kind of its value.
fn shape(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Object(object) => {
            for (key, value) in object {
                shape(value, &format!("{path}/{key}"), found);
            }
            "object"
        }
        Value::Array(list) => {
            for value in list {
                shape(value, &format!("{path}[]"), found);
            }
            "array"
        }
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    };
    found.insert(format!("{path}: {kind}"));
}

/// Readers decode what the reference implementation prints: the same keys are there, of the same
/// kinds, and none is left out that it does not leave out.
#[test]
fn the_figures_have_the_reference_implementations_keys() {
    needs!(is_root(), "needs root");
    gocker_only!();
    const RUNC: &str = "/usr/sbin/runc";
    needs!(
        std::path::Path::new(RUNC).exists(),
        "needs the Debian package runc"
    );
    let bundle = TestBundle::sleeper()
        .set("/linux/resources/pids", json!({"limit": 50}))
        .set("/linux/resources/memory", json!({"limit": 67_108_864}));
    let mut own = BTreeSet::new();
    {
        let container = bundle.running();
        shape(&stats(&container)["data"], "", &mut own);
    }
    let root = bundle.scratch().join("runc");
    let runc = |args: &[&str]| {
        let mut command = Command::new(RUNC);
        run_command(command.arg("--root").arg(&root).args(args))
    };
    let path = bundle.path();
    let path = path.to_str().expect("a path");
    let run = runc(&["run", "--detach", "--bundle", path, bundle.id()]);
    let output = runc(&["events", "--stats", bundle.id()]);
    runc(&["delete", "--force", bundle.id()]).success();
    run.success();
    let event: Value = serde_json::from_str(output.success()).expect("JSON");
    let mut theirs = BTreeSet::new();
    shape(&event["data"], "", &mut theirs);
    // Which fields of memory.stat and which devices there are by then is the kernel's affair, and
    // what is 0 is left out, as a cache may be; huge pages that are counted on v2 alone it does not
    // find; v2's peak is told since runc 1.2.
    let is_fixed = |path: &&String| {
        ![
            "/memory/raw/",
            "/memory/cache:",
            "/memory/usage/max:",
            "/blkio/",
            "/hugetlb/",
            "/cpu/throttling/",
        ]
        .iter()
        .any(|part| path.starts_with(part))
    };
    // PSI is told since runc 1.2, and only by kernels that keep it.
    let is_old = |path: &&String| !path.contains("/psi");
    let own: Vec<_> = own.iter().filter(is_fixed).filter(is_old).collect();
    let theirs: Vec<_> = theirs.iter().filter(is_fixed).filter(is_old).collect();
    assert_eq!(own, theirs);
}
