//! Quotas of bundles: how much a container may add to the image that it shares.
//!
//! A limit is one of what the bundle's root has alone, and so needs a quota group. Quotas are of a
//! whole file system. One that was made for the store alone gets them with the first limit: simple
//! ones, which cost next to nothing, though kernels before 6.7 cannot mount the file system then.
//! On one of the user's own it is the user who decides, and has turned them on before.

use std::os::fd::AsFd;

use super::lock::Lock;
use super::{BundleDraft, Store, StoreError, Trees};
use crate::btrfs::{self, QuotaKind};
use crate::errno::CallError;

/// The name of the lock of who turns quotas on.
const LOCK: &str = "quotas";

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
}

impl BundleDraft<'_> {
    /// Limits what the bundle's root may have beyond its image. `announce` is told, in one line, if
    /// quotas are turned on for it.
    ///
    /// # Errors
    /// When quotas are off and the file system is not the store's own.
    pub fn limit(&self, bytes: u64, announce: &dyn Fn(&str)) -> Result<(), StoreError> {
        let limit = || btrfs::limit_subvolume(self.rootfs().as_fd(), bytes);
        if limit()? {
            return Ok(());
        }
        let store = self.store();
        if !store.has_own_file_system() {
            return Err(StoreError::QuotasOff(store.path.clone()));
        }
        let _lock = Lock::exclusive(&store.lock_path(LOCK))?;
        // another command may have turned them on meanwhile
        if limit()? {
            return Ok(());
        }
        let kind = btrfs::enable_quotas(self.rootfs().as_fd())?;
        let path = store.path.display();
        announce(&match kind {
            QuotaKind::Simple => {
                format!("{path}: quotas are on now; it needs Linux 6.7 or later from here on")
            }
            QuotaKind::Full => {
                format!("{path}: quotas are on now, and all that is written counted")
            }
        });
        if limit()? {
            return Ok(());
        }
        let gone = nix::errno::Errno::ENOTCONN;
        Err(CallError::new("limit_quota_group", &store.path, gone).into())
    }
}
