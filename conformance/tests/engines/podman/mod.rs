//! Podman and conmon.

mod containers;
mod exec;
mod identity;
mod networks;
mod pods;
mod run;
mod storage;
mod terminals;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::binaries::installed;
use conformance::command::run_within;
use conformance::host::enter_private_mounts;
use conformance::test_bundle::unique_id;
use conformance::{Output, leftovers, run_command, runtime, wait_until};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::{IMAGE, busybox_archive, serves_seccomp};

/// Starts at once and lives until it is stopped.
const SLEEPER: &[&str] = &[
    "sh",
    "-c",
    "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done",
];

/// A Podman store of the test's own, with the image of busybox loaded.
pub(super) struct Podman {
    directory: TempDir,
    /// The cgroup that its containers lie below.
    cgroup: String,
}

impl Podman {
    pub(super) fn new() -> Self {
        enter_private_mounts();
        // Podman keeps its locks in the one, one set for all its stores, and its
        // networks' namespaces in the other; runtimes keep their states there.
        for point in ["/dev/shm", "/run"] {
            mount(
                Some("tmpfs"),
                Path::new(point),
                Some("tmpfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .expect("mount a tmpfs");
        }
        let directory = tempfile::Builder::new()
            .prefix("gocker-podman-")
            .tempdir()
            .expect("make a temporary directory");
        // What the hard limits of this process allow: raising them wants a right
        // that a container's host may lack.
        let config = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = {:?}\n",
            directory.path().join("networks")
        );
        fs::write(directory.path().join("containers.conf"), config).expect("write");
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        fs::write(directory.path().join("policy.json"), policy).expect("write");
        let podman = Self {
            directory,
            cgroup: format!("/conformance-{}", unique_id()),
        };
        let archive = busybox_archive(podman.path());
        let mut load = podman.command(&["load", "--quiet", "--signature-policy"]);
        load.arg(podman.path().join("policy.json"))
            .arg("--input")
            .arg(archive);
        run_command(&mut load).success();
        podman
    }

    /// The same, on a network of its own that is not the machine's.
    fn with_a_network() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
        run_command(Command::new("ip").args(["link", "set", "lo", "up"])).success();
        Self::new()
    }

    /// Where everything of it lies.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The cgroup that everything of it lies below.
    pub(super) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The options by which Podman's kin find this store.
    pub(super) fn store(&self, command: &mut Command) {
        command
            .arg("--root")
            .arg(self.path().join("root"))
            .arg("--runroot")
            .arg(self.path().join("run"))
            .args(["--storage-driver", "vfs"])
            .env("CONTAINERS_CONF", self.path().join("containers.conf"));
    }

    /// `podman` with this store, and the runtime under test.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        self.command_with(&[], args)
    }

    /// The same, with more of the options that come before the subcommand.
    fn command_with(&self, global: &[&str], args: &[&str]) -> Command {
        let mut command = self.unaware();
        command.arg("--runtime").arg(&runtime().program);
        command.args(global).args(args);
        command
    }

    /// `podman` with this store, which is told of no runtime.
    fn unaware(&self) -> Command {
        let mut command = Command::new("podman");
        self.store(&mut command);
        command.arg("--tmpdir").arg(self.path().join("tmp"));
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command
    }

    fn run_command(&self, options: &[&str], args: &[&str]) -> Command {
        self.run_image(&[], options, args)
    }

    fn run_image(&self, global: &[&str], options: &[&str], args: &[&str]) -> Command {
        let mut command = self.command_with(global, &["run", "--cgroup-parent"]);
        command.arg(&self.cgroup).args(options);
        if !serves_seccomp() {
            command.args(["--security-opt", "seccomp=unconfined"]);
        }
        command.arg(IMAGE).args(args);
        command
    }

    /// `podman run --rm` without a network.
    #[track_caller]
    fn run(&self, options: &[&str], args: &[&str]) -> Output {
        let options = [&["--rm", "--network", "none"], options].concat();
        let mut command = self.run_command(&options, args);
        run_within(command.stdin(Stdio::null()), Duration::from_secs(60))
    }

    /// A shell script in a container of its own, which succeeds.
    #[track_caller]
    fn shell(&self, options: &[&str], script: &str) -> String {
        let output = self.run(options, &["sh", "-c", script]);
        output.success().to_owned()
    }

    /// A detached container without a network, which runs.
    #[track_caller]
    fn start(&self, name: &str, options: &[&str], args: &[&str]) {
        let options = [&["--detach", "--network", "none", "--name", name], options].concat();
        run_command(&mut self.run_command(&options, args)).success();
    }

    /// Any command of Podman's.
    #[track_caller]
    fn call(&self, args: &[&str]) -> Output {
        run_command(&mut self.command(args))
    }

    /// Any command of Podman's that succeeds, and what it prints.
    #[track_caller]
    pub(super) fn ok(&self, args: &[&str]) -> String {
        self.call(args).success().trim_end().to_owned()
    }

    /// A field of `podman inspect`, by its Go template.
    #[track_caller]
    fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&["inspect", "--format", template, name])
    }

    #[track_caller]
    fn wait_for_log(&self, name: &str, log: &str) {
        let logs = || self.call(&["logs", name]).stdout;
        let there = wait_until(Duration::from_secs(10), || logs() == log);
        assert!(there, "should log {log:?}: {:?}", logs());
    }

    /// No container is left, nor a cgroup or a state of one.
    #[track_caller]
    pub(super) fn assert_nothing_left(&self) {
        assert_eq!(self.ok(&["ps", "--all", "--quiet"]), "");
        let containers = || {
            let all = leftovers::cgroups(&self.cgroup);
            let below = all.iter().filter_map(|cgroup| fs::read_dir(cgroup).ok());
            let cgroups = below
                .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
                // conmon's own stays with the parent.
                .filter(|path| path.is_dir() && !path.ends_with("conmon"));
            let states = fs::read_dir("/run/gocker-runc").into_iter().flatten();
            let states = states.flatten().map(|entry| entry.path());
            cgroups.chain(states).collect::<Vec<_>>()
        };
        let gone = || containers().is_empty();
        assert!(
            wait_until(Duration::from_secs(10), gone),
            "left: {:?}",
            containers()
        );
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for args in [
            ["pod", "rm", "--all", "--force"].as_slice(),
            &["rm", "--all", "--force", "--time", "0"],
        ] {
            let output = self.call(args);
            if output.code() != 0 {
                eprintln!("clean-up: {output}");
            }
        }
        leftovers::remove_cgroups(&self.cgroup);
        leftovers::remove_mounts(self.path());
    }
}

pub(super) fn is_here() -> bool {
    installed("podman").is_some()
}
