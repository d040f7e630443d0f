//! Which controllers a directory has: those that its parent hands down.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v2.html#controlling-controllers>.

use std::path::Path;

use nix::errno::Errno;

use crate::cgroups::files::{self, read_in};
use crate::cgroups::{Error, tree};

/// What a directory has, and may hand down.
pub(in crate::cgroups) const AVAILABLE: &str = "cgroup.controllers";
const HANDED_DOWN: &str = "cgroup.subtree_control";

/// Has every controller of `mount_point` handed down to `dir`.
///
/// One that cannot be (a process in a directory on the way forbids it) is left out. Returns
/// what `dir` has then.
pub(super) fn hand_down(mount_point: &Path, dir: &Path) -> Result<String, Error> {
    let wanted = read_in(mount_point, AVAILABLE)?;
    // Usually all is there since the last container.
    let present = read_in(dir, AVAILABLE)?;
    if missing(&wanted, &present).is_empty() {
        return Ok(present);
    }
    let mut way: Vec<&Path> = dir
        .ancestors()
        .skip(1)
        .take_while(|ancestor| ancestor.starts_with(mount_point))
        .collect();
    way.reverse();
    for parent in way {
        let missing = missing(&wanted, &read_in(parent, HANDED_DOWN)?);
        if missing.is_empty() {
            continue;
        }
        let path = parent.join(HANDED_DOWN);
        if files::write(&path, &missing.join(" ")).is_err() {
            for controller in missing {
                ignore_unavailable(&path, files::write(&path, &controller))?;
            }
        }
    }
    read_in(dir, AVAILABLE)
}

/// Has `controller` handed down to `dir` by its parent, and to that one by its own, as far up
/// as it takes.
pub(in crate::cgroups) fn enable_above(dir: &Path, controller: &str) -> Result<(), Error> {
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    let path = parent.join(HANDED_DOWN);
    let line = format!("+{controller}");
    let mut answer = files::write(&path, &line);
    if answer == Err(Errno::ENOENT) && path.exists() {
        enable_above(parent, controller)?;
        answer = files::write(&path, &line);
    }
    ignore_unavailable(&path, answer)
}

/// The controllers of `wanted` that are not in `present`, each as `+NAME`.
fn missing(wanted: &str, present: &str) -> Vec<String> {
    let is_present = |name: &&str| present.split_whitespace().any(|present| present == *name);
    let missing = wanted.split_whitespace().filter(|name| !is_present(name));
    missing.map(|name| format!("+{name}")).collect()
}

/// Passes over the answers for a controller that cannot be handed down here.
fn ignore_unavailable(path: &Path, answer: Result<(), Errno>) -> Result<(), Error> {
    match answer {
        Ok(()) => Ok(()),
        Err(
            Errno::EBUSY
            | Errno::ENOENT
            | Errno::EINVAL
            | Errno::EOPNOTSUPP
            | Errno::EACCES
            | Errno::EPERM
            | Errno::EROFS,
        ) => Ok(()),
        Err(answer) => Err(tree::path_error("write", path, answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing() {
        let table: [(&str, &str, &[&str]); 3] = [
            ("cpu memory\n", "memory cpu\n", &[]),
            ("cpu cpuset memory\n", "cpu\n", &["+cpuset", "+memory"]),
            ("", "cpu\n", &[]),
        ];
        for (wanted, present, expected) in table {
            assert_eq!(missing(wanted, present), expected, "{wanted:?} {present:?}");
        }
    }

    #[test]
    fn every_directory_on_the_way_hands_down() {
        let root = tempfile::tempdir().expect("has a directory");
        let dirs = ["", "a", "a/b"].map(|name| root.path().join(name));
        for dir in &dirs {
            std::fs::create_dir_all(dir).expect("is made");
            std::fs::write(dir.join(HANDED_DOWN), "").expect("is written");
            std::fs::write(dir.join(AVAILABLE), "").expect("is written");
        }
        std::fs::write(root.path().join(AVAILABLE), "cpu pids\n").expect("is written");
        std::fs::write(root.path().join(HANDED_DOWN), "cpu").expect("is written");
        hand_down(root.path(), &dirs[2]).expect("are written");
        let written = dirs.map(|dir| files::read(&dir.join(HANDED_DOWN)).expect("is there"));
        // A file of the kernel's would now hold both; this one holds what was written.
        assert_eq!(written, ["+pids", "+cpu +pids", ""].map(str::to_owned));
    }
}
