//! Docker: dockerd with the containerd that it starts and manages.
//!
//! ```text
//! docker (client) -> dockerd -> containerd -> containerd-shim-runc-v2 -> the runtime
//!                      \-> BuildKit (a part of dockerd) ---------------> the runtime
//! ```

mod build;
mod confine;
mod exec;
mod limits;
mod run;
mod sharing;
mod stop;
mod storage;

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::command::run_within;
use conformance::host::{cgroup_directory, enter_private_mounts, is_root};
use conformance::test_bundle::unique_id;
use conformance::{Output, leftovers, run_command, runtime, wait_until};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tempfile::TempDir;

use super::{IMAGE, busybox_archive, terminate};
use crate::runtime::console::{Foreground, read_terminal};

/// Debian's: other programs of these names may come first in `$PATH`.
const CLIENT: &str = "/usr/bin/docker";
const DAEMON: &str = "/usr/sbin/dockerd";

/// Why a test of this folder does not run.
const WANTED: &str = "needs root and the Debian package docker.io";

fn is_here() -> bool {
    is_root()
        && [CLIENT, DAEMON]
            .iter()
            .all(|path| Path::new(path).is_file())
}

/// A file with this text, as a program's input.
fn text_file(text: &str) -> Stdio {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("write");
    file.rewind().expect("rewind");
    Stdio::from(file)
}

/// Ends when the terminal inside, too, has 40 rows and 90 columns, see [`resize`].
const UNTIL_RESIZED: &str =
    "until [ \"$(stty size)\" = '40 90' ]; do echo not yet; sleep 0.2; done; echo resized";

/// Changes the size of a terminal until [`UNTIL_RESIZED`] has seen it: the client begins to listen
/// for changes at a moment of its own.
#[track_caller]
fn resize(terminal: &mut Foreground) {
    let mut text = String::new();
    while !text.contains("resized") {
        terminal.resize(40, 90);
        text = read_terminal(&mut terminal.master, Some("\n"));
        assert!(!text.is_empty(), "the size should change");
    }
}

/// A dockerd of the test's own, whose default runtime is the one under test,
/// with the image of busybox loaded.
struct Docker {
    directory: TempDir,
    options: Vec<String>,
    /// None once it has ended.
    daemon: Option<Child>,
    /// The cgroup that its containers lie below.
    cgroup: String,
}

impl Docker {
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// `dockerd` with further options.
    fn start_with(options: &[&str]) -> Self {
        enter_private_mounts();
        // dockerd sets switches of its network namespace.
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
        // Its key, its plugins' and its shims' sockets lie at fixed places.
        for place in ["/etc/docker", "/run"] {
            fs::create_dir_all(place).expect("mkdir");
            let none = None::<&str>;
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), none)
                .unwrap_or_else(|error| panic!("mount a tmpfs on {place}: {error}"));
        }
        let directory = tempfile::Builder::new()
            .prefix("gocker-docker-")
            .tempdir()
            .expect("make a temporary directory");
        // The BuildKit in dockerd 20.10 takes the first `runc` of its path,
        // whatever the runtimes are.
        fs::create_dir(directory.path().join("bin")).expect("mkdir");
        symlink(&runtime().program, directory.path().join("bin/runc")).expect("symlink");
        let mut docker = Self {
            directory,
            options: options.iter().map(ToString::to_string).collect(),
            daemon: None,
            cgroup: format!("/conformance-{}", unique_id()),
        };
        docker.start_daemon();
        let archive = busybox_archive(docker.directory.path());
        docker.ok(&["load", "--quiet", "--input", &archive.display().to_string()]);
        docker
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the daemon, for the first time or again.
    fn start_daemon(&mut self) {
        let config = self.at("daemon.json");
        fs::write(&config, "{\"experimental\": true}").expect("write daemon.json");
        let path = std::env::var("PATH").unwrap_or_default();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.at("log"))
            .expect("open a log");
        let mut command = Command::new(DAEMON);
        for (option, name) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "root"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(option).arg(self.at(name));
        }
        command
            .arg(format!("--host=unix://{}", self.at("socket").display()))
            .arg(format!(
                "--add-runtime=gocker={}",
                runtime().program.display()
            ))
            .arg(format!("--cgroup-parent={}", self.cgroup))
            .args(["--default-runtime=gocker", "--storage-driver=vfs"])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(&self.options)
            .env("PATH", format!("{}:{path}", self.at("bin").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().expect("dup")))
            .stderr(Stdio::from(log));
        self.daemon = Some(command.spawn().expect("start dockerd"));
        let up = || run_command(&mut self.command(&["version"])).code() == 0;
        assert!(wait_until(Duration::from_secs(30), up), "{}", self.log());
    }

    /// Ends the daemon in good order, which ends its containers.
    fn stop_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            terminate(&mut daemon);
        }
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.at("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// `docker`, speaking to this daemon.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(CLIENT);
        command
            .env("DOCKER_CONFIG", self.at("client"))
            .env_remove("DOCKER_BUILDKIT")
            .arg(format!("--host=unix://{}", self.at("socket").display()))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// `docker`, as it ends.
    #[track_caller]
    fn output(&self, args: &[&str]) -> Output {
        run_within(&mut self.command(args), Duration::from_secs(60))
    }

    /// `docker`, which must succeed; what it prints, without the last newline.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.output(args).success().trim_end().to_owned()
    }

    /// `docker run` with the image.
    fn run_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.command(&["run"]);
        // None that has to be made, unless the test wants another.
        if !options.iter().any(|option| option.starts_with("--network")) {
            command.args(["--network", "none"]);
        }
        command.args(options).arg(IMAGE).args(args);
        command
    }

    /// A container in the foreground, removed at its end.
    #[track_caller]
    fn run(&self, options: &[&str], args: &[&str]) -> Output {
        let options = [&["--rm"], options].concat();
        run_within(
            &mut self.run_command(&options, args),
            Duration::from_secs(60),
        )
    }

    /// What a shell in a container printed, which must succeed.
    #[track_caller]
    fn shell(&self, options: &[&str], script: &str) -> String {
        let output = self.run(options, &["/bin/sh", "-c", script]);
        output.success().to_owned()
    }

    /// A container that runs a shell script in the background.
    #[track_caller]
    fn background(&self, name: &str, options: &[&str], script: &str) {
        let options = [&["--detach", "--name", name], options].concat();
        run_command(&mut self.run_command(&options, &["/bin/sh", "-c", script])).success();
    }

    /// A field of `docker inspect`.
    #[track_caller]
    fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&[
            "inspect",
            "--format",
            &format!("{{{{json {field}}}}}"),
            name,
        ])
    }

    /// Waits until a field of `docker inspect` is so.
    #[track_caller]
    fn wait_for(&self, name: &str, field: &str, value: &str) {
        let so = || self.inspect(name, field) == value;
        assert!(
            wait_until(Duration::from_secs(20), so),
            "{name}: {field} should become {value}, is {}\n{}",
            self.inspect(name, field),
            self.log()
        );
    }

    /// Waits until a container has written this.
    #[track_caller]
    fn wait_for_log(&self, name: &str, text: &str) {
        let said = || self.output(&["logs", name]).stdout.contains(text);
        assert!(wait_until(Duration::from_secs(20), said), "{}", self.log());
    }

    fn id(&self, name: &str) -> String {
        let id: Value = serde_json::from_str(&self.inspect(name, ".Id")).expect("JSON");
        id.as_str().expect("an id").to_owned()
    }

    /// A file of a container's cgroup, without its last newline.
    #[track_caller]
    fn cgroup_file(&self, name: &str, controller: &str, file: &str) -> String {
        let cgroup = format!("{}/{}", self.cgroup, self.id(name));
        let path = cgroup_directory(controller, &cgroup)
            .expect("the controller")
            .join(file);
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{path:?}: {error}"))
            .trim_end()
            .to_owned()
    }

    /// What containers leave where they should not: their cgroups, the
    /// runtime's states, shims, mounts, network namespaces.
    fn left(&self) -> Vec<String> {
        let below = |directory: PathBuf| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let cgroups = leftovers::cgroups(&self.cgroup).into_iter().flat_map(below);
        // BuildKit has a parent of its own for its steps.
        let (parents, cgroups): (Vec<_>, Vec<_>) = cgroups
            .filter(|path| path.is_dir())
            .partition(|path| path.ends_with("buildkit"));
        let steps = parents
            .into_iter()
            .flat_map(below)
            .filter(|path| path.is_dir());
        let states = below(self.at("exec/runtime-gocker/moby"));
        let mounts = leftovers::mounts(self.directory.path()).into_iter();
        // dockerd makes a mount of the store, which lies one deeper when users are mapped.
        let store = self.at("root");
        let own = |mount: &PathBuf| *mount == store || mount.parent() == Some(&store);
        let mounts = mounts.filter(|mount| !own(mount) && !mount.ends_with("netns/default"));
        let shims = leftovers::processes_of(self.directory.path()).into_iter();
        let shims = shims.filter(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("shim")
        });
        let all = cgroups.into_iter().chain(steps).chain(states).chain(mounts);
        all.map(|path| path.display().to_string())
            .chain(shims.map(|pid| format!("process {pid}")))
            .collect()
    }

    /// No container is there, nor anything of one; then ends the daemon, of
    /// which nothing is there either.
    #[track_caller]
    fn end(mut self) {
        assert_eq!(self.ok(&["ps", "--all", "--quiet"]), "");
        let gone = || self.left().is_empty();
        assert!(
            wait_until(Duration::from_secs(10), gone),
            "left: {:?}\n{}",
            self.left(),
            self.log()
        );
        self.stop_daemon();
        let processes = || leftovers::processes_of(self.directory.path());
        assert!(
            wait_until(Duration::from_secs(10), || processes().is_empty()),
            "left: {:?}",
            processes()
        );
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // What a test that went well has ended already.
        if let Some(mut daemon) = self.daemon.take()
            && let Err(error) = daemon.kill().and_then(|()| daemon.wait())
        {
            eprintln!("clean-up: kill dockerd: {error}");
        }
        leftovers::kill_processes_of(self.directory.path());
        leftovers::remove_cgroups(&self.cgroup);
        leftovers::remove_mounts(self.directory.path());
    }
}
