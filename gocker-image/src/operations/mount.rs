//! Mount: the root of an image or a bundle, read-only, for who wants to look into it.

use std::path::Path;

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount as mount_call};

use super::roots::{Owner, Rooted, hold_root};
use crate::errno::CallError;
use crate::store::{MountRecord, Store, StoreError};

/// Mounts the root of `name` at `directory`, or at a place of the store's own. What is mounted is
/// in use until it is unmounted: nothing removes it. Asked again for the store's own place, says
/// where it is.
///
/// # Errors
/// When there is no such root or directory, or something of the store's is mounted there.
pub fn mount(
    store: &Store,
    name: &Rooted,
    directory: Option<&Path>,
) -> anyhow::Result<MountRecord> {
    try_mount(store, name, directory).with_context(|| format!("mount {:?}", name.to_string()))
}

fn try_mount(
    store: &Store,
    name: &Rooted,
    directory: Option<&Path>,
) -> anyhow::Result<MountRecord> {
    let root = hold_root(store, name)?;
    let _lock = store.lock_mounts()?;
    let Some(path) = root.path else {
        bail!("the image has no layers, and so no root");
    };
    let given = directory.map(|directory| {
        let found = directory.canonicalize();
        found.map_err(|error| CallError::new("realpath", directory, error))
    });
    let (given, (manifest, bundle)) = (
        given.transpose()?,
        match &root.owner {
            Owner::Bundle(record) => (&record.manifest, Some(record.id.as_str())),
            Owner::Image(record) => (&record.manifest, None),
        },
    );
    let shown = bundle.map_or_else(|| name.to_string(), str::to_owned);
    let record = MountRecord::new(store, (&shown, manifest), bundle, given.as_deref())?;
    let same_place = |other: &MountRecord| other.directory == record.directory;
    if let Some(other) = store.mounts()?.into_iter().find(same_place)
        && other.is_mounted()?
    {
        if directory.is_none() {
            return Ok(other);
        }
        bail!("{:?} is mounted there already", other.name);
    }
    store.put_mount(&record)?;
    if let Err(error) = bind(&path, &record.directory) {
        store.unmount(&record)?;
        return Err(error.into());
    }
    Ok(record)
}

/// All that is mounted.
///
/// # Errors
/// When a record is unreadable.
pub fn mounts(store: &Store) -> anyhow::Result<Vec<MountRecord>> {
    store.mounts().context("list mounts")
}

/// Unmounts what `name` names: an image, a bundle or a directory. Says what it was.
///
/// # Errors
/// When nothing of that name is mounted, or it is in use.
pub fn umount(store: &Store, name: &str, whole_name: &str) -> anyhow::Result<Vec<MountRecord>> {
    let unmount = || -> anyhow::Result<Vec<MountRecord>> {
        let _lock = store.lock_mounts()?;
        let directory = Path::new(name).canonicalize().ok();
        let is_meant = |mount: &MountRecord| {
            mount.name == name
                || mount.name == whole_name
                || Some(&mount.directory) == directory.as_ref()
        };
        let meant: Vec<MountRecord> = store.mounts()?.into_iter().filter(is_meant).collect();
        if meant.is_empty() {
            return Err(StoreError::NotMounted(name.to_owned()).into());
        }
        for mount in &meant {
            store.unmount(mount)?;
        }
        Ok(meant)
    };
    unmount().with_context(|| format!("umount {name:?}"))
}

/// Binds `source` to `target`, so that nothing in it can be written, run with other privileges,
/// or used as a device. After an error it may be bound, and not safe yet.
fn bind(source: &Path, target: &Path) -> Result<(), CallError> {
    let call = |source: Option<&Path>, flags| {
        let none = None::<&Path>;
        let result = mount_call(source, target, none, flags, none);
        result.map_err(|errno| CallError::new("mount", target, errno))
    };
    call(Some(source), MsFlags::MS_BIND)?;
    let safe = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    call(None, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | safe)
}
