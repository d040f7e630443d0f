//! The documents of an image: those that come in are held, checked and recorded; those that are
//! here are read again. Their bytes are never written anew.

use anyhow::Context as _;

use super::unpack::Unpacked;
use super::{hold_image, stored_name};
use crate::digest::Digest;
use crate::image::{Document, ImageConfig, Manifest};
use crate::reference::Reference;
use crate::store::{HoldKind, ImageRecord, Lock, Origin, RefRecord, Store, now};

/// An image's manifest and config, as bytes and understood.
pub(super) struct Documents {
    /// The manifest's digest, which is the image's.
    pub(super) digest: Digest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) manifest: Manifest,
    pub(super) config_bytes: Vec<u8>,
    pub(super) config: ImageConfig,
}

impl Documents {
    /// Holds what the image with this manifest is recorded by, until a name refers to it.
    pub(super) fn hold(
        store: &Store,
        digest: &Digest,
        manifest: &Manifest,
    ) -> anyhow::Result<[Lock; 3]> {
        Ok([
            store.hold(HoldKind::Blob, digest)?,
            store.hold(HoldKind::Blob, &manifest.config.digest)?,
            store.hold(HoldKind::Image, digest)?,
        ])
    }

    /// Records an image whose layers are here and held: its documents, then the image.
    pub(super) fn record(self, store: &Store, unpacked: &Unpacked) -> anyhow::Result<ImageRecord> {
        store.put_blob(&self.digest, &self.manifest_bytes)?;
        store.put_blob(&self.manifest.config.digest, &self.config_bytes)?;
        let documents = (self.manifest_bytes.len() + self.config_bytes.len()) as u64;
        let image = ImageRecord {
            manifest: self.digest,
            config: self.manifest.config.digest.clone(),
            layers: self.config.chain_ids(),
            platform: self.config.platform().to_string(),
            transfer_bytes: self.manifest.transfer_bytes() + documents,
            content_bytes: unpacked.held.iter().map(|held| held.record.bytes).sum(),
            created: self.config.created,
            pulled: now(),
        };
        store.put_image(&image)?;
        Ok(image)
    }

    /// Reads those of an image that is here.
    pub(super) fn of(store: &Store, image: &ImageRecord) -> anyhow::Result<Self> {
        let digest = image.manifest.clone();
        let manifest_bytes = blob(store, &digest)?;
        let document = Document::parse(&manifest_bytes, None);
        let manifest = match document.with_context(|| format!("manifest {digest}"))? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => anyhow::bail!("manifest {digest}: it is an index"),
        };
        let config_bytes = blob(store, &image.config)?;
        let config = ImageConfig::parse(&config_bytes);
        Ok(Self {
            digest,
            manifest_bytes,
            manifest,
            config: config.with_context(|| format!("config {}", image.config))?,
            config_bytes,
        })
    }
}

fn blob(store: &Store, digest: &Digest) -> anyhow::Result<Vec<u8>> {
    let bytes = store.blob(digest)?;
    bytes.with_context(|| format!("blob {digest} is missing from the store"))
}

/// An image that is here, and where its content may be fetched from again.
pub(super) struct Stored {
    pub(super) image: ImageRecord,
    pub(super) documents: Documents,
    /// The names that it was pulled by, the one that was asked for first.
    pub(super) origins: Vec<Reference>,
    /// The image, so that nobody removes it meanwhile.
    _hold: Lock,
}

impl Stored {
    pub(super) fn find(store: &Store, reference: &Reference) -> anyhow::Result<Self> {
        let (image, hold) = hold_image(store, reference)?;
        Ok(Self {
            documents: Documents::of(store, &image)?,
            origins: origins(store, reference, &image)?,
            image,
            _hold: hold,
        })
    }
}

fn origins(
    store: &Store,
    reference: &Reference,
    image: &ImageRecord,
) -> anyhow::Result<Vec<Reference>> {
    let mut names = store.references()?;
    names.retain(|name| name.manifest == image.manifest);
    let asked = stored_name(reference);
    names.sort_by_key(|name| name.reference != asked);
    let mut origins: Vec<Reference> = Vec::new();
    for name in &names {
        let Some(origin) = origin(name).and_then(|name| name.parse::<Reference>().ok()) else {
            continue;
        };
        let is_known = origins.iter().any(|known| known.name() == origin.name());
        if !is_known {
            origins.push(origin);
        }
    }
    Ok(origins)
}

/// Where the layers of the image `manifest` may be fetched from again, for an image that is made
/// on top of it.
pub(super) fn origin_of(store: &Store, manifest: &Digest) -> anyhow::Result<Origin> {
    let names = store.references()?;
    let own = names.iter().filter(|name| name.manifest == *manifest);
    let pulled_by = own.filter_map(origin).next();
    Ok(pulled_by.map_or(Origin::Here, |name| Origin::Other(name.to_owned())))
}

/// The name that the image of a name was pulled by.
pub(super) fn origin(name: &RefRecord) -> Option<&str> {
    match &name.origin {
        Origin::Name => Some(&name.reference),
        Origin::Other(other) => Some(other),
        Origin::Here => None,
    }
}
