//! A store of images of a test's own, and the image tools run on it.
//!
//! ```text
//! /tmp/gocker-store-XXXX/
//!   root/     --root of gocker-image and gocker: a loop-backed btrfs, as made by default
//!   home/     $HOME of the tools, empty
//!   run/      --state-root of gocker: the runtime's own directory
//! ```
//!
//! The thread that makes it gets a mount namespace of its own: whatever a tool
//! mounts goes with the test, even when the test is killed.

use std::cell::Cell;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::command::{Output, run_within};
use crate::{binaries, crash_points, host, leftovers, mount_table};

/// How long one call of a tool may take.
const LIMIT: Duration = Duration::from_secs(150);

/// The directory of one store; dropping it unmounts and removes it.
#[derive(Debug)]
pub struct StoreRoot {
    directory: TempDir,
}

impl StoreRoot {
    /// An empty directory in which the tools may make a store.
    ///
    /// # Errors
    /// When the machine refuses a mount namespace or a directory.
    pub fn new() -> Result<Self> {
        enter_private_mounts()?;
        let directory = tempfile::Builder::new().prefix("gocker-store-").tempdir()?;
        for name in ["root", "home", "run"] {
            fs::create_dir(directory.path().join(name))?;
        }
        Ok(Self { directory })
    }

    /// What is given as `--root`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Where the store's own directories lie: the file system mounted in the
    /// root, or the root itself where it is on btrfs.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        let mounted = self.path().join("store");
        if mounted.is_dir() {
            mounted
        } else {
            self.path()
        }
    }

    /// A place for a test's own files, beside the store.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `gocker-image --root … ARGS`, not yet run.
    ///
    /// # Panics
    /// When there is no gocker-image.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let program = binaries::find("GOCKER_IMAGE", "gocker-image");
        self.command_of(
            &program.expect("gocker-image: set GOCKER_IMAGE or build it first"),
            args,
        )
    }

    /// `gocker --root … --state-root … ARGS`, not yet run.
    ///
    /// # Panics
    /// When there is no gocker, or no runtime for it.
    #[must_use]
    pub fn gocker_command(&self, args: &[&str]) -> Command {
        let program = binaries::find("GOCKER", "gocker");
        let state = self.beside("run");
        let state = state.to_str().expect("a temporary directory is UTF-8");
        let args = [&["--state-root", state], args].concat();
        let program = program.expect("gocker: set GOCKER or build it first");
        let mut command = self.command_of(&program, &args);
        command.env(
            "GOCKER_RUNC",
            runtime().expect("a runtime: gocker-runc or runc"),
        );
        command
    }

    /// `gocker-image --root … ARGS` under strace(1) with these options, not yet run.
    #[must_use]
    pub fn traced(&self, options: &[&str], args: &[&str]) -> Command {
        let inner = self.command(args);
        let mut command = self.clean_command(Path::new(crash_points::STRACE));
        command
            .args(options)
            .arg(inner.get_program())
            .args(inner.get_args());
        command
    }

    fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = self.clean_command(program);
        command.arg("--root").arg(self.path()).args(args);
        command
    }

    /// A program with nothing of the user's own settings: no credentials, no proxy.
    fn clean_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.beside("home"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        command
    }

    /// Runs `gocker-image` to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        run_within(&mut self.command(args), LIMIT)
    }

    /// Runs `gocker` to its end.
    #[track_caller]
    pub fn run_gocker(&self, args: &[&str]) -> Output {
        run_within(&mut self.gocker_command(args), LIMIT)
    }

    /// Makes the bundle `id` of an image; returns its directory.
    ///
    /// # Panics
    /// When the tool fails.
    #[track_caller]
    pub fn bundle(&self, reference: &str, id: &str) -> PathBuf {
        self.run(&["bundle", reference, "--name", id]).success();
        self.directory().join("bundles").join(id)
    }

    /// Runs the bundle in `directory` as the container `id` to its end.
    ///
    /// # Panics
    /// When there is no runtime.
    #[track_caller]
    pub fn run_bundle(&self, directory: &Path, id: &str) -> Output {
        let program = runtime().expect("a runtime: gocker-runc or runc");
        let mut command = Command::new(program);
        command.arg("--root").arg(self.beside("run"));
        command.args(["run", "--bundle"]).arg(directory).arg(id);
        run_within(command.stdin(Stdio::null()), LIMIT)
    }

    /// What the store holds, as paths from its directory: every file and
    /// directory but locks, and those inside of layers and root file systems,
    /// in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn inventory(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let root = self.directory();
        list(&root, &root, &mut found)?;
        found.retain(|path| !path.starts_with("locks/"));
        found.sort();
        Ok(found)
    }

    /// The paths of all subvolumes in the store's file system, as btrfs itself
    /// lists them; the top one is left out.
    ///
    /// # Errors
    /// When the store is not on btrfs.
    pub fn subvolumes(&self) -> Result<Vec<String>> {
        let output = Command::new("btrfs")
            .args(["subvolume", "list"])
            .arg(self.directory())
            .output();
        let output = output.context("run btrfs (Debian package btrfs-progs)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "btrfs subvolume list: {said}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // ID 256 gen 7 top level 5 path layers/…
        let mut paths: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.split_once(" path ")?.1.to_owned()))
            .collect();
        paths.sort();
        Ok(paths)
    }

    /// Ends what still runs of the containers that gocker made.
    fn end_containers(&self) -> Result<()> {
        let state = self.beside("run");
        for entry in fs::read_dir(&state)?
            .flatten()
            .filter(|entry| entry.path().is_dir())
        {
            let runtime = runtime().context("a runtime")?;
            let mut command = Command::new(runtime);
            command
                .arg("--root")
                .arg(&state)
                .args(["delete", "--force"])
                .arg(entry.file_name());
            let output = command.stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{command:?}: {}", said.trim());
        }
        Ok(())
    }

    /// The loop devices under the store's mounts.
    #[must_use]
    pub fn loop_devices(&self) -> Vec<PathBuf> {
        let mounts = mount_table::current().into_iter();
        let below = mounts.filter(|mount| mount.point.starts_with(self.directory.path()));
        let sources = below.map(|mount| PathBuf::from(mount.source));
        let mut devices: Vec<PathBuf> = sources
            .filter(|source| source.as_os_str().as_bytes().starts_with(b"/dev/loop"))
            .collect();
        devices.sort();
        devices.dedup();
        devices
    }
}

impl Drop for StoreRoot {
    fn drop(&mut self) {
        if let Err(error) = self.end_containers() {
            eprintln!("clean-up: {error:#}");
        }
        let devices = self.loop_devices();
        leftovers::remove_mounts(self.directory.path());
        for device in devices {
            if let Err(error) = detach(&device, self.directory.path()) {
                eprintln!("clean-up: {error:#}");
            }
        }
    }
}

/// What gocker runs containers with: ours, or Debian's runc where it is not built.
fn runtime() -> Option<PathBuf> {
    binaries::find("GOCKER_RUNC", "gocker-runc").or_else(|| binaries::installed("runc"))
}

/// Waits for a process and returns how it ended and the most memory, in KiB,
/// that it has had itself.
///
/// # Errors
/// When it cannot be waited for.
pub fn wait_with_peak(child: &mut Child) -> Result<(ExitStatus, u64)> {
    // `ru_maxrss` would count what this process had when it started the child.
    let path = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    loop {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak_kib = peak_kib.max(now.unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            return Ok((status, peak_kib));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The cgroup directories of a container, wherever the runtime put them.
#[must_use]
pub fn cgroups_named(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut places = host::cgroup_mounts();
    while let Some(place) = places.pop() {
        for path in fs::read_dir(place)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
        {
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains(id))
            {
                found.push(path);
            } else if path.is_dir() {
                places.push(path);
            }
        }
    }
    found
}

/// Detaches a loop device unless the last unmount did, or it is another's now.
fn detach(device: &Path, directory: &Path) -> Result<()> {
    let Some(name) = device.file_name() else {
        return Ok(());
    };
    let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
    let Ok(file) = fs::read_to_string(backing) else {
        return Ok(());
    };
    if Path::new(file.trim()).starts_with(directory) {
        let status = Command::new("losetup").arg("-d").arg(device).status()?;
        ensure!(status.success(), "losetup -d {device:?}: {status}");
    }
    Ok(())
}

fn list(root: &Path, directory: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {directory:?}"))? {
        let entry = entry?;
        let path = entry.path();
        let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let parent = relative.split('/').next().unwrap_or_default();
        let depth = relative.matches('/').count();
        let is_tree = (depth == 1 && parent == "layers") || (depth == 2 && parent == "bundles");
        if entry.file_type()?.is_dir() && !is_tree {
            list(root, &path, found)?;
        }
        found.push(relative);
    }
    Ok(())
}

/// Gives this thread, and what it starts, a mount namespace of its own in which
/// nothing is shared; once.
///
/// # Errors
/// When the kernel refuses.
pub fn enter_private_mounts() -> Result<()> {
    thread_local!(static ENTERED: Cell<bool> = const { Cell::new(false) });
    if !ENTERED.get() {
        unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
        host::set_propagation(Path::new("/"), MsFlags::MS_PRIVATE);
        ENTERED.set(true);
    }
    Ok(())
}
