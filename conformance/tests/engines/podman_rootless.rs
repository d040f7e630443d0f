//! Podman as an ordinary user runs it: the runtime is "root" of the user namespace that Podman has
//! made, and on cgroup v1 there are no limits.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::binaries::installed;
use conformance::command::run_within;
use conformance::host::{CgroupLayout, cgroup_layout, enter_private_mounts, is_root};
use conformance::ordinary_user::{self, ID, SUBORDINATE, give_away, grant_subordinate_ids};
use conformance::{Output, needs, run_command, runtime, wait_until};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{IMAGE, busybox_archive, serves_seccomp};

/// A store of the user's.
struct Rootless {
    directory: TempDir,
}

impl Rootless {
    fn new() -> Self {
        enter_private_mounts();
        grant_subordinate_ids();
        // Podman's locks, one set for all stores of a user.
        mount(
            Some("tmpfs"),
            Path::new("/dev/shm"),
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=1777"),
        )
        .expect("mount a tmpfs");
        let directory = tempfile::Builder::new()
            .prefix("gocker-podman-rootless-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("make a temporary directory");
        let podman = Self { directory };
        let home = podman.home();
        fs::create_dir_all(home.join("run")).expect("mkdir");
        fs::set_permissions(home.join("run"), fs::Permissions::from_mode(0o700)).expect("chmod");
        let config =
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";
        fs::write(home.join("containers.conf"), config).expect("write");
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        fs::write(home.join("policy.json"), policy).expect("write");
        let archive = busybox_archive(&home);
        give_away(&home);
        let mut load = podman.command(&["load", "--quiet", "--signature-policy"]);
        load.arg(home.join("policy.json"))
            .arg("--input")
            .arg(archive);
        run_command(&mut load).success();
        podman
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn command(&self, args: &[&str]) -> Command {
        let home = self.home();
        let program = ordinary_user::reachable(&runtime().program, self.directory.path());
        let mut command = Command::new("podman");
        ordinary_user::run_as_user(&mut command, &home);
        for (option, directory) in [
            ("--root", "store"),
            ("--runroot", "runroot"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(option).arg(home.join(directory));
        }
        command.arg("--runtime").arg(program);
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        command.args(["--events-backend", "none"]).args(args);
        command.env("CONTAINERS_CONF", home.join("containers.conf"));
        command.current_dir(&home);
        command
    }

    /// `podman run`, with these options.
    fn run_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.command(&["run", "--network", "none"]);
        command.args(options);
        if !serves_seccomp() {
            command.args(["--security-opt", "seccomp=unconfined"]);
        }
        command.arg(IMAGE).args(args);
        command
    }

    #[track_caller]
    fn run(&self, options: &[&str], args: &[&str]) -> Output {
        let options = [&["--rm"], options].concat();
        let mut command = self.run_command(&options, args);
        run_within(command.stdin(Stdio::null()), Duration::from_secs(60))
    }

    #[track_caller]
    fn call(&self, args: &[&str]) -> Output {
        run_command(&mut self.command(args))
    }

    /// A container that runs until it is told to stop.
    #[track_caller]
    fn detached(&self, name: &str) {
        let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";
        let options = ["--detach", "--name", name];
        run_command(&mut self.run_command(&options, &["/bin/sh", "-c", script])).success();
        let logs = || self.call(&["logs", name]).stdout;
        assert!(
            wait_until(Duration::from_secs(10), || logs() == "ready\n"),
            "{}",
            logs()
        );
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        assert_eq!(self.call(&["ps", "--all", "--quiet"]).success(), "");
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        let output = self.call(&["rm", "--all", "--force", "--time", "0"]);
        if output.code() != 0 {
            eprintln!("clean-up: {output}");
        }
        // The process that keeps the user namespace.
        for file in ["tmp/pause.pid", "run/libpod/tmp/pause.pid"] {
            let text = fs::read_to_string(self.home().join(file)).unwrap_or_default();
            let Ok(pid) = text.trim().parse() else {
                continue;
            };
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                eprintln!("clean-up: kill {pid}: {error}");
            }
        }
    }
}

macro_rules! needs_podman {
    () => {
        needs!(is_root(), "needs root");
        needs!(
            installed("podman").is_some(),
            "needs the Debian package podman"
        );
        needs!(
            installed("newuidmap").is_some(),
            "needs the Debian package uidmap"
        );
    };
}

fn words(output: &Output) -> Vec<String> {
    output
        .success()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[test]
fn rootless_podman_runs_containers_as_it_maps_them() {
    needs_podman!();
    let podman = Rootless::new();
    let (own, further) = (ID.to_string(), SUBORDINATE.to_string());
    let script = "id -u; cat /proc/self/uid_map";
    let output = podman.run(&[], &["/bin/sh", "-c", script]);
    assert_eq!(
        words(&output),
        ["0", "0", &own, "1", "1", &further, "65536"]
    );
    let output = podman.run(&["--userns=keep-id"], &["/bin/id", "-u"]);
    assert_eq!(output.success().trim(), own);
    let output = podman.run(&["--userns=auto"], &["/bin/id", "-u"]);
    assert_eq!(output.success(), "0\n");
    let options = [
        "--user",
        "7:8",
        "--group-add",
        "9",
        "--read-only",
        "--init",
        "--hostname",
        "named",
    ];
    let script = "id -u; id -G; cat /proc/1/comm /proc/sys/kernel/hostname; touch /x || echo no";
    let output = podman.run(&options, &["/bin/sh", "-c", script]);
    assert_eq!(
        words(&output),
        ["7", "8", "9", "podman-init", "named", "no"],
        "{output}"
    );
    podman.assert_nothing_left();
}

#[test]
fn rootless_podman_shows_volumes_devices_and_cgroups() {
    needs_podman!();
    let podman = Rootless::new();
    let volume = podman.home().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    give_away(&volume);
    let volume_option = format!("{}:/data", volume.display());
    let options = [
        "--volume",
        &volume_option,
        "--device",
        "/dev/null:/dev/further",
        "--tmpfs",
        "/t:size=1m",
    ];
    let script = "echo from inside > /data/file; test -c /dev/further && grep -c ' /t ' /proc/mounts; \
        ls /sys/fs/cgroup > /dev/null && mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2> /dev/null || echo refused";
    let output = podman.run(&options, &["/bin/sh", "-c", script]);
    assert_eq!(words(&output), ["1", "refused"], "{output}");
    let text = fs::read_to_string(volume.join("file")).expect("is written");
    assert_eq!(text, "from inside\n");
    podman.assert_nothing_left();
}

#[test]
fn rootless_podman_passes_exit_codes() {
    needs_podman!();
    let podman = Rootless::new();
    for (args, code) in [
        (["/bin/sh", "-c", "exit 42"].as_slice(), 42),
        (&["nosuchprogram"], 127),
        (&["/etc"], 126),
    ] {
        let output = podman.run(&[], args);
        assert_eq!(output.code(), code, "{output}");
    }
    podman.assert_nothing_left();
}

#[test]
fn rootless_podman_stops_a_detached_container_that_others_join() {
    needs_podman!();
    let podman = Rootless::new();
    podman.detached("first");
    let output = podman.call(&["exec", "--user", "5", "first", "/bin/id", "-u"]);
    assert_eq!(output.success(), "5\n");
    let mut join = podman.command(&["run", "--rm"]);
    for kind in ["--network", "--pid", "--ipc"] {
        join.args([kind, "container:first"]);
    }
    if !serves_seccomp() {
        join.args(["--security-opt", "seccomp=unconfined"]);
    }
    join.args([IMAGE, "/bin/sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"]);
    let output = run_command(&mut join);
    assert!(output.success().starts_with("/bin/sh -c trap"), "{output}");
    if cgroup_layout() == CgroupLayout::V1 {
        podman.call(&["pause", "first"]).failure();
    }
    podman.call(&["stop", "first"]).success();
    let ps = podman.call(&["ps", "--all", "--format", "{{.Status}}"]);
    assert!(ps.success().starts_with("Exited (0)"), "{ps}");
    podman.call(&["rm", "first"]).success();
    podman.assert_nothing_left();
}

#[test]
fn rootless_podman_builds_an_image() {
    needs_podman!();
    let podman = Rootless::new();
    let context = podman.home().join("context");
    fs::create_dir(&context).expect("mkdir");
    let text = format!("FROM {IMAGE}\nRUN id -u > /made && echo x > /dev/null\nRUN cat /made\n");
    fs::write(context.join("Containerfile"), text).expect("write");
    give_away(&context);
    let policy = podman.home().join("policy.json");
    let mut build = podman.command(&["build", "--isolation", "oci", "--network", "none"]);
    build
        .arg("--signature-policy")
        .arg(policy)
        .args(["--tag", "built"]);
    let output = run_within(
        build.arg(&context).stdin(Stdio::null()),
        Duration::from_secs(60),
    );
    output.success();
    let mut run = podman.command(&["run", "--rm", "--network", "none"]);
    if !serves_seccomp() {
        run.args(["--security-opt", "seccomp=unconfined"]);
    }
    run.args(["built", "/bin/cat", "/made"]);
    assert_eq!(run_command(&mut run).success(), "0\n");
    podman.assert_nothing_left();
}
