//! What may go: the leftovers of crashes, and what no name and no bundle
//! refers to any more.
//!
//! Nothing goes whose lock another process holds. Whoever uses a thing takes
//! its lock before, and keeps it until a record refers to the thing; so after
//! a lock was had, the records are read again, and then they tell the truth.

use std::collections::HashSet;
use std::path::Path;

use super::layer::layer_lock;
use super::lock::{Lock, is_lock};
use super::partial::Age;
use super::record::{ImageRecord, LayerRecord, entries};
use super::{BundleId, HoldKind, Store, StoreError, blob, bundle, layout};
use crate::digest::Digest;
use crate::image::Manifest;

/// What went.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Manifests of images.
    pub images: Vec<Digest>,
    /// ChainIDs of layers.
    pub layers: Vec<Digest>,
    /// Bytes of file content in those layers.
    pub content_bytes: u64,
    /// Leftovers of commands that were killed.
    pub leftovers: usize,
}

/// Which images go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// Those without a name.
    Nameless,
    /// Those without a bundle, with their names.
    All,
}

impl Store {
    /// Removes what killed commands left behind, and says how much that was; quota groups that the
    /// kernel left, too.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn sweep(&self) -> Result<usize, StoreError> {
        let mut swept = 0;
        let layers = entries(&self.path.join("layers"))?;
        let recorded: HashSet<&str> = (layers.iter())
            .filter(|(_, path)| path.metadata().is_ok_and(|metadata| metadata.len() > 0))
            .filter_map(|(name, _)| name.strip_suffix(".json"))
            .collect();
        for (name, _) in &layers {
            let plain = name.strip_prefix(layout::UNFINISHED).unwrap_or(name);
            let is_leftover = name.starts_with(layout::UNFINISHED) || !recorded.contains(plain);
            let Some(digest) = layout::digest(plain).filter(|_| is_leftover) else {
                continue;
            };
            if let Some(_lock) = Lock::try_exclusive(&self.lock_path(&layer_lock(&digest)))?
                && self.layer(&digest)?.is_none()
                && self.remove_layer_files(plain)?
            {
                swept += 1;
            }
        }
        swept += self.sweep_bundles()?;
        self.sweep_quota_groups()?;
        Ok(swept + self.sweep_partials(Age::Expired)?)
    }

    fn sweep_bundles(&self) -> Result<usize, StoreError> {
        let mut swept = 0;
        for (name, path) in entries(&self.path.join("bundles"))? {
            let Ok(id) = name.parse::<BundleId>() else {
                continue;
            };
            if path.join(layout::BUNDLE_RECORD).exists() {
                continue;
            }
            if let Some(_lock) = Lock::try_exclusive(&self.lock_path(&bundle::bundle_lock(&name)))?
                && self.bundle(&id)?.is_none()
                && self.remove_bundle_files(&id)?
            {
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Removes the images that `unused` says, and all layers and blobs that no
    /// image needs.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn prune(&self, unused: Unused) -> Result<Removed, StoreError> {
        let mut removed = Removed {
            leftovers: self.sweep()? + self.sweep_mounts()?,
            ..Removed::default()
        };
        if unused == Unused::All {
            self.prune_names()?;
        }
        self.prune_images(self.images()?, &mut removed)?;
        self.prune_layers(self.layers()?, &mut removed)?;
        self.prune_blobs()?;
        removed.leftovers += self.sweep_partials(Age::Any)?;
        self.prune_locks()?;
        Ok(removed)
    }

    /// Removes the image `manifest` if no name and no bundle refers to it, with
    /// what only it needed.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_unused(&self, manifest: &Digest) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        if let Some(image) = self.image(manifest)? {
            let layers = image.layers.clone();
            self.prune_images(vec![image], &mut removed)?;
            let records = layers
                .iter()
                .filter_map(|chain_id| self.layer(chain_id).transpose());
            self.prune_layers(records.collect::<Result<_, _>>()?, &mut removed)?;
            self.prune_blobs()?;
        }
        Ok(removed)
    }

    /// Images that a bundle was made of, or that are mounted.
    pub(super) fn used_by_bundles(&self) -> Result<HashSet<Digest>, StoreError> {
        let bundles = self.bundles()?.into_iter().map(|bundle| bundle.manifest);
        let mounts = self.mounts()?.into_iter().map(|mount| mount.manifest);
        Ok(bundles.chain(mounts).collect())
    }

    /// Removes the names of images that no bundle was made of, and that no command works on: one
    /// may be about to make a bundle.
    fn prune_names(&self) -> Result<(), StoreError> {
        for name in self.references()? {
            let lock = self.lock_path(&HoldKind::Image.lock(&name.manifest));
            if let Some(_lock) = Lock::try_exclusive(&lock)?
                && !self.used_by_bundles()?.contains(&name.manifest)
            {
                self.remove_reference_to(&name)?;
            }
        }
        Ok(())
    }

    fn prune_images(
        &self,
        images: Vec<ImageRecord>,
        removed: &mut Removed,
    ) -> Result<(), StoreError> {
        let is_used = |image: &ImageRecord| -> Result<bool, StoreError> {
            let names = self.references()?;
            let is_named = names.iter().any(|name| name.manifest == image.manifest);
            Ok(is_named || self.used_by_bundles()?.contains(&image.manifest))
        };
        for image in images {
            if is_used(&image)? {
                continue;
            }
            let lock = self.lock_path(&HoldKind::Image.lock(&image.manifest));
            if let Some(_lock) = Lock::try_exclusive(&lock)?
                && !is_used(&image)?
            {
                let name = layout::name(&image.manifest);
                blob::remove(&layout::record(&self.path, "images", &name))?;
                removed.images.push(image.manifest);
            }
        }
        Ok(())
    }

    fn prune_layers(
        &self,
        layers: Vec<LayerRecord>,
        removed: &mut Removed,
    ) -> Result<(), StoreError> {
        let is_used = |chain_id: &Digest| -> Result<bool, StoreError> {
            let images = self.images()?;
            Ok(images.iter().any(|image| image.layers.contains(chain_id)))
        };
        for layer in layers {
            if is_used(&layer.chain_id)? {
                continue;
            }
            let lock = self.lock_path(&layer_lock(&layer.chain_id));
            if let Some(_lock) = Lock::try_exclusive(&lock)?
                && !is_used(&layer.chain_id)?
            {
                self.remove_layer_files(&layout::name(&layer.chain_id))?;
                removed.content_bytes += layer.bytes;
                removed.layers.push(layer.chain_id);
            }
        }
        Ok(())
    }

    fn prune_blobs(&self) -> Result<(), StoreError> {
        let used = self.used_blobs()?;
        for (algorithm, directory) in entries(&self.path.join("blobs"))? {
            if !directory.is_dir() {
                continue;
            }
            for (hex, path) in entries(&directory)? {
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                    continue;
                };
                if used.contains(&digest) {
                    continue;
                }
                let lock = self.lock_path(&HoldKind::Blob.lock(&digest));
                if let Some(_lock) = Lock::try_exclusive(&lock)?
                    && !self.used_blobs()?.contains(&digest)
                {
                    blob::remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// The documents of all images, and the blobs of layers that their manifests name.
    pub(super) fn used_blobs(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut used = HashSet::new();
        for image in self.images()? {
            // one that is missing names nothing
            if let Some(bytes) = self.blob(&image.manifest)?
                && let Ok(manifest) = Manifest::of_any_kind(&bytes)
            {
                used.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            }
            used.extend([image.manifest, image.config]);
        }
        Ok(used)
    }

    /// Removes lock files, if nobody else is in the store: who waits for one
    /// would else wait for a file that has no name any more.
    fn prune_locks(&self) -> Result<(), StoreError> {
        let path = self.lock_path("store");
        if !self.lock_alone(&path)? {
            return Ok(());
        }
        let result = self.remove_free_locks();
        self.lock.share(&path)?;
        result
    }

    fn remove_free_locks(&self) -> Result<(), StoreError> {
        for (name, path) in entries(&self.path.join("locks"))? {
            // This process itself may hold some.
            let is_other = name != "store" && is_lock(&name) && path.is_file();
            if is_other && Lock::try_exclusive(&path)?.is_some() {
                blob::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Turns the shared store lock into an exclusive one, if nobody else has it.
    fn lock_alone(&self, path: &Path) -> Result<bool, StoreError> {
        let alone = self.lock.try_alone(path)?;
        if !alone {
            // A conversion that fails may have lost the lock.
            self.lock.share(path)?;
        }
        Ok(alone)
    }
}
