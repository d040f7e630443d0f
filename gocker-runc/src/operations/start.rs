//! `start`: lets a created container's process be executed.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::{State, activation, delete, status};
use crate::container::state_dir::StateDir;
use crate::container::status::Status;
use crate::process::start_socket;
use crate::sys::pidfd::pidfd_open;
use crate::{hooks, logging};

/// Starts container `id` and runs its `poststart` hooks. With a `notify_socket` it returns when
/// the container is ready, if it was made with one.
///
/// # Errors
/// It is not in the status `created`; what init says when the process cannot be executed, and
/// then the container is stopped.
pub(crate) fn start(root: &Path, id: &str, notify_socket: Option<&OsString>) -> anyhow::Result<()> {
    let dir = StateDir::open(root, id)?;
    let state: State = dir
        .read_state()?
        .context("container does not exist: it was never made")?;
    match status::of(&dir.file(""), &state)? {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        status => bail!("cannot start a container in the {status} state"),
    }
    let state_dir = dir.file("");
    let notify = match (activation::listen(notify_socket, &state_dir)?, state.init) {
        (Some(notify), Some(init)) => {
            let pid = Pid::from_raw(init.pid);
            let pidfd = match pidfd_open(pid) {
                Err(Errno::ESRCH) => bail!("cannot start a container that has stopped"),
                opened => opened.context("pidfd_open")?,
            };
            Some((notify, pid, pidfd))
        }
        _ => None,
    };
    let refusal = match start_socket::start(&dir.fd()?) {
        Err(error) if matches!(error.errno, Errno::ECONNREFUSED | Errno::ECONNRESET) => {
            bail!("cannot start a container that has stopped")
        }
        answered => answered?,
    };
    let socket = dir.file(start_socket::NAME);
    let removed = std::fs::remove_file(&socket).with_context(|| format!("remove {socket:?}"));
    if let Some(why) = refusal {
        bail!(why);
    }
    // It runs by now, and is known by its name not to wait.
    if let Err(error) = removed {
        logging::warn(&crate::errors::one_line(&error));
    }
    // From here on nobody else has to wait for this one.
    run_poststart(dir, &state)?;
    if let Some((notify, pid, pidfd)) = notify {
        activation::warn_unheard(notify.wait(pidfd.as_fd(), pid));
    }
    Ok(())
}

/// Runs the hooks; a container whose hook fails is stopped and deleted.
///
/// Spec: runtime.md#lifecycle, step 9
///
/// # Errors
/// The hook that failed.
pub(super) fn run_poststart(dir: StateDir, state: &State) -> anyhow::Result<()> {
    if state.hooks.poststart.is_empty() {
        return Ok(());
    }
    let json = serde_json::to_vec(&state.report(Status::Running)).context("state for hooks")?;
    match hooks::run("poststart", &state.hooks.poststart, &json) {
        Ok(()) => Ok(()),
        Err(error) => {
            delete::kill_and_remove(dir, state)?;
            Err(error.into())
        }
    }
}
