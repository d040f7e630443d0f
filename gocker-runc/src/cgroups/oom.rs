//! Tells when the kernel kills a process of a container for want of memory.
//!
//! ```text
//! v1   eventfd  <── cgroup.event_control: "EVENTFD memory.oom_control"
//! v2   memory.events, whose change wakes who polls it; oom_kill counts
//! ```

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::v2::memory::oom_kill_count;
use super::{Error, files, tree};

/// A watch that was begun.
#[derive(Debug)]
pub(crate) struct OomWatch {
    from: From,
}

#[derive(Debug)]
enum From {
    V1 {
        eventfd: EventFd,
        /// Gone when the cgroup is, whose end wakes the eventfd, too.
        control: std::path::PathBuf,
    },
    V2 {
        events: File,
        dir: std::path::PathBuf,
        seen: u64,
    },
}

impl OomWatch {
    pub(super) fn on_v1(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("memory.oom_control");
        let oom =
            File::open(&path).map_err(|e| tree::path_error("open", &path, files::errno(e)))?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let eventfd = EventFd::from_flags(flags)
            .map_err(|answer| tree::path_error("make an eventfd for", &path, answer))?;
        let control = dir.join("cgroup.event_control");
        let line = format!("{} {}", eventfd.as_fd().as_raw_fd(), oom.as_raw_fd());
        files::write(&control, &line)
            .map_err(|answer| tree::path_error("write", &control, answer))?;
        Ok(Self {
            from: From::V1 { eventfd, control },
        })
    }

    /// None where the container has no memory controller.
    pub(super) fn on_v2(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join("memory.events");
        let events = match File::open(&path).map_err(files::errno) {
            Err(Errno::ENOENT) => return Ok(None),
            opened => opened.map_err(|answer| tree::path_error("open", &path, answer))?,
        };
        let mut watch = Self {
            from: From::V2 {
                events,
                dir: dir.to_owned(),
                seen: 0,
            },
        };
        // The file wakes who has read it; and what was before the watch is not told.
        watch.take()?;
        Ok(Some(watch))
    }

    /// What to poll, and for what.
    pub(crate) fn fd(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.from {
            From::V1 { eventfd, .. } => (eventfd.as_fd(), PollFlags::POLLIN),
            From::V2 { events, .. } => (events.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// Whether the kernel killed since this was asked last.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn take(&mut self) -> Result<bool, Error> {
        match &mut self.from {
            From::V1 { eventfd, control } => match eventfd.read() {
                Ok(_) => Ok(control.exists()),
                Err(Errno::EAGAIN) => Ok(false),
                Err(answer) => Err(tree::path_error("wait for", control, answer)),
            },
            From::V2 { events, dir, seen } => {
                // Only a read through this very descriptor makes it wait for the next change.
                let mut buffer = [0; 1024];
                let read = nix::sys::uio::pread(&*events, &mut buffer, 0);
                if matches!(read, Err(Errno::ENODEV)) {
                    return Ok(false);
                }
                let count = oom_kill_count(dir)?;
                Ok(count > std::mem::replace(seen, count))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_told_once() {
        let root = tempfile::tempdir().expect("has a directory");
        let set = |text: &str| std::fs::write(root.path().join("memory.events"), text);
        assert!(OomWatch::on_v2(root.path()).expect("is read").is_none());
        set("max 3\noom_kill 2\n").expect("is written");
        let watch = OomWatch::on_v2(root.path()).expect("is read");
        let mut watch = watch.expect("has a memory controller");
        assert!(!watch.take().expect("is read"));
        set("max 4\noom_kill 2\n").expect("is written");
        assert!(!watch.take().expect("is read"));
        set("max 4\noom_kill 3\n").expect("is written");
        assert!(watch.take().expect("is read"));
        assert!(!watch.take().expect("is read"));
    }
}
