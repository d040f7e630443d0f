//! Containers as this program knows them: a bundle in the store, and what the
//! runtime says of it. There is no third record.

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use super::runtime::{Runtime, State};
use crate::store::{BundleOwner, BundleRecord, Store, StoreError};

/// How long another command may take to remove a bundle.
const LONGEST_REMOVAL: Duration = Duration::from_secs(10);

/// A bundle and its state. No state: it has not run, or its machine has been
/// started anew since.
pub(super) struct Container {
    pub(super) bundle: BundleRecord,
    pub(super) state: Option<State>,
}

impl Container {
    pub(super) fn is_stopped(&self) -> bool {
        self.state.as_ref().is_none_or(State::is_stopped)
    }

    pub(super) fn status(&self) -> &str {
        self.state
            .as_ref()
            .map_or("stopped", |state| state.status.as_str())
    }

    /// The process that runs, 0 if none does.
    pub(super) fn pid(&self) -> i32 {
        self.state.as_ref().map_or(0, |state| state.pid)
    }
}

/// All containers of the store, the newest first.
pub(super) fn list(store: &Store, runtime: &Runtime) -> anyhow::Result<Vec<Container>> {
    let mut states = runtime.list()?;
    let mut containers = Vec::new();
    for bundle in store.bundles()? {
        if bundle.owner != BundleOwner::Container {
            // made by `gocker-image bundle` for another engine
            continue;
        }
        // an id may be used by a container of another store
        let own = states
            .iter()
            .position(|state| state.id == bundle.id && state.bundle == bundle.directory);
        containers.push(Container {
            state: own.map(|index| states.swap_remove(index)),
            bundle,
        });
    }
    containers.sort_by(|a, b| b.bundle.created.cmp(&a.bundle.created));
    Ok(containers)
}

/// Says that a command works on a container, so that no other removes it. Held
/// from before its bundle is made until it has ended, or runs by itself.
pub(super) struct Lease(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Lease {
    /// Takes the lease of `id`; None if another command has it.
    pub(super) fn take(store: &Store, id: &str) -> anyhow::Result<Option<Self>> {
        let path = store.path().join("locks").join(format!("run-{id}"));
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options
            .open(&path)
            .with_context(|| format!("open {path:?}"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).with_context(|| format!("lock {path:?}")),
        }
    }
}

/// Removes a container: its state if there is one, and its bundle. `force` ends
/// it if it runs.
pub(super) fn remove(
    store: &Store,
    runtime: &Runtime,
    container: &Container,
    force: Force,
) -> anyhow::Result<()> {
    if !container.is_stopped() && force == Force::No {
        bail!("it is {}; --force ends it", container.status());
    }
    if container.state.is_some() {
        runtime.delete_by_force(&container.bundle.id)?;
    }
    // after the state, so that the one who runs it in the foreground is done
    let lease = Lease::take(store, &container.bundle.id)?;
    if lease.is_none() && force == Force::No {
        bail!("another command works on it");
    }
    remove_bundle(store, &container.bundle.id)
}

/// Removes the bundle; one that has gone meanwhile is as good as removed.
pub(super) fn remove_bundle(store: &Store, id: &str) -> anyhow::Result<()> {
    let id = id.parse()?;
    let begin = Instant::now();
    loop {
        match store.remove_bundle(&id) {
            Ok(_) | Err(StoreError::NoBundle(_)) => return Ok(()),
            // `rm --force` and the `run` that it ended remove the same bundle
            Err(StoreError::BundleBusy(_)) if begin.elapsed() < LONGEST_REMOVAL => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error).context("remove its bundle"),
        }
    }
}

/// Whether a container that runs is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// It is ended.
    Yes,
    /// It is an error.
    No,
}
