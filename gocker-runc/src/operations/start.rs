//! `start`: lets a created container's process be executed.

use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;

use super::{State, delete, status};
use crate::container::state_dir::StateDir;
use crate::container::status::Status;
use crate::hooks;
use crate::process::start_socket;

/// Starts container `id` and runs its `poststart` hooks.
///
/// # Errors
/// It is not in the status `created`; what init says when the process cannot be executed, and
/// then the container is stopped.
pub(crate) fn start(root: &Path, id: &str) -> anyhow::Result<()> {
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
    let refusal = match start_socket::start(&dir.fd()?) {
        Err(error) if matches!(error.errno, Errno::ECONNREFUSED | Errno::ECONNRESET) => {
            bail!("cannot start a container that has stopped")
        }
        answered => answered?,
    };
    let socket = dir.file(start_socket::NAME);
    std::fs::remove_file(&socket).with_context(|| format!("remove {socket:?}"))?;
    if let Some(why) = refusal {
        bail!(why);
    }
    run_poststart(dir, &state)
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
