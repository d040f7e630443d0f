//! What was made and has to be unmade when a later step fails; `delete` walks the same list.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::cgroups::Cgroup;
use crate::cgroups::systemd::Unit;
use crate::container::state_dir::StateDir;
use crate::intel_rdt::Groups;
use crate::network_devices::Moved;
use crate::sys::pidfd::pidfd_send_signal;
use crate::sys::wait::{collect_any, wait_for};

/// How long a killed process may take to vanish.
const PATIENCE: Duration = Duration::from_secs(10);

/// The parts of a container in the order in which they are made. Dropping it unmakes them
/// backwards, unless it was disarmed.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) dir: Option<StateDir>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) init: Option<(Pid, OwnedFd)>,
    pub(super) unit: Option<Unit>,
    pub(super) rdt: Option<Groups>,
    pub(super) net_devices: Option<Moved>,
}

impl Drop for Made {
    fn drop(&mut self) {
        // While their network namespace is there.
        drop(self.net_devices.take());
        if let Some((pid, pidfd)) = self.init.take() {
            // Each step is tried whatever became of the one before, and the error that led
            // here is the one to tell.
            drop(kill_and_wait(&pidfd));
            wait_for(pid).ok();
        }
        if let Some(cgroup) = &self.cgroup {
            drop(cgroup.kill_all(Signal::SIGKILL));
        }
        if let Some(groups) = self.rdt.take() {
            drop(groups.remove());
        }
        if let Some(unit) = self.unit.take() {
            drop(unit.stop());
        }
        if let Some(mut cgroup) = self.cgroup.take() {
            drop(cgroup.delete());
            drop(cgroup.undo_create());
        }
        if let Some(dir) = self.dir.take() {
            drop(dir.remove());
        }
    }
}

/// Kills the process that `pidfd` means and waits until it has ended.
///
/// # Errors
/// It does not end, or may not be killed.
pub(super) fn kill_and_wait(pidfd: &OwnedFd) -> anyhow::Result<()> {
    match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        done => done.context("kill the container process")?,
    }
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut ended, patience) {
            Err(Errno::EINTR) => {}
            Ok(0) => anyhow::bail!("the container process does not end after SIGKILL"),
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno).context("poll(pidfd)"),
        }
    }
}

/// Removes a container whose process has ended: who is left in its cgroup, the cgroup, the
/// directory.
///
/// # Errors
/// A part that could not be removed; the directory stays then, so that it can be tried again.
pub(super) fn remove(dir: StateDir, cgroup: &Cgroup, unit: Option<&Unit>) -> anyhow::Result<()> {
    if !cgroup.processes()?.is_empty() {
        cgroup.kill_all(Signal::SIGKILL)?;
    }
    if let Some(unit) = unit {
        unit.stop()?;
    }
    cgroup.delete()?;
    Ok(dir.remove()?)
}

/// Collects children that have ended: what a subreaper inherits.
pub(super) fn reap() {
    while let Ok(Some(_)) = collect_any() {}
}
