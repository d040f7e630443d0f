//! `kill`: sends a signal to the container's process.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{State, status};
use crate::cgroups::Cgroup;
use crate::container::state_dir;
use crate::container::status::Status;
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};

/// Sends signal number `signal` to container `id`. With `all`, an obsolete flag, one that does
/// not run is no error.
///
/// # Errors
/// `container not running`, or the kernel's answer.
pub(crate) fn kill(root: &Path, id: &str, signal: i32, all: bool) -> anyhow::Result<()> {
    let dir = state_dir::existing(root, id)?;
    let state: State = state_dir::read_state(&dir)?.context("container not running")?;
    let init = match (status::seen_from_outside(&dir, &state)?, state.init) {
        (Status::Stopped, _) | (_, None) => None,
        (_, Some(init)) => Some(init),
    };
    let cgroup = Cgroup::from_record(&state.cgroup);
    // Without a PID namespace that ends with init, the others would live on.
    if signal == libc::SIGKILL && !state.own_pid_namespace && !cgroup.processes()?.is_empty() {
        return Ok(cgroup.kill_all(Signal::SIGKILL)?);
    }
    let not_running = || {
        if all {
            Ok(())
        } else {
            bail!("container not running")
        }
    };
    let Some(init) = init else {
        return not_running();
    };
    let pidfd = match pidfd_open(Pid::from_raw(init.pid)) {
        Err(Errno::ESRCH) => return not_running(),
        opened => opened.context("pidfd_open")?,
    };
    // The descriptor is of this very process only if it still is the one on record.
    if !init.is_alive() {
        return not_running();
    }
    match pidfd_send_signal(pidfd.as_fd(), signal) {
        Err(Errno::ESRCH) => return not_running(),
        sent => sent.with_context(|| format!("send signal {signal}"))?,
    }
    // A frozen process of v1 dies when it is thawed.
    if signal == libc::SIGKILL && cgroup.is_frozen()? {
        cgroup.thaw()?;
    }
    Ok(())
}
