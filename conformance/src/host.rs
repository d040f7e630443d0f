//! What this machine can do, and how a test says that it cannot run here.

use std::cell::Cell;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::binaries::{Kind, runtime};
use crate::mount_table;

/// Ends the test here with `skipped: REASON` unless the condition holds. With
/// `GOCKER_NO_SKIP=1` the test fails instead.
#[macro_export]
macro_rules! needs {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            $crate::host::skip(&format!($($reason)+));
            return;
        }
    };
}

/// Ends the test here when the runtime under test is one of the peers, of which
/// it is known that they do otherwise. Never a failure: the machine is not at
/// fault.
#[macro_export]
macro_rules! peer_differs {
    ($($kind:ident)|+, $($reason:tt)+) => {
        if matches!($crate::runtime().kind, $($crate::Kind::$kind)|+) {
            $crate::host::note_skip(&format!($($reason)+));
            return;
        }
    };
}

/// Ends the test here unless gocker-runc is judged: the test is about its own
/// words or its own strictness.
#[macro_export]
macro_rules! gocker_only {
    () => {
        if $crate::runtime().kind != $crate::Kind::Gocker {
            $crate::host::note_skip("about gocker-runc only");
            return;
        }
    };
}

/// How the cgroup hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupLayout {
    /// v1 controllers, and perhaps a v2 hierarchy beside them.
    V1,
    /// v2 alone.
    V2,
}

/// Says that a test cannot run on this machine.
///
/// # Panics
/// When `GOCKER_NO_SKIP=1`.
pub fn skip(reason: &str) {
    note_skip(reason);
    assert!(
        env::var("GOCKER_NO_SKIP").as_deref() != Ok("1"),
        "may not be skipped: {reason}"
    );
}

/// Prints and counts a skipped test.
///
/// # Panics
/// When the file named by `GOCKER_SKIPS` cannot be written.
pub fn note_skip(reason: &str) {
    eprintln!("skipped: {reason}");
    if let Some(path) = env::var_os("GOCKER_SKIPS") {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .expect("open GOCKER_SKIPS");
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        writeln!(file, "{name}: skipped: {reason}").expect("write GOCKER_SKIPS");
    }
}

/// Whether this process is root, with the right to mount.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root() && has_capability(21)
}

/// Whether hard limits may be raised and oom scores lowered.
#[must_use]
pub fn has_sys_resource() -> bool {
    has_capability(24)
}

/// Whether a capability, by its number, is in the effective set.
#[must_use]
pub fn has_capability(number: u32) -> bool {
    effective_capabilities() & (1 << number) != 0
}

/// The effective set of this process.
///
/// # Panics
/// When /proc cannot be read.
#[must_use]
pub fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(line.expect("CapEff").trim(), 16).expect("a capability set")
}

/// How the cgroup hierarchies are mounted, as this thread sees them.
#[must_use]
pub fn cgroup_layout() -> CgroupLayout {
    let unified = mount_table::current()
        .iter()
        .any(|mount| mount.kind == "cgroup2" && mount.point == Path::new("/sys/fs/cgroup"));
    if unified {
        CgroupLayout::V2
    } else {
        CgroupLayout::V1
    }
}

/// Whether systemd runs this machine.
#[must_use]
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The mount points of all cgroup hierarchies.
#[must_use]
pub fn cgroup_mounts() -> Vec<PathBuf> {
    let mounts = mount_table::current().into_iter();
    mounts
        .filter(|mount| mount.kind.starts_with("cgroup"))
        .map(|mount| mount.point)
        .collect()
}

/// The directory in which a cgroup's files of one controller lie; None when no
/// hierarchy has the controller.
///
/// # Panics
/// When `/sys/fs/cgroup/cgroup.controllers` cannot be read on v2.
#[must_use]
pub fn cgroup_directory(controller: &str, path: &str) -> Option<PathBuf> {
    let path = path.trim_start_matches('/');
    if cgroup_layout() == CgroupLayout::V2 {
        let base = Path::new("/sys/fs/cgroup");
        let known = fs::read_to_string(base.join("cgroup.controllers")).expect("controllers");
        return known
            .split_whitespace()
            .any(|own| own == controller)
            .then(|| base.join(path));
    }
    let mounts = mount_table::current();
    let mount = mounts
        .iter()
        .find(|mount| mount.kind == "cgroup" && mount.file_system_has(controller))?;
    Some(mount.point.join(path))
}

/// Gives this thread a mount namespace of its own, in which nothing is shared,
/// once. crun, which refuses a hybrid of v1 and v2, gets a view without the v2
/// side.
///
/// # Panics
/// When the kernel refuses.
pub fn enter_private_mounts() {
    thread_local!(static ENTERED: Cell<bool> = const { Cell::new(false) });
    if ENTERED.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare the mount namespace");
    set_propagation(Path::new("/"), MsFlags::MS_PRIVATE);
    let unified = Path::new("/sys/fs/cgroup/unified");
    if runtime().kind == Kind::Crun && unified.exists() {
        umount2(unified, MntFlags::MNT_DETACH).expect("unmount the hybrid's v2 side");
    }
}

/// Makes a whole tree of mounts shared, private, ...
///
/// # Panics
/// When the kernel refuses.
pub fn set_propagation(tree: &Path, how: MsFlags) {
    mount(
        None::<&str>,
        tree,
        None::<&str>,
        how | MsFlags::MS_REC,
        None::<&str>,
    )
    .expect("change the propagation of mounts");
}
