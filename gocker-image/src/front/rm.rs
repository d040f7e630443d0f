//! `gocker rm` and the part of `gocker prune` that removes containers.

use anyhow::{Context, bail};

use super::cli::RmArgs;
use super::containers::{self, Force, Lease};
use super::runtime::Runtime;
use crate::report;
use crate::store::Store;

/// Removes the containers that are named. All of them are tried; the first
/// failure is the error.
pub(super) fn rm(store: Option<&Store>, runtime: &Runtime, args: &RmArgs) -> anyhow::Result<()> {
    let force = if args.force { Force::Yes } else { Force::No };
    let mut first_error = None;
    for id in &args.ids {
        match remove_one(store, runtime, id, force).with_context(|| format!("rm {id:?}")) {
            Ok(()) => report::print(&format!("{id}\n"))?,
            Err(error) => match first_error {
                None => first_error = Some(error),
                Some(_) => report::warn("gocker", &format!("{error:#}")),
            },
        }
    }
    first_error.map_or(Ok(()), Err)
}

fn remove_one(
    store: Option<&Store>,
    runtime: &Runtime,
    id: &str,
    force: Force,
) -> anyhow::Result<()> {
    let Some(store) = store else {
        bail!("container does not exist")
    };
    let containers = containers::list(store, runtime)?;
    let named = containers
        .iter()
        .find(|container| container.bundle.id == id);
    let begun = || {
        let mut matching = containers
            .iter()
            .filter(|one| one.bundle.id.starts_with(id));
        // the beginning of an id does if no other begins so
        matching
            .next()
            .filter(|_| !id.is_empty() && matching.next().is_none())
    };
    let Some(container) = named.or_else(begun) else {
        bail!("container does not exist")
    };
    containers::remove(store, runtime, container, force)
}

/// Removes all containers that have stopped and that no command works on.
/// Returns their ids.
pub(super) fn prune_containers(store: &Store, runtime: &Runtime) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for container in containers::list(store, runtime)? {
        let id = container.bundle.id.clone();
        if !container.is_stopped() {
            continue;
        }
        let Some(lease) = Lease::take(store, &id)? else {
            continue;
        };
        // what was read before the lease was had may be old
        let now = containers::list(store, runtime)?;
        let still = now
            .iter()
            .find(|one| one.bundle.id == id && one.is_stopped());
        drop(lease);
        if let Some(container) = still {
            containers::remove(store, runtime, container, Force::No)
                .with_context(|| format!("prune container {id:?}"))?;
            removed.push(id);
        }
    }
    Ok(removed)
}
