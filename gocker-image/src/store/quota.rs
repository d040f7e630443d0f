//! Quotas of bundles: how much a container may add to the image that it shares.
//!
//! A limit is one of what the bundle's root has alone, and so needs a quota group. Quotas are of a
//! whole file system. One that was made for the store alone gets them with the first limit: simple
//! ones, which cost next to nothing, though kernels before 6.7 cannot mount the file system then;
//! subvolumes that a container makes in its root count with it. On one of the user's own it is the
//! user who decides, and has turned quotas on before; no groups are made or swept there, and so what
//! a container puts into subvolumes of its own making is not limited.

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;

use super::lock::Lock;
use super::{BundleDraft, Meta, Store, StoreError, Trees, blob, layout};
use crate::btrfs::{self, GroupId, QuotaKind};
use crate::errno::CallError;

/// The name of the lock of who turns quotas on.
pub(super) const LOCK: &str = "quotas";

impl Store {
    /// Checks that what the store keeps trees as can be limited at all.
    ///
    /// # Errors
    /// When it keeps copies.
    pub fn check_quotas(&self) -> Result<(), StoreError> {
        if self.trees == Trees::Subvolumes {
            return Ok(());
        }
        let (path, found) = (self.path.clone(), self.trees);
        Err(StoreError::NoQuotas { path, found })
    }

    /// Remembers that quotas are on.
    fn record_quotas(&self) -> Result<(), StoreError> {
        let meta = Meta {
            quotas: true,
            ..Meta::new(self.trees)
        };
        let path = self.path.join(layout::META);
        Ok(blob::replace(&path, &blob::encode(&meta)?)?)
    }

    /// The quota groups whose subvolumes are gone. On a file system of the user's own they may be
    /// anybody's, and are none.
    pub(super) fn stale_quota_groups(&self) -> Result<Vec<GroupId>, StoreError> {
        if !self.has_own_file_system() {
            return Ok(Vec::new());
        }
        let dir = self.open_dir("bundles")?;
        match btrfs::stale_quota_groups(dir.as_fd()) {
            // who may not look has none to drop
            Err(error) if error.errno() == Some(Errno::EPERM) => Ok(Vec::new()),
            groups => Ok(groups?),
        }
    }

    /// Drops a quota group whose subvolume is gone. False if it is still needed.
    pub(super) fn drop_quota_group(&self, group: GroupId) -> Result<bool, StoreError> {
        let dir = self.open_dir("bundles")?;
        Ok(btrfs::drop_quota_group(dir.as_fd(), group)?)
    }

    /// Drops the quota groups that the kernel has left behind.
    pub(super) fn sweep_quota_groups(&self) -> Result<(), StoreError> {
        if self.quotas {
            for group in self.stale_quota_groups()? {
                self.drop_quota_group(group)?;
            }
        }
        Ok(())
    }
}

impl BundleDraft<'_> {
    /// Limits what the bundle's root may have beyond its image. `announce` is told, in one line, if
    /// quotas are turned on for it.
    ///
    /// # Errors
    /// When quotas are off and the file system is not the store's own.
    pub fn limit(&self, bytes: u64, announce: &dyn Fn(&str)) -> Result<(), StoreError> {
        let root = self.rootfs().as_fd();
        let store = self.store();
        if !store.has_own_file_system() {
            return match btrfs::limit_subvolume(root, bytes)? {
                true => Ok(()),
                false => Err(StoreError::QuotasOff(store.path.clone())),
            };
        }
        // two commands that turn quotas on take turns
        let _lock = Lock::exclusive(&store.lock_path(LOCK))?;
        if !store.quotas {
            // first, so that groups are swept whenever there may be some
            store.record_quotas()?;
        }
        if !btrfs::limit_subvolume(root, bytes)? {
            announce(&turned_on(&store.path, btrfs::enable_quotas(root)?));
            if !btrfs::limit_subvolume(root, bytes)? {
                let cause = Errno::ENOTCONN;
                return Err(CallError::new("limit_quota_group", &store.path, cause).into());
            }
        }
        Ok(btrfs::limit_with_nested(root, bytes)?)
    }
}

/// What is said when quotas were turned on.
fn turned_on(path: &Path, kind: QuotaKind) -> String {
    let consequence = match kind {
        QuotaKind::Simple => "it needs Linux 6.7 or later from here on",
        QuotaKind::Full => "all that is written is counted",
    };
    format!("{}: quotas are on now; {consequence}", path.display())
}
