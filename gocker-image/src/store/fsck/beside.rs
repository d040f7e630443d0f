//! What lies beside blobs, layers, images, names and bundles: mounts, locks, and what is none of
//! the store's own.

use super::super::mounts::{MountEntry, MountRecord};
use super::super::record::entries;
use super::super::{BundleId, StoreError, bundle, layout, lock};
use super::Target;
use super::survey::Survey;

impl Survey<'_> {
    pub(super) fn mounts(&mut self) -> Result<(), StoreError> {
        let _lock = self.store.lock_mounts()?;
        for (path, entry) in self.store.mount_entries()? {
            match entry {
                MountEntry::Stranger => self.stranger(&path),
                MountEntry::Gone(problem, _) => self.find(&path, problem, Target::Leftovers),
                MountEntry::Bad(problem, directory) => {
                    self.find(&path, problem, Target::Mount { directory });
                }
                MountEntry::Live(record) => {
                    self.checked.mounts += 1;
                    if let Some(problem) = self.mount_problem(&record) {
                        let directory = Some(record.directory);
                        self.find(&path, problem, Target::Mount { directory });
                    }
                }
            }
        }
        Ok(())
    }

    fn mount_problem(&self, record: &MountRecord) -> Option<String> {
        let Some(bundle) = &record.bundle else {
            let manifest = &record.manifest;
            let is_here = self.images.contains(manifest);
            return (!is_here).then(|| format!("its image {manifest} is not here, or damaged"));
        };
        let directory = self.store.path.join("bundles").join(bundle);
        let is_here = bundle.parse::<BundleId>().is_ok() && directory.join(bundle::ROOTFS).exists();
        (!is_here).then(|| format!("its bundle {bundle:?} is not here"))
    }

    /// Locks are files that may lie about; nothing but their names can be wrong.
    pub(super) fn locks(&mut self) -> Result<(), StoreError> {
        for (name, path) in self.entries("locks")? {
            if path.is_dir() || !lock::is_lock(&name) {
                self.stranger(&path);
            }
        }
        Ok(())
    }

    /// What lies beside the directories of the store.
    pub(super) fn top(&mut self) -> Result<(), StoreError> {
        let beside = [layout::META, "mounts", "store", "store.lock", "store.btrfs"];
        for (name, path) in entries(&self.store.path)? {
            let name = name.as_str();
            if !layout::DIRECTORIES.contains(&name) && !beside.contains(&name) {
                self.stranger(&path);
            }
        }
        Ok(())
    }
}
