//! Looks for what a container should have taken with it, and clears it away.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::wait_until;
use crate::{host, mount_table};

/// The cgroup directories under this path, in all hierarchies.
#[must_use]
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    let path = path.trim_start_matches('/');
    let all = host::cgroup_mounts()
        .into_iter()
        .map(|mount| mount.join(path));
    all.filter(|directory| directory.exists()).collect()
}

/// The mounts at or below a directory, in this thread's namespace.
#[must_use]
pub fn mounts(directory: &Path) -> Vec<PathBuf> {
    let all = mount_table::current().into_iter().map(|mount| mount.point);
    all.filter(|point| point.starts_with(directory)).collect()
}

/// The entries of a runtime's state directory that belong to an id.
#[must_use]
pub fn states(root: &Path, id: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.to_string_lossy().contains(id))
        .collect()
}

/// The processes in cgroups.
#[must_use]
pub fn processes(cgroups: &[PathBuf]) -> Vec<Pid> {
    let files = cgroups
        .iter()
        .map(|directory| directory.join("cgroup.procs"));
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    let mut pids: Vec<Pid> = texts
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<i32>>()
        })
        .map(Pid::from_raw)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The processes, but this one, whose command line names a directory: an
/// engine's daemons are told where theirs is.
///
/// # Panics
/// When `/proc` cannot be read.
#[must_use]
pub fn processes_of(directory: &Path) -> Vec<Pid> {
    let wanted = directory.as_os_str().as_encoded_bytes();
    let names_it = |pid: &i32| {
        // It may have ended meanwhile.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(wanted.len()).any(|part| part == wanted)
    };
    let own = Pid::this();
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(names_it)
        .map(Pid::from_raw)
        .filter(|pid| *pid != own)
        .collect()
}

/// Kills the processes of a directory, see [`processes_of`].
pub fn kill_processes_of(directory: &Path) {
    let gone = wait_until(Duration::from_secs(10), || {
        let left = processes_of(directory);
        for pid in &left {
            // It may have ended meanwhile.
            if let Err(error) = kill(*pid, Signal::SIGKILL) {
                eprintln!("clean-up: kill {pid}: {error}");
            }
        }
        left.is_empty()
    });
    if !gone {
        eprintln!("clean-up: left: {:?}", processes_of(directory));
    }
}

/// Kills what runs in these cgroups and removes them, children first.
pub fn remove_cgroups(path: &str) {
    wait_until(Duration::from_secs(5), || {
        let left = cgroups(path);
        let all: Vec<PathBuf> = left.iter().flat_map(|top| with_children(top)).collect();
        for pid in processes(&all) {
            // It may have ended meanwhile.
            if let Err(error) = kill(pid, Signal::SIGKILL) {
                eprintln!("clean-up: kill {pid}: {error}");
            }
        }
        left.iter().for_each(|directory| remove_tree(directory));
        cgroups(path).is_empty()
    });
}

/// A cgroup and all below it.
fn with_children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let children = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    let mut all: Vec<PathBuf> = children.flat_map(|child| with_children(&child)).collect();
    all.push(directory.to_owned());
    all
}

/// Takes all mounts at or below a directory away, the latest first.
pub fn remove_mounts(directory: &Path) {
    for point in mounts(directory).iter().rev() {
        if let Err(error) = umount2(point, MntFlags::MNT_DETACH) {
            eprintln!("clean-up: unmount {point:?}: {error}");
        }
    }
}

fn remove_tree(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path());
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            eprintln!("clean-up: remove {directory:?}: {error}");
        }
        _ => {}
    }
}
