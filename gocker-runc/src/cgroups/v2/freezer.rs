//! Stops every process of a cgroup and of those beneath it, by `cgroup.freeze`.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v2.html#core-interface-files>.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroups::{Error, files, tree};

const FREEZE: &str = "cgroup.freeze";
const PATIENCE: Duration = Duration::from_secs(10);

pub(in crate::cgroups) fn freeze(dir: &Path) -> Result<(), Error> {
    write(dir, "1")?;
    match wait_frozen(dir) {
        Ok(true) => Ok(()),
        Ok(false) => {
            write(dir, "0")?;
            Err(Error::FreezeTimeout {
                operation: "freeze",
                path: dir.to_owned(),
                milliseconds: PATIENCE.as_millis(),
            })
        }
        Err(error) => {
            write(dir, "0")?;
            Err(error)
        }
    }
}

pub(in crate::cgroups) fn thaw(dir: &Path) -> Result<(), Error> {
    write(dir, "0")
}

/// Whether `dir` itself was told to freeze; a parent's freezing is not the container's.
pub(in crate::cgroups) fn is_frozen(dir: &Path) -> Result<bool, Error> {
    let path = dir.join(FREEZE);
    match files::read(&path) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
        Err(answer) => Err(tree::path_error("read", &path, answer)),
    }
}

/// Waits until all stand still; the kernel wakes who polls the file when it changes.
fn wait_frozen(dir: &Path) -> Result<bool, Error> {
    let path = dir.join("cgroup.events");
    let failed = |answer| tree::path_error("read", &path, answer);
    let mut file = File::open(&path).map_err(|error| failed(files::errno(error)))?;
    let end = Instant::now() + PATIENCE;
    loop {
        let mut text = String::new();
        let read = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_string(&mut text));
        read.map_err(|error| failed(files::errno(error)))?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)],
            timeout,
        ) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(answer) => return Err(failed(answer)),
        }
    }
}

fn write(dir: &Path, value: &str) -> Result<(), Error> {
    let path = dir.join(FREEZE);
    files::write(&path, value).map_err(|answer| tree::path_error("write", &path, answer))
}
