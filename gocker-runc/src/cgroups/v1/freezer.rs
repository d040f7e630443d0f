//! freezer: stops every task of a cgroup and of those beneath it.
//!
//! ```text
//! THAWED ── write FROZEN ──> FREEZING ──> FROZEN ── write THAWED ──> THAWED
//! ```
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html>.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::cgroups::{Error, files, tree};

const STATE: &str = "freezer.state";
const PATIENCE: Duration = Duration::from_secs(2);

pub(in crate::cgroups) fn freeze(dir: &Path) -> Result<(), Error> {
    let end = Instant::now() + PATIENCE;
    let mut round = 0_u32;
    while Instant::now() < end {
        // A task that forks or vforks just now can keep the cgroup in FREEZING until it has
        // run on for a moment.
        if round > 0 && round.is_multiple_of(50) {
            write(dir, "THAWED")?;
            thread::sleep(Duration::from_millis(1));
        }
        // Written each time: tasks that came in meanwhile are caught by it.
        write(dir, "FROZEN")?;
        if files::read_in(dir, STATE)?.trim() == "FROZEN" {
            return Ok(());
        }
        thread::sleep(Duration::from_micros(if round < 20 { 10 } else { 500 }));
        round += 1;
    }
    write(dir, "THAWED")?;
    Err(Error::FreezeTimeout {
        operation: "freeze",
        path: dir.to_owned(),
        milliseconds: PATIENCE.as_millis(),
    })
}

pub(in crate::cgroups) fn thaw(dir: &Path) -> Result<(), Error> {
    write(dir, "THAWED")
}

/// Makes a change that no process of the cgroup may see half done.
pub(super) fn while_frozen(
    dir: &Path,
    change: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    if is_frozen(dir)? {
        return change();
    }
    freeze(dir)?;
    let changed = change();
    changed.and(tree::ignore_gone(thaw(dir)))
}

/// Whether `dir` itself was told to freeze; a parent's freezing is not the container's.
pub(in crate::cgroups) fn is_frozen(dir: &Path) -> Result<bool, Error> {
    let path = dir.join("freezer.self_freezing");
    match files::read(&path) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
        Err(answer) => Err(tree::path_error("read", &path, answer)),
    }
}

fn write(dir: &Path, state: &str) -> Result<(), Error> {
    let path = dir.join(STATE);
    files::write(&path, state).map_err(|answer| tree::path_error("write", &path, answer))
}
