//! containerd and its shim, by `ctr`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::binaries::installed;
use conformance::command::run_within;
use conformance::host::{
    CgroupLayout, cgroup_directory, cgroup_layout, enter_private_mounts, is_root,
};
use conformance::test_bundle::unique_id;
use conformance::{Output, leftovers, needs, run_command, runtime, wait_until};
use tempfile::TempDir;

use super::{IMAGE, busybox_archive, run_on_a_terminal, terminate};

/// A containerd of the test's own, with the image of busybox imported.
struct Containerd {
    directory: TempDir,
    daemon: Child,
    /// containerd's namespace: the cgroups of its containers lie below one of
    /// that name.
    namespace: String,
}

impl Containerd {
    fn start() -> Self {
        enter_private_mounts();
        let directory = tempfile::Builder::new()
            .prefix("gocker-containerd-")
            .tempdir()
            .expect("make a temporary directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.aufs\", \
             \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {ttrpc:?}\n",
            root = at("root"),
            state = at("state"),
            socket = at("socket"),
            ttrpc = at("socket.ttrpc"),
        );
        fs::write(directory.path().join("config.toml"), config).expect("write config.toml");
        let log = File::create(directory.path().join("log")).expect("create a log");
        let daemon = Command::new("containerd")
            .args(["--config", &at("config.toml")])
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().expect("dup")))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("start containerd");
        let containerd = Self {
            directory,
            daemon,
            namespace: format!("conformance-{}", unique_id()),
        };
        let up = || run_command(containerd.ctr().arg("version")).code() == 0;
        assert!(
            wait_until(Duration::from_secs(20), up),
            "{}",
            containerd.log()
        );
        let archive = busybox_archive(containerd.directory.path());
        let mut import = containerd.ctr();
        import
            .args(["images", "import", "--snapshotter", "native"])
            .arg(archive);
        run_command(&mut import).success();
        containerd
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.directory.path().join("socket"));
        command.args(["--namespace", &self.namespace]);
        command
    }

    fn runtime_root(&self) -> PathBuf {
        self.directory.path().join("runtime")
    }

    /// `ctr run` with the runtime under test.
    fn run_command(&self, options: &[&str], id: &str, args: &[&str]) -> Command {
        let mut command = self.ctr();
        command
            .args(["run", "--snapshotter", "native", "--runc-binary"])
            .arg(&runtime().program)
            .arg("--runc-root")
            .arg(self.runtime_root())
            .args(options)
            .args([IMAGE, id])
            .args(args);
        command
    }

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

    /// Removes a killed container.
    #[track_caller]
    fn remove(&self, id: &str) {
        let stopped = || {
            run_command(self.ctr().args(["tasks", "ls"]))
                .stdout
                .contains("STOPPED")
        };
        assert!(
            wait_until(Duration::from_secs(10), stopped),
            "{}",
            self.log()
        );
        let task = run_command(self.ctr().args(["tasks", "rm", id]));
        // It exits with the task's own code.
        assert!([0, 137].contains(&task.code()), "{task}");
        run_command(self.ctr().args(["containers", "rm", id])).success();
        self.assert_gone(id);
    }

    /// Nothing is left of a container: not its state, nor its cgroup.
    #[track_caller]
    fn assert_gone(&self, id: &str) {
        let cgroup = format!("{}/{id}", self.namespace);
        let state = self.runtime_root().join(&self.namespace);
        let gone =
            || leftovers::cgroups(&cgroup).is_empty() && leftovers::states(&state, id).is_empty();
        assert!(
            wait_until(Duration::from_secs(10), gone),
            "left: {:?} {:?}\n{}",
            leftovers::cgroups(&cgroup),
            leftovers::states(&state, id),
            self.log()
        );
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        terminate(&mut self.daemon);
        leftovers::remove_cgroups(&self.namespace);
        leftovers::remove_mounts(self.directory.path());
    }
}

fn is_here() -> bool {
    ["containerd", "ctr", "containerd-shim-runc-v2"]
        .iter()
        .all(|name| installed(name).is_some())
}

#[test]
fn ctr_runs_a_container_of_a_local_image() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package containerd");
    let containerd = Containerd::start();
    let output = containerd.run(&[], &["/bin/echo", "hello from the container"]);
    assert_eq!(
        output.success(),
        "hello from the container\n",
        "{}",
        containerd.log()
    );
    let output = containerd.run(&[], &["/bin/sh", "-c", "exit 42"]);
    assert_eq!(output.code(), 42, "{output}");
    let output = containerd.run(
        &[],
        &["/bin/sh", "-c", "id -u; hostname; ls /proc/1/fd | wc -l"],
    );
    assert!(output.success().starts_with("0\n"), "{output}");
    let output = containerd.run(&[], &["nosuchprogram"]);
    assert!(
        output
            .failure()
            .contains("executable file not found in $PATH"),
        "{output}"
    );
}

#[test]
fn ctr_limits_a_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package containerd");
    let containerd = Containerd::start();
    let (file, quota) = match cgroup_layout() {
        CgroupLayout::V1 => ("memory.limit_in_bytes", ("cpu.cfs_quota_us", "50000\n")),
        CgroupLayout::V2 => ("memory.max", ("cpu.max", "50000 100000\n")),
    };
    let id = unique_id();
    let options = ["--detach", "--memory-limit", "67108864", "--cpus", "0.5"];
    run_command(&mut containerd.run_command(&options, &id, &["/bin/sleep", "1000"])).success();
    let cgroup = format!("{}/{id}", containerd.namespace);
    for (controller, file, expected) in [("memory", file, "67108864\n"), ("cpu", quota.0, quota.1)]
    {
        let directory = cgroup_directory(controller, &cgroup).expect("the controller");
        assert_eq!(
            fs::read_to_string(directory.join(file)).expect("read"),
            expected
        );
    }
    run_command(
        containerd
            .ctr()
            .args(["tasks", "kill", "--signal", "SIGKILL", &id]),
    )
    .success();
    containerd.remove(&id);
}

#[test]
fn ctr_gives_a_container_a_terminal() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package containerd");
    let containerd = Containerd::start();
    let id = unique_id();
    let script = "tty; test -t 0 && test -t 1 && echo both; exit 3";
    let mut command = containerd.run_command(&["--rm", "--tty"], &id, &["/bin/sh", "-c", script]);
    let (code, text) = run_on_a_terminal(&mut command);
    assert_eq!((code, text.as_str()), (3, "/dev/pts/0\nboth\n"));
    containerd.assert_gone(&id);
}

#[test]
fn ctr_kills_and_deletes_a_detached_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package containerd");
    let containerd = Containerd::start();
    let id = unique_id();
    run_command(&mut containerd.run_command(&["--detach"], &id, &["/bin/sleep", "1000"])).success();
    let tasks = || {
        run_command(containerd.ctr().args(["tasks", "ls"]))
            .success()
            .to_owned()
    };
    assert!(tasks().contains("RUNNING"), "{}", tasks());
    run_command(
        containerd
            .ctr()
            .args(["tasks", "kill", "--signal", "SIGKILL", &id]),
    )
    .success();
    assert!(
        wait_until(Duration::from_secs(10), || tasks().contains("STOPPED")),
        "{}",
        tasks()
    );
    containerd.remove(&id);
}
