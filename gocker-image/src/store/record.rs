//! What the store remembers: small JSON files that are written last, so that
//! whatever has a record is whole.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::blob::Flush;
use super::lock::Lock;
use super::{Store, StoreError, blob, layout};
use crate::digest::Digest;
use crate::errno::CallError;

/// A chain of layers that lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The name of its subvolume.
    pub chain_id: Digest,
    /// The digest of the topmost layer's archive.
    pub diff_id: Digest,
    /// The chain below; None at the bottom.
    pub parent: Option<Digest>,
    /// The blob that the topmost layer came in.
    pub blob: Digest,
    /// Entries in the topmost layer.
    pub entries: u64,
    /// Bytes of file content in the topmost layer.
    pub bytes: u64,
    /// When it was unpacked (RFC 3339).
    pub created: String,
}

/// An image, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The digest of its manifest, which is a blob of the store.
    pub manifest: Digest,
    /// The digest of its config, which is a blob of the store.
    pub config: Digest,
    /// ChainIDs, the lowest first.
    pub layers: Vec<Digest>,
    /// What it runs on, as `linux/amd64`.
    pub platform: String,
    /// Bytes of all its blobs, as they are transferred.
    pub transfer_bytes: u64,
    /// Bytes of file content in all its layers.
    pub content_bytes: u64,
    /// When it was made, as its config says.
    pub created: Option<String>,
    /// When it was pulled (RFC 3339).
    pub pulled: String,
}

/// A name, and the image that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefRecord {
    /// The whole name: `docker.io/library/alpine:latest`.
    pub reference: String,
    /// The image.
    pub manifest: Digest,
    /// What the name was resolved to: the index if there is one.
    pub resolved: Digest,
    /// When (RFC 3339).
    pub updated: String,
    /// Where the image came from.
    #[serde(default)]
    pub origin: Origin,
}

/// Where the image of a name came from, and so may be fetched from again.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It was pulled by the name itself.
    #[default]
    Name,
    /// It was pulled by this other name.
    Other(String),
    /// It was made or loaded here.
    Here,
}

/// Whether a name is taken from another image that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// It is left alone.
    IfFree,
    /// It is taken.
    FromOthers,
}

/// A bundle that was made of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRecord {
    /// Its name.
    pub id: String,
    /// The image's name, as it was asked for.
    pub reference: String,
    /// The image.
    pub manifest: Digest,
    /// Where `config.json` lies.
    pub directory: PathBuf,
    /// Where the root file system lies.
    pub rootfs: PathBuf,
    /// What it runs.
    pub args: Vec<String>,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Whose it is.
    #[serde(default)]
    pub owner: BundleOwner,
    /// What its root may have beyond the image; None for as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
}

/// Who made a bundle, and so may remove it unasked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleOwner {
    /// The user, for whatever runtime.
    #[default]
    User,
    /// `gocker run`, for one container.
    Container,
}

/// The present time as RFC 3339.
#[must_use]
pub fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    now.format(&Rfc3339).unwrap_or_default()
}

impl Store {
    /// The layer chain `chain_id`; None if it is not here.
    ///
    /// # Errors
    /// When its record is unreadable.
    pub fn layer(&self, chain_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        blob::read(&layout::record(
            &self.path,
            "layers",
            &layout::name(chain_id),
        ))
    }

    /// All layer chains.
    ///
    /// # Errors
    /// When a record is unreadable.
    pub fn layers(&self) -> Result<Vec<LayerRecord>, StoreError> {
        self.records("layers")
    }

    /// The image with the manifest `digest`; None if it is not here.
    ///
    /// # Errors
    /// When its record is unreadable.
    pub fn image(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        blob::read(&layout::record(
            &self.path,
            "images",
            &layout::name(manifest),
        ))
    }

    /// All images, those without a name too.
    ///
    /// # Errors
    /// When a record is unreadable.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        self.records("images")
    }

    /// Remembers `image`. All that it needs is here and held.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn put_image(&self, image: &ImageRecord) -> Result<(), StoreError> {
        let path = layout::record(&self.path, "images", &layout::name(&image.manifest));
        let bytes = blob::encode(image)?;
        Ok(blob::write_new(&path, &bytes, Flush::Now)?)
    }

    /// What `reference`, a whole name, stands for; None if nothing.
    ///
    /// # Errors
    /// When its record is unreadable.
    pub fn reference(&self, reference: &str) -> Result<Option<RefRecord>, StoreError> {
        blob::read(&self.ref_path(reference))
    }

    /// All names.
    ///
    /// # Errors
    /// When a record is unreadable.
    pub fn references(&self) -> Result<Vec<RefRecord>, StoreError> {
        self.records("refs")
    }

    /// Makes a name stand for an image, last of all that a pull does.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn put_reference(&self, record: &RefRecord) -> Result<(), StoreError> {
        let _lock = Lock::exclusive(&self.lock_path("refs"))?;
        let bytes = blob::encode(record)?;
        Ok(blob::replace(&self.ref_path(&record.reference), &bytes)?)
    }

    /// Makes a name stand for an image, unless it stands for another one and is not to be taken
    /// from that. Returns what it stands for then.
    ///
    /// # Errors
    /// When the record cannot be read or written.
    pub fn take_reference(
        &self,
        record: &RefRecord,
        taking: Taking,
    ) -> Result<Option<RefRecord>, StoreError> {
        let _lock = Lock::exclusive(&self.lock_path("refs"))?;
        let path = self.ref_path(&record.reference);
        match blob::read::<RefRecord>(&path)? {
            // what is known of a name that it has already stays
            Some(old) if old.manifest == record.manifest => return Ok(None),
            Some(old) if taking == Taking::IfFree => return Ok(Some(old)),
            _ => {}
        }
        blob::replace(&path, &blob::encode(record)?)?;
        Ok(None)
    }

    /// Takes a name away. False if it stands for nothing.
    ///
    /// # Errors
    /// When the record cannot be removed.
    pub fn remove_reference(&self, reference: &str) -> Result<bool, StoreError> {
        let _lock = Lock::exclusive(&self.lock_path("refs"))?;
        let path = self.ref_path(reference);
        let existed = path.exists();
        blob::remove(&path)?;
        Ok(existed)
    }

    /// Takes a name away from the image that it stood for when `record` was read; one that has
    /// become the name of another image stays.
    pub(super) fn remove_reference_to(&self, record: &RefRecord) -> Result<(), StoreError> {
        let _lock = Lock::exclusive(&self.lock_path("refs"))?;
        let path = self.ref_path(&record.reference);
        let now = blob::read::<RefRecord>(&path)?;
        if now.is_some_and(|now| now.manifest == record.manifest) {
            blob::remove(&path)?;
        }
        Ok(())
    }

    /// All bundles, outside of the store too.
    ///
    /// # Errors
    /// When a record is unreadable.
    pub fn bundles(&self) -> Result<Vec<BundleRecord>, StoreError> {
        let mut bundles = Vec::new();
        for (_, path) in entries(&self.path.join("bundles"))? {
            bundles.extend(blob::read(&path.join(layout::BUNDLE_RECORD))?);
        }
        Ok(bundles)
    }

    /// Names may hold what file names may not, and be longer.
    fn ref_path(&self, reference: &str) -> PathBuf {
        let digest = Digest::of(reference.as_bytes());
        layout::record(&self.path, "refs", &layout::name(&digest))
    }

    pub(super) fn records<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, StoreError> {
        let mut records = Vec::new();
        for (name, path) in entries(&self.path.join(kind))? {
            if name
                .strip_suffix(".json")
                .and_then(layout::digest)
                .is_some()
            {
                records.extend(blob::read(&path)?);
            }
        }
        Ok(records)
    }
}

/// The names and paths in `directory`, in order.
pub(super) fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, CallError> {
    let error = |error| CallError::new("readdir", directory, error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(error)? {
        let entry = entry.map_err(error)?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}
