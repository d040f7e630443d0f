//! Pull: from a reference to layers in the store and a name for them.
//!
//! ```text
//! resolve -> choose the platform -> manifest -> signatures -> config -> layers -> image -> name
//! ```
//!
//! Everything is fetched by digest after the first answer, and everything is
//! held by locks until the name refers to it.

use std::sync::Mutex;

use anyhow::{Context, bail};

use super::documents::Documents;
use super::fetch::{self, LayerBlobs, Source};
use super::unpack::{self, InHand, Layer, Unpacked};
use super::verify::{self, Trust};
use super::{Progress, check_config, stored_name};
use crate::digest::Digest;
use crate::image::{Descriptor, Document, ImageConfig, Manifest, PlatformChoice};
use crate::interrupt;
use crate::reference::Reference;
use crate::registry::{Client, DOCUMENT_LIMIT, FetchedManifest};
use crate::store::{ImageRecord, Lock, Origin, RefRecord, Store, now};
use crate::unpack::Budgets;

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The image.
    pub reference: Reference,
    /// Which one of an index.
    pub platform: PlatformChoice,
    /// How much each layer may bring.
    pub budgets: Budgets,
    /// What must be true of the image before anything of it is fetched.
    pub trust: Trust,
    /// Whether the blobs of layers are kept.
    pub blobs: LayerBlobs,
    /// Whether layers may lie elsewhere than at the registry.
    pub foreign_layers: ForeignLayers,
}

/// What is thought of layers that their makers do not let registries hand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignLayers {
    /// An image that has one is not pulled.
    Refused,
    /// They are fetched from the registry, or else from the addresses that the manifest names.
    Allowed,
}

/// What was pulled.
#[derive(Debug)]
pub struct Pulled {
    /// The name that it has in the store.
    pub reference: String,
    /// The image.
    pub image: ImageRecord,
    /// What the reference was resolved to: the index if there is one.
    pub resolved: Digest,
    /// How many layers were fetched; the others were here.
    pub fetched_layers: usize,
    /// The image, so that nobody removes it before something is made of it.
    pub hold: Lock,
}

/// Pulls an image into the store.
///
/// # Errors
/// When the registry does not have it, something is not what it should be, or
/// the disk is full. Layers that were finished stay.
pub fn pull(
    store: &Store,
    client: &Client,
    options: &PullOptions,
    progress: &dyn Progress,
) -> anyhow::Result<Pulled> {
    let name = options.reference.familiar();
    let in_hand = Mutex::default();
    let tidy = || unpack::put_away_for_good(&in_hand, store);
    // from the beginning, for every thread is to leave the signals alone
    let pulled = interrupt::guarded(&tidy, || {
        let pull = Pull {
            store,
            client,
            options,
            progress,
            in_hand: &in_hand,
        };
        pull.run()
    });
    let pulled = pulled.map_err(anyhow::Error::from).flatten();
    pulled.with_context(|| format!("pull {name:?}"))
}

struct Pull<'a> {
    store: &'a Store,
    client: &'a Client,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
    in_hand: &'a Mutex<InHand<'a>>,
}

impl Pull<'_> {
    fn run(&self) -> anyhow::Result<Pulled> {
        let Self {
            store,
            client,
            options,
            progress,
            ..
        } = *self;
        let reference = &options.reference;
        let required = verify::requirements(&options.trust, reference)?;
        let resolved = client.resolve(reference)?;
        let resolved_digest = resolved.digest.clone();
        let (fetched, manifest) = choose_manifest(client, options, resolved)?;
        if options.foreign_layers == ForeignLayers::Refused {
            manifest
                .refuse_foreign_layers()
                .with_context(|| format!("manifest {}", fetched.digest))?;
        }
        // an index vouches for the manifests that it names
        let mut signed = vec![&fetched.digest, &resolved_digest];
        signed.dedup();
        verify::verify(client, reference, &signed, &required)?;
        let [_manifest_hold, _config_hold, hold] =
            Documents::hold(store, &fetched.digest, &manifest)?;
        let config_bytes = match store.blob(&manifest.config.digest)? {
            Some(bytes) => bytes,
            None => client
                .blob_bytes(reference, &manifest.config, DOCUMENT_LIMIT)
                .with_context(|| format!("config {}", manifest.config.digest))?,
        };
        let config = read_config(&config_bytes, &manifest, options, progress)
            .with_context(|| format!("config {}", manifest.config.digest))?;

        let layers: Vec<Layer> = Layer::of(&manifest, &config);
        let (unpacked, _blob_holds) = self.fetch_layers(&layers)?;

        // After the layers, so that a pull that fails leaves no document behind.
        let documents = Documents {
            digest: fetched.digest,
            manifest_bytes: fetched.bytes,
            manifest,
            config_bytes,
            config,
        };
        let image = documents.record(store, &unpacked)?;
        let name = stored_name(reference);
        store.put_reference(&RefRecord {
            reference: name.clone(),
            manifest: image.manifest.clone(),
            resolved: resolved_digest.clone(),
            updated: now(),
            origin: Origin::Name,
        })?;
        Ok(Pulled {
            reference: name,
            image,
            resolved: resolved_digest,
            fetched_layers: unpacked.fetched,
            hold,
        })
    }

    /// Brings all layers into the store, with what earlier pulls had fetched of them, and their
    /// blobs where they are to be kept.
    fn fetch_layers(&self, layers: &[Layer]) -> anyhow::Result<(Unpacked, Vec<Lock>)> {
        let Self { store, options, .. } = *self;
        let source = Source::new(store, self.client, &options.reference, options.blobs);
        let blobs: Vec<_> = layers.iter().map(|layer| layer.blob.clone()).collect();
        let holds = fetch::hold_blobs(store, &blobs, options.blobs)?;
        let open = |layer: &Layer| source.open(&layer.blob);
        let place = (store, self.in_hand);
        let unpack =
            || unpack::unpack_layers(place, layers, &options.budgets, &open, self.progress);
        let unpacked = match unpack() {
            // what was here was damaged, and is gone now
            Err(_) if source.was_spoiled()? => unpack(),
            // what is kept for the next pull must not be in the way of this one
            Err(error) if super::is_full(&error) => {
                if source.make_room(&blobs)? {
                    unpack()
                } else {
                    Err(error)
                }
            }
            result => result,
        };
        let finished = unpacked.and_then(|unpacked| {
            if options.blobs == LayerBlobs::Kept {
                let open = |blob: &Descriptor| source.open(blob);
                fetch::keep_missing(store, &blobs, &open, self.progress)?;
            }
            Ok((unpacked, holds))
        });
        match finished {
            Err(error) if !super::is_of_the_network(&error) => {
                for blob in &blobs {
                    store.remove_partial(&blob.digest)?;
                }
                Err(error)
            }
            result => result,
        }
    }
}

/// The manifest itself, or the one that an index has for the platform.
fn choose_manifest(
    client: &Client,
    options: &PullOptions,
    resolved: FetchedManifest,
) -> anyhow::Result<(FetchedManifest, Manifest)> {
    let fetched = match &resolved.document {
        Document::Manifest(_) => resolved,
        Document::Index(index) => {
            let descriptor = index.select(&options.platform)?;
            client.manifest(&options.reference, descriptor)?
        }
    };
    match fetched.document.clone() {
        Document::Manifest(manifest) => Ok((fetched, manifest)),
        Document::Index(_) => bail!("index {}: it is listed in another index", fetched.digest),
    }
}

fn read_config(
    bytes: &[u8],
    manifest: &Manifest,
    options: &PullOptions,
    progress: &dyn Progress,
) -> anyhow::Result<ImageConfig> {
    let config = ImageConfig::parse(bytes)?;
    check_config(&config, manifest, &options.platform, progress)?;
    Ok(config)
}
