//! Directories of cgroups: made, searched for processes, entered, removed.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, eaccess};

use super::{Error, files};

/// Whether the last directory of a path was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Absent,
    Present,
}

/// Makes `dir` and what is missing above it; each directory made is added to `made`, outermost
/// first.
pub(super) fn make(dir: &Path, made: &mut Vec<PathBuf>) -> Result<Found, Error> {
    // Another runtime may remove an empty parent between two steps.
    let mut tries = 0;
    loop {
        match make_once(dir, made) {
            Err(Error::Path {
                answer: Errno::ENOENT,
                ..
            }) if tries < 10 => tries += 1,
            result => return result,
        }
    }
}

fn make_once(dir: &Path, made: &mut Vec<PathBuf>) -> Result<Found, Error> {
    match (make_one(dir), dir.parent()) {
        (Ok(()), _) => (),
        (Err(Errno::EEXIST), _) => return Ok(Found::Present),
        // Usually only the last one is missing: so it is tried first.
        (Err(Errno::ENOENT), Some(parent)) => {
            make_once(parent, made)?;
            match make_one(dir) {
                Ok(()) => (),
                Err(Errno::EEXIST) => return Ok(Found::Present),
                Err(answer) => return Err(path_error("make cgroup", dir, answer)),
            }
        }
        (Err(answer), _) => return Err(path_error("make cgroup", dir, answer)),
    }
    made.push(dir.to_owned());
    Ok(Found::Absent)
}

fn make_one(dir: &Path) -> Result<(), Errno> {
    DirBuilder::new()
        .mode(0o755)
        .create(dir)
        .map_err(files::errno)
}

/// Whether this user may make `dir`, or use the one that is there.
pub(super) fn may_make(dir: &Path) -> bool {
    let existing = dir.ancestors().find(|dir| dir.exists());
    existing.is_some_and(|place| {
        let file = place.join("cgroup.procs");
        let (path, rights) = if place == dir {
            (file.as_path(), AccessFlags::W_OK)
        } else {
            (place, AccessFlags::W_OK | AccessFlags::X_OK)
        };
        eaccess(path, rights).is_ok()
    })
}

/// Whether this user may move its processes to `dir` of cgroup2 from where they are, beside it
/// or above it: that takes a right in the cgroup that both places share.
pub(super) fn may_move(dir: &Path) -> bool {
    dir.parent()
        .is_some_and(|shared| eaccess(&shared.join("cgroup.procs"), AccessFlags::W_OK).is_ok())
}

/// Removes directories that [`make`] made, the last first. Those of the container go with all
/// that is in them; a parent that somebody else uses by now stays.
pub(super) fn remove_made(made: Vec<PathBuf>, own: &[PathBuf]) -> Result<(), Error> {
    let mut result = Ok(());
    for dir in made.into_iter().rev() {
        let removed = if own.contains(&dir) {
            remove_tree(&dir)
        } else {
            match remove_one(&dir) {
                Ok(()) | Err(Errno::ENOENT | Errno::EBUSY | Errno::ENOTEMPTY) => Ok(()),
                Err(answer) => Err(path_error("remove cgroup", &dir, answer)),
            }
        };
        result = result.and(removed);
    }
    result
}

/// Removes `dir` and every cgroup beneath it.
pub(super) fn remove_tree(dir: &Path) -> Result<(), Error> {
    match remove_one(dir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(_) => (),
    }
    for child in children(dir)? {
        remove_tree(&child)?;
    }
    remove_patiently(dir)
}

fn remove_one(dir: &Path) -> Result<(), Errno> {
    fs::remove_dir(dir).map_err(files::errno)
}

/// Waits, about 1 s in all, for processes that were killed to leave.
fn remove_patiently(dir: &Path) -> Result<(), Error> {
    let mut pause = Duration::from_micros(250);
    loop {
        match remove_one(dir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY | Errno::EINTR) if pause < Duration::from_secs(1) => {
                thread::sleep(pause);
                pause *= 2;
            }
            Err(answer) => return Err(path_error("remove cgroup", dir, answer)),
        }
    }
}

/// The directories in `dir`; none when it is gone.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| path_error("list", dir, files::errno(error));
    let entries = match fs::read_dir(dir).map_err(failed) {
        Err(Error::Path {
            answer: Errno::ENOENT | Errno::ENODEV,
            ..
        }) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Whether there are directories in `dir`. A directory's link count tells without a search.
fn has_children(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.nlink() != 2)
}

/// The processes of `dir` and of every cgroup beneath it; none when it is gone.
pub(super) fn processes(dir: &Path) -> Result<Vec<Pid>, Error> {
    let mut found = Vec::new();
    add_processes(dir, &mut found)?;
    Ok(found)
}

fn add_processes(dir: &Path, found: &mut Vec<Pid>) -> Result<(), Error> {
    let mut path = dir.join("cgroup.procs");
    let mut text = files::read(&path);
    if text == Err(Errno::EOPNOTSUPP) {
        // A threaded cgroup of v2 lists its processes only at the top of the threaded part.
        path.set_file_name("cgroup.threads");
        text = files::read(&path);
    }
    let text = match text {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        text => text.map_err(|answer| Error::Path {
            operation: "read",
            path,
            answer,
        })?,
    };
    for line in text.lines() {
        let pid = line
            .parse::<u32>()
            .ok()
            .and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| Error::Content {
            path: dir.join("cgroup.procs"),
            text: line.to_owned(),
            expected: "a process id",
        })?;
        found.push(Pid::from_raw(pid));
    }
    if has_children(dir) {
        for child in children(dir)? {
            add_processes(&child, found)?;
        }
    }
    Ok(())
}

/// Sends `signal` to every process of a tree that stands still, so that the list is whole.
pub(super) fn signal_all(dir: &Path, signal: Signal) -> Result<(), Error> {
    processes(dir)?
        .into_iter()
        .try_for_each(|pid| send(dir, pid, signal))
}

/// As [`signal_all`], for a tree that could not be made to stand still: looks again for
/// processes that were born meanwhile, until there are none.
pub(super) fn signal_until_known(dir: &Path, signal: Signal) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for _ in 0..100 {
        let mut all_known = true;
        for pid in processes(dir)? {
            if known.insert(pid) {
                all_known = false;
                send(dir, pid, signal)?;
            }
        }
        if all_known {
            break;
        }
    }
    Ok(())
}

fn send(dir: &Path, pid: Pid, signal: Signal) -> Result<(), Error> {
    // A process of another PID namespace shows as 0, which kill(2) takes for ourselves.
    let sent = if pid.as_raw() > 0 {
        kill(pid, signal)
    } else {
        Err(Errno::EPERM)
    };
    match sent {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(answer) => Err(Error::Signal {
            signal,
            pid,
            path: dir.to_owned(),
            answer,
        }),
    }
}

/// Passes over a cgroup that vanished meanwhile.
pub(super) fn ignore_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Path {
            answer: Errno::ENOENT | Errno::ENODEV,
            ..
        }) => Ok(()),
        result => result,
    }
}

/// Refuses a directory that was there before and is in use.
pub(super) fn check_unused(dir: &Path) -> Result<(), Error> {
    match processes(dir)?.len() {
        0 => Ok(()),
        count => Err(Error::NotEmpty {
            path: dir.to_owned(),
            count,
        }),
    }
}

pub(super) fn path_error(operation: &'static str, path: &Path, answer: Errno) -> Error {
    Error::Path {
        operation,
        path: path.to_owned(),
        answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_made_and_removed() {
        let root = tempfile::tempdir().expect("has a directory");
        let dir = root.path().join("a/b/c");
        fs::create_dir(root.path().join("a")).expect("is made");
        let mut made = Vec::new();
        assert_eq!(make(&dir, &mut made).expect("is made"), Found::Absent);
        assert_eq!(made, [root.path().join("a/b"), dir.clone()]);
        assert_eq!(make(&dir, &mut made).expect("is there"), Found::Present);
        assert_eq!(made.len(), 2);

        fs::create_dir(root.path().join("a/b/other")).expect("is made");
        remove_made(made, &[dir]).expect("are removed");
        assert_eq!(
            children(&root.path().join("a/b")).expect("is there").len(),
            1
        );
    }

    #[test]
    fn processes_of_the_whole_tree() {
        let root = tempfile::tempdir().expect("has a directory");
        let dir = root.path().join("x");
        fs::create_dir_all(dir.join("y/z")).expect("are made");
        for (name, text) in [("", "12\n7\n"), ("y", ""), ("y/z", "31\n")] {
            fs::write(dir.join(name).join("cgroup.procs"), text).expect("is written");
        }
        let mut found = processes(&dir).expect("are read");
        found.sort_unstable();
        assert_eq!(found, [7, 12, 31].map(Pid::from_raw));
        assert_eq!(processes(&root.path().join("gone")).expect("is gone"), []);
        let error = check_unused(&dir).expect_err("is in use").to_string();
        assert_eq!(
            error,
            format!("cgroup {dir:?} is not empty: 3 process(es) found")
        );
    }

    #[test]
    fn a_tree_is_removed_from_its_leaves() {
        let root = tempfile::tempdir().expect("has a directory");
        let dir = root.path().join("x");
        fs::create_dir_all(dir.join("y/z")).expect("are made");
        fs::create_dir_all(dir.join("w")).expect("is made");
        remove_tree(&dir).expect("is removed");
        assert!(!dir.exists());
        remove_tree(&dir).expect("is gone already");
    }
}
