//! `delete`: nothing of the container is left.

use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::{State, status, undo};
use crate::cgroups::systemd::Unit;
use crate::cgroups::{Cgroup, Record};
use crate::container::state::Process;
use crate::container::state_dir::{Error, StateDir};
use crate::container::status::Status;
use crate::sys::pidfd::pidfd_open;
use crate::{hooks, logging};

/// Deletes container `id`; `force` kills it first and takes a missing one for deleted.
///
/// # Errors
/// It runs, or a part of it cannot be removed.
pub(crate) fn delete(root: &Path, id: &str, force: bool) -> anyhow::Result<()> {
    let dir = match StateDir::open(root, id) {
        Err(Error::Missing) if force => return Ok(()),
        opened => opened?,
    };
    let state = match dir.read_state::<State>() {
        Ok(Some(state)) => state,
        // Its maker died before it had made more than the directory.
        Ok(None) => return Ok(dir.remove()?),
        Err(error) if force => return remove_what_is_known(dir, &error),
        Err(error) => return Err(error.into()),
    };
    match status::of(&dir.file(""), &state)? {
        Status::Stopped => remove(dir, &state),
        Status::Creating | Status::Created => kill_and_remove(dir, &state),
        _ if force => kill_and_remove(dir, &state),
        status => bail!(
            "cannot delete container {id} that is not stopped: {status} (use --force to kill it)"
        ),
    }
}

/// Removes a container whose state cannot be read, for the reason `unreadable`, as far as the
/// parts of it can.
///
/// # Errors
/// As [`delete`].
fn remove_what_is_known(dir: StateDir, unreadable: &Error) -> anyhow::Result<()> {
    let init: Option<Option<Process>> = dir.salvage("init");
    let record: Option<Record> = dir.salvage("cgroup");
    if init.is_none() || record.is_none() {
        logging::warn(&format!(
            "{}: a process or a cgroup of the container may be left",
            crate::errors::chain(unreadable)
        ));
    }
    let cgroup = record.map(|record| Cgroup::from_record(&record));
    kill(init.flatten(), cgroup.as_ref())?;
    match cgroup {
        Some(cgroup) => {
            let unit: Option<Unit> = dir.salvage("unit");
            undo::remove(dir, &cgroup, unit.as_ref())
        }
        None => Ok(dir.remove()?),
    }
}

/// Kills what runs and removes the container.
///
/// # Errors
/// As [`delete`].
pub(super) fn kill_and_remove(dir: StateDir, state: &State) -> anyhow::Result<()> {
    kill(state.init, Some(&Cgroup::from_record(&state.cgroup)))?;
    remove(dir, state)
}

/// Kills `init`, if it still runs, and waits for its end.
fn kill(init: Option<Process>, cgroup: Option<&Cgroup>) -> anyhow::Result<()> {
    let Some(init) = init.filter(|init| init.is_alive()) else {
        return Ok(());
    };
    match pidfd_open(Pid::from_raw(init.pid)) {
        // Between the look and the opening the id may have changed hands.
        Ok(pidfd) if init.is_alive() => {
            if let Some(cgroup) = cgroup
                && cgroup.is_frozen()?
            {
                cgroup.thaw()?;
            }
            undo::kill_and_wait(&pidfd)
        }
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context("pidfd_open"),
    }
}

/// Removes a container whose process has ended and runs its `poststop` hooks.
///
/// # Errors
/// A part that cannot be removed. A failing hook is a warning.
pub(super) fn remove(dir: StateDir, state: &State) -> anyhow::Result<()> {
    let cgroup = Cgroup::from_record(&state.cgroup);
    if let Some(groups) = &state.rdt {
        groups.remove()?;
    }
    undo::remove(dir, &cgroup, state.unit.as_ref())?;
    if state.hooks.poststop.is_empty() {
        return Ok(());
    }
    let json = serde_json::to_vec(&state.report(Status::Stopped)).context("state for hooks")?;
    // Spec: runtime.md#lifecycle, step 13: log a warning, go on as if it had succeeded.
    for hook in &state.hooks.poststop {
        if let Err(error) = hooks::run("poststop", std::slice::from_ref(hook), &json) {
            logging::warn(&crate::errors::chain(&error));
        }
    }
    Ok(())
}
