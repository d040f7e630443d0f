//! `gocker`, the front of both programs: from a name to a process that ran.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use conformance::command::{end_within, process_id};
use conformance::images::{self, ImageBuilder};
use conformance::store_root::cgroups_named;
use conformance::{HostileRegistry, Output, StoreRoot, host, mount_table, needs, wait_until};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

/// A store, a registry with the small system, and containers of this test.
struct Front {
    store: StoreRoot,
    server: HostileRegistry,
}

impl Front {
    fn new() -> Self {
        let front = Self {
            store: StoreRoot::new().unwrap(),
            server: HostileRegistry::honest().unwrap(),
        };
        front
            .server
            .serve(&images::busybox().unwrap(), "amd64/busybox", "latest");
        front
    }

    /// `HOST/amd64/busybox`, as the README names it behind a registry's address.
    fn busybox(&self) -> String {
        format!("{}/amd64/busybox", self.server.host())
    }

    #[track_caller]
    fn gocker(&self, args: &[&str]) -> Output {
        self.store.run_gocker(args)
    }

    /// A container's name that no other test has.
    fn name(word: &str) -> String {
        format!("conformance-{}-{word}", std::process::id())
    }
}

#[test]
fn the_original_commands_work_in_their_form() {
    let front = Front::new();
    let image = front.busybox();
    front.gocker(&["pull", &image]).success();
    let output = front.gocker(&[
        "run",
        &format!("{image}:latest"),
        "/bin/sh",
        "-c",
        "echo from $(cat /etc/passwd | wc -l) lines",
    ]);
    assert_eq!(output.success().trim(), "from 2 lines");
    assert!(
        front
            .gocker(&["image", "ls"])
            .success()
            .contains("amd64/busybox")
    );
    front.gocker(&["ps"]).success();
    front.gocker(&["prune"]).success();
    front.gocker(&["image", "rm", &image]).success();
    assert!(
        !front
            .gocker(&["image", "ls"])
            .success()
            .contains("amd64/busybox")
    );
}

#[test]
fn names_without_a_registry_are_docker_hubs() {
    let front = Front::new();
    // Nothing is pulled: with no way out, the failure names what was asked for.
    for name in ["arm64v8/alpine", "amd64/busybox"] {
        let output = front.gocker(&["image", "rm", name]);
        assert!(output.one_line_failure().contains(name), "{output}");
    }
}

#[test]
fn run_pulls_what_is_missing_and_gives_the_programs_output_and_exit_code() {
    let front = Front::new();
    let output = front.gocker(&[
        "run",
        "--rm",
        &front.busybox(),
        "/bin/sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(
        (output.code(), output.stdout.as_str()),
        (7, "out\n"),
        "{output}"
    );
    assert!(output.stderr.ends_with("err\n"), "{output}");
    let requests = front.server.requests().len();
    let again = front.gocker(&["run", "--rm", &front.busybox(), "/bin/echo", "again"]);
    assert_eq!(again.success(), "again\n");
    assert_eq!(
        front.server.requests().len(),
        requests,
        "what is there is not asked for again"
    );
}

#[test]
fn run_without_a_command_runs_the_images_own() {
    let front = Front::new();
    let config =
        json!({"Entrypoint": ["/bin/echo"], "Cmd": ["the", "image's"], "Env": ["PATH=/bin"]});
    let image = ImageBuilder::new()
        .config(config)
        .layer(&images::busybox_layer().unwrap())
        .build();
    let reference = front.server.serve(&image, "echo", "latest");
    assert_eq!(
        front.gocker(&["run", "--rm", &reference]).success(),
        "the image's\n"
    );
    assert_eq!(
        front.gocker(&["run", "--rm", &reference, "mine"]).success(),
        "mine\n"
    );
}

#[test]
fn options_after_the_image_belong_to_the_command() {
    let front = Front::new();
    let output = front.gocker(&[
        "run",
        "--rm",
        &front.busybox(),
        "/bin/echo",
        "--rm",
        "-m",
        "--name",
    ]);
    assert_eq!(output.success(), "--rm -m --name\n");
}

#[test]
fn a_signal_that_kills_the_program_is_128_and_its_number() {
    let front = Front::new();
    let output = front.gocker(&[
        "run",
        "--rm",
        &front.busybox(),
        "/bin/sh",
        "-c",
        "kill -9 $$",
    ]);
    // The first process of a PID namespace is spared its own SIGKILL: a child is not.
    let child = front.gocker(&[
        "run",
        "--rm",
        &front.busybox(),
        "/bin/sh",
        "-c",
        "sh -c 'kill -9 $$'; exit $?",
    ]);
    assert_eq!(child.code(), 137, "{child}");
    assert!(output.code() == 137 || output.code() == 0, "{output}");
}

#[test]
fn rm_leaves_nothing_and_without_it_the_container_stays_until_removed() {
    let front = Front::new();
    front.gocker(&["pull", &front.busybox()]).success();
    let clean = super::state(&front.store);
    front
        .gocker(&["run", "--rm", &front.busybox(), "/bin/true"])
        .success();
    assert_eq!(super::state(&front.store), clean, "--rm");

    let name = Front::name("kept");
    front
        .gocker(&[
            "run",
            "--name",
            &name,
            &front.busybox(),
            "/bin/sh",
            "-c",
            "echo kept >/kept",
        ])
        .success();
    assert!(
        !front.gocker(&["ps"]).success().contains(&name),
        "it has ended"
    );
    assert!(front.gocker(&["ps", "--all"]).success().contains(&name));
    front.gocker(&["rm", &name]).success();
    assert_eq!(super::state(&front.store), clean, "gocker rm");
    assert!(!front.gocker(&["ps", "--all"]).success().contains(&name));
}

#[test]
fn a_name_is_taken_once() {
    let front = Front::new();
    let name = Front::name("taken");
    front
        .gocker(&["run", "--name", &name, &front.busybox(), "/bin/true"])
        .success();
    let output = front.gocker(&["run", "--name", &name, &front.busybox(), "/bin/true"]);
    assert!(output.one_line_failure().contains(&name), "{output}");
    front.gocker(&["rm", &name]).success();
}

#[test]
fn memory_cpus_and_pids_are_limited_in_the_containers_cgroup() {
    needs!(
        host::cgroup_layout() == host::CgroupLayout::V1,
        "reads v1 files; the runtime suite covers v2"
    );
    let front = Front::new();
    let (name, image) = (Front::name("limits"), front.busybox());
    let script = "while :; do sleep 1; done";
    let limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "32"];
    let run = [
        &["run", "--detach", "--name", &name],
        &limits[..],
        &[&image, "/bin/sh", "-c", script],
    ];
    front.gocker(&run.concat()).success();
    let mut pid = None;
    wait_until(Duration::from_secs(10), || {
        pid = process_with(script);
        pid.is_some()
    });
    let pid = pid.expect("the container's process");
    assert_eq!(
        in_cgroup(pid, "memory", "memory.limit_in_bytes"),
        (64 << 20).to_string()
    );
    assert_eq!(in_cgroup(pid, "pids", "pids.max"), "32");
    let quota: u64 = in_cgroup(pid, "cpu", "cpu.cfs_quota_us").parse().unwrap();
    let period: u64 = in_cgroup(pid, "cpu", "cpu.cfs_period_us").parse().unwrap();
    assert_eq!(quota * 2, period);
    front.gocker(&["rm", "--force", &name]).success();
    assert_eq!(
        cgroups_named(&name),
        Vec::<PathBuf>::new(),
        "they go with the container"
    );
}

/// A file of the cgroup that a process is in, of a v1 controller.
fn in_cgroup(pid: i32, controller: &str, file: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    // 4:memory:/path
    let path = text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers
            .split(',')
            .any(|own| own == controller)
            .then(|| path.to_owned())
    });
    let directory = host::cgroup_directory(controller, &path.unwrap()).unwrap();
    fs::read_to_string(directory.join(file))
        .unwrap()
        .trim()
        .to_owned()
}

/// The process that runs `sh -c SCRIPT`, in a PID namespace of its own.
fn process_with(script: &str) -> Option<i32> {
    let own = fs::read_link("/proc/self/ns/pid").ok()?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let inside = fs::read_link(entry.path().join("ns/pid")).ok()? != own;
        (inside && line == format!("/bin/sh\0-c\0{script}\0").into_bytes()).then_some(pid)
    })
}

#[test]
fn a_running_container_is_listed_and_not_removed_by_accident() {
    let front = Front::new();
    front.gocker(&["pull", &front.busybox()]).success();
    let clean = super::state(&front.store);
    let name = Front::name("running");
    let output = front.gocker(&[
        "run",
        "--detach",
        "--name",
        &name,
        &front.busybox(),
        "/bin/sleep",
        "987",
    ]);
    assert_eq!(output.success().trim(), name, "its id is printed");
    assert!(
        front.gocker(&["ps"]).success().contains(&name),
        "it is listed"
    );
    assert_eq!(front.gocker(&["ps", "--quiet"]).success().trim(), name);
    assert!(
        front
            .gocker(&["rm", &name])
            .one_line_failure()
            .contains(&name)
    );
    front.gocker(&["prune"]).success();
    assert!(
        front.gocker(&["ps"]).success().contains(&name),
        "prune leaves it alone"
    );
    front.gocker(&["rm", "--force", &name]).success();
    assert!(!front.gocker(&["ps", "--all"]).success().contains(&name));
    assert_eq!(cgroups_named(&name), Vec::<PathBuf>::new());
    assert_eq!(super::state(&front.store), clean);
}

#[test]
fn a_background_containers_output_is_kept_until_it_is_removed() {
    let front = Front::new();
    let name = Front::name("output");
    front
        .gocker(&[
            "run",
            "-d",
            "--name",
            &name,
            &front.busybox(),
            "/bin/sh",
            "-c",
            "echo out; echo err >&2",
        ])
        .success();
    let log = front
        .store
        .directory()
        .join("bundles")
        .join(&name)
        .join("output.log");
    let written = || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("out\n") && text.contains("err\n"))
    };
    assert!(
        wait_until(Duration::from_secs(10), written),
        "{:?}",
        fs::read_to_string(&log)
    );
    let ended = || !front.gocker(&["ps"]).stdout.contains(&name);
    assert!(wait_until(Duration::from_secs(10), ended));
    front.gocker(&["rm", &name]).success();
    assert!(!log.exists());
}

#[test]
fn sigterm_reaches_the_containers_process() {
    let front = Front::new();
    let name = Front::name("term");
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = front.store.gocker_command(&[
        "run",
        "--rm",
        "--name",
        &name,
        &front.busybox(),
        "/bin/sh",
        "-c",
        script,
    ]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    kill(process_id(child.id()), Signal::SIGTERM).unwrap();
    let status = end_within(&mut child, Duration::from_secs(10));
    assert_eq!(status.and_then(|status| status.code()), Some(9));
}

#[test]
fn what_fails_leaves_nothing() {
    let front = Front::new();
    front.gocker(&["pull", &front.busybox()]).success();
    let clean = super::state(&front.store);
    let image = front.busybox();
    for args in [
        vec!["run", "--rm", &image, "/no/such/program"],
        vec!["run", &image, "/no/such/program"],
        vec!["run", "--rm", "127.0.0.1:1/never:there", "/bin/true"],
        vec!["run", "--rm", "--name", "../climb", &image, "/bin/true"],
        vec!["run", "--rm", "-m", "none", &image, "/bin/true"],
        vec!["rm", "no-such-container"],
        vec!["image", "rm", "127.0.0.1:1/never:there"],
    ] {
        let output = front.gocker(&args);
        assert!(!output.failure().contains("panicked"), "{output}");
        assert_eq!(super::state(&front.store), clean, "{args:?}: {output}");
    }
}

#[test]
fn prune_removes_ended_containers_and_keeps_named_images() {
    let front = Front::new();
    front.gocker(&["pull", &front.busybox()]).success();
    let clean = super::state(&front.store);
    for word in ["a", "b"] {
        front
            .gocker(&[
                "run",
                "--name",
                &Front::name(word),
                &front.busybox(),
                "/bin/true",
            ])
            .success();
    }
    front.gocker(&["prune"]).success();
    assert_eq!(super::state(&front.store), clean);
}

#[test]
fn the_container_is_isolated_and_the_host_untouched() {
    let front = Front::new();
    let script = "hostname; echo $$; ls /proc | grep -c '^[0-9]'; ls / | tr '\\n' ' '; mount | grep -c /var/lib";
    let output = front.gocker(&["run", "--rm", &front.busybox(), "/bin/sh", "-c", script]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.get(1), Some(&"1"), "its own PID namespace: {output}");
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_ne!(lines[0], host_name.trim(), "its own host name: {output}");
    let below = front.store.directory().join("bundles");
    let mounts = mount_table::current()
        .into_iter()
        .filter(|mount| mount.point.starts_with(&below));
    assert_eq!(mounts.count(), 0, "no mount stays on the host");
}
