//! containerd, a daemon of the test's own, and its shim, by `ctr`, and
//! through its CRI plugin as Kubernetes uses it.
//!
//! ```text
//! TEMPDIR/config.toml  log         what the daemon is told, what it says
//! TEMPDIR/root/  state/            the daemon's own
//! TEMPDIR/runtime/NAMESPACE/ID     --root of the runtime
//! TEMPDIR/socket  fifo/            where `ctr` and CRI reach it; the containers' output
//! ```

mod cri;
mod ctr_crash;
mod ctr_options;
mod ctr_run;
mod ctr_tasks;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::binaries::installed;
use conformance::command::run_within;
use conformance::host::enter_private_mounts;
use conformance::images::{Image, ImageBuilder, busybox_layer};
use conformance::test_bundle::unique_id;
use conformance::{Output, leftovers, run_command, runtime, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{IMAGE, terminate, write_archive};

/// Skips the calling test where containerd cannot run.
macro_rules! needs_containerd {
    () => {
        conformance::needs!(conformance::host::is_root(), "needs root");
        conformance::needs!(
            $crate::engines::containerd::is_here(),
            "needs the Debian package containerd"
        );
    };
}
use needs_containerd;

/// What is set for `ctr`: no CRI, and none of the plugins that look for
/// something outside of the test's directory.
const DISABLED: &str = "\"io.containerd.snapshotter.v1.btrfs\", \
    \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \
    \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.internal.v1.opt\"";

/// How long an engine may take over what should be immediate.
const SOON: Duration = Duration::from_secs(20);

fn is_here() -> bool {
    ["containerd", "ctr", "containerd-shim-runc-v2"]
        .iter()
        .all(|name| installed(name).is_some())
}

/// A containerd of the test's own, with the image of busybox imported. When it
/// goes out of scope all that it started ends.
struct Containerd {
    directory: TempDir,
    daemon: Child,
    /// containerd's namespace.
    namespace: String,
    /// The cgroups of its containers lie below this one.
    cgroup: String,
}

impl Containerd {
    /// For `ctr`, without CRI.
    fn start() -> Self {
        let name = format!("conformance-{}", unique_id());
        let config = format!("disabled_plugins = [\"io.containerd.grpc.v1.cri\", {DISABLED}]\n");
        Self::with_config(&name, &name, |_| config)
    }

    /// With the part of config.toml that is the caller's, made for its directory.
    fn with_config(namespace: &str, cgroup: &str, config: impl FnOnce(&Path) -> String) -> Self {
        enter_private_mounts();
        let directory = tempfile::Builder::new()
            .prefix("gocker-containerd-")
            .tempdir()
            .expect("make a temporary directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n{}\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            config(directory.path()),
            at("socket"),
            at("socket.ttrpc"),
        );
        fs::write(directory.path().join("config.toml"), config).expect("write config.toml");
        let containerd = Self {
            daemon: spawn_daemon(directory.path()),
            directory,
            namespace: namespace.to_owned(),
            cgroup: cgroup.to_owned(),
        };
        containerd.wait_up();
        let archive = containerd.directory.path().join("image.tar");
        write_archive(&sleeper_image(), &archive);
        let mut import = containerd.ctr();
        import
            .args(["images", "import", "--snapshotter", "native"])
            .arg(archive);
        run_command(&mut import).success();
        containerd
    }

    fn wait_up(&self) {
        let up = || run_command(self.ctr().arg("version")).code() == 0;
        assert!(wait_until(SOON, up), "{}", self.log());
    }

    /// Ends the daemon and starts it again: what runs goes on.
    fn restart(&mut self) {
        terminate(&mut self.daemon);
        self.daemon = spawn_daemon(self.directory.path());
        self.wait_up();
    }

    /// What the daemon says beside the course of things.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.contains("level=info"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.directory.path().join("socket"));
        command.args(["--namespace", &self.namespace]);
        command
    }

    /// A subcommand of `ctr tasks`.
    fn task(&self, subcommand: &str, args: &[&str]) -> Command {
        let mut command = self.ctr();
        command.args(["tasks", subcommand]).args(args);
        command
    }

    /// `ctr tasks exec`, with its options and then the container and command.
    fn exec_command(&self, args: &[&str]) -> Command {
        let mut command = self.task("exec", &["--exec-id", &unique_id(), "--fifo-dir"]);
        command.arg(self.directory.path().join("fifo")).args(args);
        command
    }

    #[track_caller]
    fn exec(&self, args: &[&str]) -> Output {
        run_command(&mut self.exec_command(args))
    }

    fn runtime_root(&self) -> PathBuf {
        self.directory.path().join("runtime")
    }

    /// `ctr run` with the runtime under test, of the image or what stands in
    /// its place.
    fn run_command(&self, options: &[&str], id: &str, args: &[&str]) -> Command {
        let image = [IMAGE, id];
        let after = [&image, args].concat();
        self.run_anything(options, &after)
    }

    /// `ctr run` with the runtime under test, its options and the rest.
    fn run_anything(&self, options: &[&str], rest: &[&str]) -> Command {
        let mut command = self.ctr();
        command
            .args(["run", "--snapshotter", "native", "--runc-binary"])
            .arg(&runtime().program)
            .arg("--runc-root")
            .arg(self.runtime_root())
            .arg("--fifo-dir")
            .arg(self.directory.path().join("fifo"))
            .args(options)
            .args(rest);
        command
    }

    /// Runs a container to its end; nothing may be left of it.
    #[track_caller]
    fn run(&self, options: &[&str], args: &[&str]) -> Output {
        let id = unique_id();
        let options = [&["--rm"], options].concat();
        let output = run_within(
            self.run_command(&options, &id, args).stdin(Stdio::null()),
            Duration::from_secs(60),
        );
        self.assert_gone(&id);
        output
    }

    /// Starts a container in the background; returns its id.
    #[track_caller]
    fn detach(&self, options: &[&str], args: &[&str]) -> String {
        let id = unique_id();
        let options = [&["--detach"], options].concat();
        run_command(&mut self.run_command(&options, &id, args)).success();
        id
    }

    /// The process id and status of a container's task as `ctr tasks ls` has them.
    #[track_caller]
    fn status(&self, id: &str) -> Option<(i32, String)> {
        let output = run_command(&mut self.task("ls", &[]));
        let line = output
            .success()
            .lines()
            .find(|line| line.split_whitespace().next() == Some(id))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        Some((words[1].parse().expect("a pid"), words[2].to_owned()))
    }

    #[track_caller]
    fn is(&self, id: &str, status: &str) -> bool {
        self.status(id).is_some_and(|(_, own)| own == status)
    }

    #[track_caller]
    fn signal(&self, id: &str, signal: &str) {
        run_command(&mut self.task("kill", &["--signal", signal, id])).success();
    }

    /// Kills a container and removes it.
    #[track_caller]
    fn kill_and_remove(&self, id: &str) {
        self.signal(id, "SIGKILL");
        assert_eq!(self.remove(id), 137);
    }

    /// Removes a container that has ended or is about to; its exit code.
    #[track_caller]
    fn remove(&self, id: &str) -> i32 {
        let stopped = || self.is(id, "STOPPED");
        assert!(
            wait_until(Duration::from_secs(10), stopped),
            "{}",
            self.log()
        );
        // Another code than 0 is a warning of ctr.
        let task = run_command(&mut self.task("rm", &[id]));
        task.success();
        let code = task
            .stderr
            .split_once("non-zero exit code ")
            .map_or(0, |(_, code)| number(code));
        run_command(self.ctr().args(["containers", "rm", id])).success();
        self.assert_gone(id);
        code
    }

    /// Nothing is left of a container: not its state, nor its cgroup, nor its shim.
    #[track_caller]
    fn assert_gone(&self, id: &str) {
        let cgroup = format!("{}/{id}", self.cgroup);
        let state = self.runtime_root().join(&self.namespace);
        let gone = || {
            leftovers::cgroups(&cgroup).is_empty()
                && leftovers::states(&state, id).is_empty()
                && self.shims(id).is_empty()
        };
        assert!(
            wait_until(Duration::from_secs(10), gone),
            "left: {:?} {:?} {:?}\n{}",
            leftovers::cgroups(&cgroup),
            leftovers::states(&state, id),
            self.shims(id),
            self.log()
        );
    }

    /// The shims that serve a container or, with "", any of this daemon.
    fn shims(&self, id: &str) -> Vec<Pid> {
        let address = self.directory.path().join("socket");
        let wanted = format!("-address {} ", address.display());
        let id = format!("-id {id}");
        processes(|line| {
            let line = format!("{line} ");
            line.contains("containerd-shim") && line.contains(&wanted) && line.contains(&id)
        })
    }

    /// The socket of a container's shim, which one that is killed cannot remove.
    fn shim_socket(&self, id: &str) -> PathBuf {
        let address = self.directory.path().join("socket");
        let name = format!("{}/{}/{id}", address.display(), self.namespace);
        let digest = Sha256::digest(name);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Path::new("/run/containerd/s").join(hex)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        terminate(&mut self.daemon);
        // A shim outlives its daemon, and a waiting client the test that failed.
        let directory = self.directory.path().display().to_string();
        for pid in processes(|line| line.contains(&directory)) {
            if let Err(error) = kill(pid, Signal::SIGKILL) {
                eprintln!("clean-up: kill {pid}: {error}");
            }
        }
        leftovers::remove_cgroups(&self.cgroup);
        leftovers::remove_mounts(self.directory.path());
        let tasks = self
            .directory
            .path()
            .join("state/io.containerd.runtime.v2.task");
        for entry in fs::read_dir(tasks.join(&self.namespace))
            .into_iter()
            .flatten()
            .flatten()
        {
            remove_socket(&self.shim_socket(&entry.file_name().to_string_lossy()));
        }
    }
}

/// The number that a text begins with.
fn number(text: &str) -> i32 {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap_or(text).parse().expect("a number")
}

fn remove_socket(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("clean-up: remove {path:?}: {error}");
        }
        _ => {}
    }
}

/// The small system, which sleeps unless it is told otherwise: it serves as a
/// pod's sandbox, too.
fn sleeper_image() -> Image {
    let config = json!({
        "Env": ["PATH=/bin"],
        "Cmd": ["/bin/sleep", "100000"],
    });
    let layer = busybox_layer().expect("a layer of busybox");
    ImageBuilder::new().config(config).layer(&layer).build()
}

/// The processes, except for this one, whose command line is wanted.
fn processes(is_wanted: impl Fn(&str) -> bool) -> Vec<Pid> {
    let own = Pid::this();
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.map(Pid::from_raw)
        .filter(|&pid| pid != own)
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            is_wanted(&String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}

fn spawn_daemon(directory: &Path) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .expect("create a log");
    Command::new("containerd")
        .arg("--config")
        .arg(directory.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone().expect("dup")))
        .stderr(Stdio::from(log))
        .spawn()
        .expect("start containerd")
}
