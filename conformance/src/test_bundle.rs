//! A bundle made for one test, with a root file system of busybox, and a state
//! root of its own.
//!
//! ```text
//! TEMPDIR/bundle/config.json      written anew before each call of the runtime
//! TEMPDIR/bundle/rootfs/          bin/busybox and links to it, etc, dev, proc, sys, tmp
//! TEMPDIR/state/                  --root
//! ```
//! When it goes out of scope it deletes what the test created, and panics when
//! anything is left: a cgroup, a mount, an entry of the state root.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{Output, run_command};
use crate::container::Container;
use crate::{host, leftovers, ordinary_user, runtime};

const BUSYBOX: &str = "/bin/busybox";

/// The applets that tests use.
const APPLETS: &[&str] = &[
    "[", "cat", "chmod", "chown", "cp", "cut", "dd", "df", "echo", "env", "false", "find", "grep",
    "head", "hostname", "id", "ifconfig", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount",
    "nproc", "od", "printenv", "ps", "pwd", "readlink", "rm", "sed", "sh", "sleep", "sort", "stat",
    "stty", "sync", "tail", "test", "touch", "tr", "true", "tty", "umount", "uname", "wc", "yes",
];

/// See the module.
#[derive(Debug)]
pub struct TestBundle {
    directory: TempDir,
    id: String,
    config: Value,
    raw_config: Option<String>,
    of_ordinary_user: bool,
    driver: Driver,
    /// Where the cgroup is, as the configuration and the driver say.
    cgroup: String,
}

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Files,
    Systemd,
    /// The ordinary user's own.
    UserSystemd,
}

impl TestBundle {
    /// A bundle whose process is `/bin/true`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        host::enter_private_mounts();
        let directory = tempfile::Builder::new()
            .prefix("gocker-conformance-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .expect("make a temporary directory");
        let id = unique_id();
        let cgroup = format!("/conformance-{id}");
        let bundle = Self {
            directory,
            id,
            config: default_config(&cgroup),
            raw_config: None,
            of_ordinary_user: false,
            driver: Driver::Files,
            cgroup,
        };
        make_rootfs(&bundle.rootfs());
        if env::var("GOCKER_SYSTEMD").as_deref() == Ok("1") {
            return bundle.systemd();
        }
        bundle
    }

    /// Has systemd make the cgroup: `--systemd-cgroup` on every call.
    #[must_use]
    pub fn systemd(mut self) -> Self {
        self.driver = Driver::Systemd;
        let path = format!("system.slice:conformance:{}", self.id);
        self.set("/linux/cgroupsPath", json!(path))
    }

    /// Has the systemd of the ordinary user make it, for [`Self::of_ordinary_user`].
    #[must_use]
    pub fn users_systemd(mut self) -> Self {
        self.driver = Driver::UserSystemd;
        let path = format!("user.slice:conformance:{}", self.id);
        self.set("/linux/cgroupsPath", json!(path))
    }

    /// A bundle whose process is a script.
    #[must_use]
    pub fn shell(script: &str) -> Self {
        Self::new().args(&["/bin/sh", "-c", script])
    }

    /// A bundle whose process sleeps for longer than any test.
    #[must_use]
    pub fn sleeper() -> Self {
        Self::new().args(&["/bin/sleep", "1000"])
    }

    /// Replaces `process.args`.
    #[must_use]
    pub fn args(self, args: &[&str]) -> Self {
        self.edit(|config| config["process"]["args"] = json!(args))
    }

    /// Changes the configuration.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        let path = self.config["linux"]["cgroupsPath"].as_str();
        self.cgroup = match (path, self.driver) {
            (Some(path), Driver::Systemd) => cgroup_of_unit(path),
            (Some(path), Driver::UserSystemd) => {
                format!(
                    "{}{}",
                    ordinary_user::systemd_cgroup(),
                    cgroup_of_unit(path)
                )
            }
            (path, _) => path.unwrap_or_default().to_owned(),
        };
        self
    }

    /// Sets one value, named by its JSON pointer; objects on the way are made.
    #[must_use]
    pub fn set(self, pointer: &str, value: Value) -> Self {
        self.edit(|config| {
            let mut place = config;
            for name in pointer.trim_start_matches('/').split('/') {
                place = match name.parse::<usize>() {
                    Ok(index) if place.is_array() => &mut place[index],
                    _ => &mut place[name],
                };
            }
            *place = value;
        })
    }

    /// Appends a mount.
    #[must_use]
    pub fn mount(self, mount: Value) -> Self {
        self.edit(|config| config["mounts"].as_array_mut().expect("mounts").push(mount))
    }

    /// Replaces a namespace entry, or adds it; None takes it away.
    #[must_use]
    pub fn namespace(self, kind: &str, entry: Option<Value>) -> Self {
        self.edit(|config| {
            let all = config["linux"]["namespaces"]
                .as_array_mut()
                .expect("namespaces");
            all.retain(|namespace| namespace["type"] != kind);
            all.extend(entry);
        })
    }

    /// Gives the container a user namespace in which its root is host id
    /// 100000, and the rootfs to that id.
    ///
    /// # Panics
    /// When the rootfs cannot be given away.
    #[must_use]
    pub fn user_namespace(self) -> Self {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        for entry in walk(&self.rootfs()) {
            std::os::unix::fs::lchown(&entry, Some(100_000), Some(100_000)).expect("chown");
        }
        self.namespace("user", Some(json!({"type": "user"})))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// Writes this text as config.json instead.
    #[must_use]
    pub fn raw_config(mut self, text: &str) -> Self {
        self.raw_config = Some(text.to_owned());
        self
    }

    /// The configuration as it will be written.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The bundle's directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("bundle")
    }

    /// The directory that holds the bundle and the state root, for further
    /// files of a test.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The container's root file system.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// What the runtime gets as `--root`.
    #[must_use]
    pub fn state_root(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The id of the test's container; no other test has it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the cgroup is in each hierarchy; empty where the configuration does not say.
    #[must_use]
    pub fn cgroups_path(&self) -> &str {
        &self.cgroup
    }

    /// Writes config.json.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self) {
        let text = self
            .raw_config
            .clone()
            .unwrap_or_else(|| self.config.to_string());
        // A runtime of the same test may be reading it.
        let whole = self.path().join(format!(".{}", unique_id()));
        fs::write(&whole, text).expect("write config.json");
        fs::rename(whole, self.path().join("config.json")).expect("write config.json");
    }

    /// The runtime with `--root` set; the configuration is written.
    #[must_use]
    pub fn runtime(&self) -> Command {
        self.write_config();
        let mut command = self.bare_runtime();
        command.arg("--root").arg(self.state_root());
        if self.driver != Driver::Files {
            command.arg("--systemd-cgroup");
        }
        command
    }

    /// The runtime without any flag, run by whom the bundle belongs to.
    #[must_use]
    pub fn bare_runtime(&self) -> Command {
        let program = &runtime().program;
        if !self.of_ordinary_user {
            return Command::new(program);
        }
        let mut command = Command::new(ordinary_user::reachable(program, self.scratch()));
        ordinary_user::run_as_user(&mut command, &self.scratch().join("home"));
        if self.driver == Driver::UserSystemd {
            command.env("XDG_RUNTIME_DIR", ordinary_user::systemd_directory());
        }
        command
    }

    /// Has an ordinary user run the runtime, whom the bundle is given to.
    #[must_use]
    pub(crate) fn run_by_ordinary_user(mut self) -> Self {
        self.of_ordinary_user = true;
        self
    }

    /// `RUNTIME --root DIR` and these arguments, run to the end.
    #[track_caller]
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Output {
        run_command(self.runtime().args(args))
    }

    /// `run`, in the foreground.
    #[track_caller]
    #[must_use]
    pub fn run(&self) -> Output {
        run_command(&mut self.making("run", &[]))
    }

    /// `run` that must succeed; returns what the process wrote.
    #[track_caller]
    #[must_use]
    pub fn run_ok(&self) -> String {
        self.run().success().to_owned()
    }

    /// The container of this bundle, not yet created.
    #[must_use]
    pub fn container(&self) -> Container<'_> {
        self.container_named(&self.id)
    }

    /// A further container of this bundle. The name should contain the id.
    #[must_use]
    pub fn container_named(&self, name: &str) -> Container<'_> {
        Container::new(self, name)
    }

    /// A container that is created.
    #[track_caller]
    #[must_use]
    pub fn created(&self) -> Container<'_> {
        let container = self.container();
        container.create(&[]).success();
        container
    }

    /// A container that runs.
    #[track_caller]
    #[must_use]
    pub fn running(&self) -> Container<'_> {
        let container = self.created();
        container.start().success();
        container
    }

    /// What is left of the containers of this bundle, one line for each thing.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let state = leftovers::states(&self.state_root(), &self.id);
        let mounts = leftovers::mounts(self.directory.path());
        // Without a path of its own the cgroup is named by the id, somewhere.
        let cgroups = leftovers::cgroups(self.cgroups_path());
        let all = [("state", state), ("mount", mounts), ("cgroup", cgroups)];
        all.into_iter()
            .filter(|(what, _)| *what != "cgroup" || !self.cgroups_path().is_empty())
            .flat_map(|(what, paths)| paths.into_iter().map(move |path| (what, path)))
            .map(|(what, path)| format!("{what} {}", path.display()))
            .collect()
    }

    /// Panics when anything is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }
}

impl Default for TestBundle {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestBundle {
    fn drop(&mut self) {
        let left = self.leftovers();
        if !self.cgroups_path().is_empty() {
            leftovers::remove_cgroups(self.cgroups_path());
        }
        leftovers::remove_mounts(self.directory.path());
        if !std::thread::panicking() {
            assert!(
                left.is_empty(),
                "left behind by the test:\n  {}",
                left.join("\n  ")
            );
        }
    }
}

/// `a-b.slice:prefix:name` is `/a.slice/a-b.slice/prefix-name.scope`; empty for anything else.
fn cgroup_of_unit(path: &str) -> String {
    let [slice, prefix, name] = path.split(':').collect::<Vec<_>>()[..] else {
        return String::new();
    };
    let stem = slice.trim_end_matches(".slice");
    let ends = stem.match_indices('-').map(|(end, _)| end);
    let slices = ends
        .chain([stem.len()])
        .map(|end| format!("/{}.slice", &stem[..end]));
    format!("{}/{prefix}-{name}.scope", slices.collect::<String>())
}

/// A container id that no other test of this machine has at this time.
#[must_use]
pub fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "t{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Makes a root file system of busybox.
///
/// # Panics
/// When busybox-static is not installed, or a file cannot be made.
pub fn make_rootfs(rootfs: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "home"] {
        fs::create_dir_all(rootfs.join(directory)).expect("make a directory of the rootfs");
    }
    // A copy: whatever a container does to it must not reach the machine's own.
    fs::copy(BUSYBOX, rootfs.join("bin/busybox")).expect("copy /bin/busybox (busybox-static)");
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), passwd).expect("write etc/passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("write etc/group");
    fs::set_permissions(rootfs.join("tmp"), Permissions::from_mode(0o1777)).expect("chmod tmp");
}

/// The configuration that `runc spec` would write, without a terminal.
#[must_use]
pub fn default_config(cgroups_path: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "conformance",
        "mounts": default_mounts(),
        "linux": {
            "cgroupsPath": cgroups_path,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

fn default_mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ])
}

pub(crate) fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).expect("read a directory").flatten() {
        if entry.file_type().expect("a file type").is_dir() {
            all.extend(walk(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}
