//! `events`: what a container uses, again and again, and when it runs out of memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::stats_report::{Generation, report};
use super::{State, status};
use crate::cgroups::Cgroup;
use crate::cgroups::oom::OomWatch;
use crate::container::state_dir;
use crate::container::status::Status;
use crate::intel_rdt::Groups;
use crate::sys::pidfd::pidfd_open;

/// What happens to an event; false ends the events.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&Value) -> anyhow::Result<bool>;

/// The figures of container `id` at this moment, as an event.
///
/// # Errors
/// It does not run, or its figures cannot be read.
pub(crate) fn stats(root: &Path, id: &str) -> anyhow::Result<Value> {
    let opened = open(root, id)?;
    stats_event(id, &opened)
}

/// Hands `sink` the figures every `interval` and each event, until the container has stopped.
///
/// # Errors
/// It does not run, its figures cannot be read, and the sink's.
pub(crate) fn events(
    root: &Path,
    id: &str,
    interval: Duration,
    sink: Sink<'_>,
) -> anyhow::Result<()> {
    let opened = open(root, id)?;
    let init = opened.init.as_fd();
    let mut watch = opened.cgroup.watch_oom()?;
    let mut next = Instant::now() + interval;
    loop {
        let ready = wait(init, watch.as_ref(), next)?;
        if let Some(watch) = watch.as_mut().filter(|_| ready.oom)
            && watch.take()?
            && !sink(&json!({"type": "oom", "id": id}))?
        {
            return Ok(());
        }
        if ready.ended {
            return Ok(());
        }
        if Instant::now() >= next {
            next += interval;
            // It may end while its figures are read.
            match stats_event(id, &opened) {
                Err(_) if wait(init, None, Instant::now())?.ended => return Ok(()),
                event => {
                    if !sink(&event?)? {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// A container that has not stopped.
struct Opened {
    cgroup: Cgroup,
    init: OwnedFd,
    /// Its resctrl groups.
    rdt: Option<Groups>,
}

fn open(root: &Path, id: &str) -> anyhow::Result<Opened> {
    let dir = state_dir::existing(root, id)?;
    let state: State = state_dir::read_state(&dir)?
        .context("container does not exist: its creation was cut short")?;
    let not_running = || format!("container with id {id} is not running");
    let Some(init) = state.init else {
        bail!(not_running());
    };
    // First the descriptor, then the look at whose it is.
    let pidfd = match pidfd_open(Pid::from_raw(init.pid)) {
        Err(Errno::ESRCH) => bail!(not_running()),
        opened => opened.context("pidfd_open")?,
    };
    if status::of(&dir, &state)? == Status::Stopped {
        bail!(not_running());
    }
    Ok(Opened {
        cgroup: Cgroup::from_record(&state.cgroup),
        init: pidfd,
        rdt: state.rdt,
    })
}

fn stats_event(id: &str, opened: &Opened) -> anyhow::Result<Value> {
    let stats = opened.cgroup.stats()?;
    let generation = match opened.cgroup {
        Cgroup::V1(_) => Generation::V1,
        // A shared one has no figures, and does not come this far.
        Cgroup::V2(_) | Cgroup::Shared(_) => Generation::V2,
    };
    let rdt = opened.rdt.as_ref().map(Groups::stats).unwrap_or_default();
    let data = report(&stats, generation, &rdt);
    Ok(json!({"type": "stats", "id": id, "data": data}))
}

struct Ready {
    ended: bool,
    oom: bool,
}

/// Waits until something happens, or it is `next`.
fn wait(init: BorrowedFd<'_>, watch: Option<&OomWatch>, next: Instant) -> anyhow::Result<Ready> {
    let mut fds = vec![PollFd::new(init, PollFlags::POLLIN)];
    fds.extend(watch.map(|watch| {
        let (fd, flags) = watch.fd();
        PollFd::new(fd, flags)
    }));
    // A part of a millisecond is waited for, too: else the last one would be spent asking.
    let left = next.saturating_duration_since(Instant::now());
    let left = left.as_micros().div_ceil(1000);
    let timeout = i32::try_from(left).unwrap_or(i32::MAX);
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("poll"),
    }
    let is_ready = |index: usize| {
        fds.get(index)
            .is_some_and(|fd| fd.revents().is_some_and(|revents| !revents.is_empty()))
    };
    Ok(Ready {
        ended: is_ready(0),
        oom: is_ready(1),
    })
}
