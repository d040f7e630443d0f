//! A user without any rights, who runs the runtime under test.
//!
//! The machine's own `/etc` is not touched: the user is known, where a test wants that, in copies
//! of a few files that are bound over the originals in the test's own mount namespace.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::command::{Output, run_command};
use crate::host::{enter_private_mounts, has_systemd};
use crate::test_bundle::{TestBundle, walk};

/// The user's id, and that of its group; nobody else has it.
pub const ID: u32 = 64_999;

/// The user's name, once [`grant_subordinate_ids`] has given it one.
pub const NAME: &str = "conformance";

/// The first of the 65536 further ids that [`grant_subordinate_ids`] grants.
pub const SUBORDINATE: u32 = 1_300_000;

impl TestBundle {
    /// Gives the bundle to an ordinary user, who then runs the runtime, too. The container's root
    /// is that user; it asks for no cgroup and no limits.
    ///
    /// # Panics
    /// When the files cannot be given away.
    #[must_use]
    pub fn of_ordinary_user(self) -> Self {
        let home = self.scratch().join("home");
        for directory in [&home, &home.join("run"), &self.state_root()] {
            fs::create_dir_all(directory).expect("make a directory of the user's");
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("chmod");
        }
        for tree in [home, self.state_root(), self.path()] {
            give_away(&tree);
        }
        let map = json!([{"containerID": 0, "hostID": ID, "size": 1}]);
        self.run_by_ordinary_user()
            .namespace("user", Some(json!({"type": "user"})))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
            .edit(|config| {
                let linux = config["linux"].as_object_mut().expect("linux");
                linux.remove("resources");
                linux.remove("cgroupsPath");
                remove_option(config, "/dev/pts", "gid=5");
            })
    }

    /// Maps the subordinate ids of [`grant_subordinate_ids`] from 1 on, too.
    #[must_use]
    pub fn with_subordinate_ids(self) -> Self {
        let map = json!([
            {"containerID": 0, "hostID": ID, "size": 1},
            {"containerID": 1, "hostID": SUBORDINATE, "size": 65_536},
        ]);
        self.set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }
}

impl TestBundle {
    /// `run` by "root" of a new user namespace of the user's, made by unshare(1) with these further
    /// options, once this script has succeeded there.
    #[track_caller]
    #[must_use]
    pub fn run_as_nested_root(&self, options: &[&str], before: &str) -> Output {
        let runtime = self.runtime();
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount"])
            .args(options);
        let script = format!("{before} && exec \"$@\"");
        command.args(["--", "/bin/sh", "-c", &script, "sh"]);
        command.arg(runtime.get_program()).args(runtime.get_args());
        command
            .args(["run", "--bundle"])
            .arg(self.path())
            .arg(self.id());
        run_as_user(&mut command, &self.scratch().join("home"));
        run_command(&mut command)
    }
}

/// Takes an option from the mount at `destination`.
fn remove_option(config: &mut Value, destination: &str, option: &str) {
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    for mount in mounts
        .iter_mut()
        .filter(|mount| mount["destination"] == destination)
    {
        let options = mount["options"].as_array_mut().expect("options");
        options.retain(|other| other != option);
    }
}

/// Gives a tree to the user.
///
/// # Panics
/// When that is not allowed.
pub fn give_away(tree: &Path) {
    for entry in walk(tree) {
        lchown(&entry, Some(ID), Some(ID)).expect("chown");
    }
}

/// Has the user run the command, in an environment of its own.
pub fn run_as_user(command: &mut Command, home: &Path) {
    command
        .uid(ID)
        .gid(ID)
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home)
        .env("USER", NAME)
        .env("XDG_RUNTIME_DIR", home.join("run"));
}

/// Where a systemd of the user's listens and keeps its files.
#[must_use]
pub fn systemd_directory() -> PathBuf {
    PathBuf::from(format!("/run/user/{ID}"))
}

/// The cgroup of a systemd of the user's.
#[must_use]
pub fn systemd_cgroup() -> String {
    format!("/user.slice/user-{ID}.slice/user@{ID}.service")
}

/// Starts the user's systemd; false where this machine runs none, or does not know the user.
///
/// # Panics
/// When `/etc/passwd` cannot be read, or systemd refuses.
#[must_use]
pub fn start_systemd() -> bool {
    let users = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    let id = ID.to_string();
    let is_known = users
        .lines()
        .any(|line| line.split(':').nth(2) == Some(&id));
    if !is_known || !has_systemd() {
        return false;
    }
    let mut command = Command::new("systemctl");
    run_command(command.args(["start", &format!("user@{ID}.service")])).success();
    true
}

/// A program that the user can reach: itself, or a copy in `directory`.
///
/// # Panics
/// When it cannot be copied.
#[must_use]
pub fn reachable(program: &Path, directory: &Path) -> PathBuf {
    let is_open = |path: &Path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    };
    if program.ancestors().all(is_open) {
        return program.to_owned();
    }
    let copy = directory.join(program.file_name().expect("a name"));
    if !copy.exists() {
        fs::copy(program, &copy).expect("copy the program");
    }
    copy
}

/// Gives the user a name, and ids to map, in this thread's view of `/etc`.
///
/// # Panics
/// When the files cannot be copied and bound.
pub fn grant_subordinate_ids() {
    thread_local!(static GRANTED: Cell<bool> = const { Cell::new(false) });
    if GRANTED.replace(true) {
        return;
    }
    enter_private_mounts();
    let ids = format!("{NAME}:{SUBORDINATE}:65536");
    for (file, line) in [
        (
            "passwd",
            format!("{NAME}:x:{ID}:{ID}::/nonexistent:/bin/sh"),
        ),
        ("group", format!("{NAME}:x:{ID}:")),
        ("subuid", ids.clone()),
        ("subgid", ids),
    ] {
        let original = Path::new("/etc").join(file);
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let copy = directory.path().join(file);
        fs::copy(&original, &copy).expect("copy a file of /etc");
        let mut opened = OpenOptions::new().append(true).open(&copy).expect("open");
        writeln!(opened, "{line}").expect("write");
        mount(
            Some(&copy),
            &original,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("bind a copy over a file of /etc");
        // The mount keeps the file alive.
    }
}
