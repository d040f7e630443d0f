//! Load: from an archive or a directory to layers in the store and names for them.
//!
//! ```text
//! files -> kind, policy -> documents -> unpack -> images -> names that are free
//! ```

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context as _, bail};

use super::fetch::{self, LayerBlobs};
use super::image_source::{ImageSource, LoadFrom};
use super::saved_images::{self, SavedImage};
use super::unpack::{self, InHand, Layer};
use super::{Progress, check_config, documents::Documents, stored_name};
use crate::digest::{Digest, VerifyReader};
use crate::image::{Descriptor, PlatformChoice};
use crate::interrupt;
use crate::reference::Reference;
use crate::store::{ImageRecord, Origin, RefRecord, Store, Taking, now};
use crate::trust::{Policy, PolicyPaths, Requirement};
use crate::unpack::{Budgets, OpenBlob};

/// How images are loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Which one of an index.
    pub platform: PlatformChoice,
    /// How much each layer may bring.
    pub budgets: Budgets,
    /// Where the policy is.
    pub policy: PolicyPaths,
    /// Whether the blobs of layers are kept; there is no registry to fetch them from again.
    pub blobs: LayerBlobs,
    /// The name of the one image that there is, instead of those that it claims.
    pub name: Option<Reference>,
    /// Whether a name is taken from another image that has it.
    pub taking: Taking,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The names that it has got, or had.
    pub references: Vec<String>,
    /// The names that it claims and that are those of other images.
    pub refused: Vec<String>,
    /// The image.
    pub image: ImageRecord,
}

/// Loads all images of an archive or a directory.
///
/// # Errors
/// When it holds none, something is not what it should be, the policy does not let it in, or the
/// disk is full. Images that were finished stay.
pub fn load(
    store: &Store,
    from: LoadFrom,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> anyhow::Result<Vec<Loaded>> {
    let in_hand = Mutex::default();
    let tidy = || unpack::put_away_for_good(&in_hand, store);
    let path = match &from {
        LoadFrom::Path(path) => Some(path.clone()),
        LoadFrom::Stream(_) => None,
    };
    let name = path
        .as_ref()
        .map_or_else(|| "standard input".to_owned(), |path| format!("{path:?}"));
    let loaded = interrupt::guarded(&tidy, || {
        let load = Load {
            store,
            options,
            progress,
            in_hand: &in_hand,
        };
        load.run(from, path)
    });
    let loaded = loaded.map_err(anyhow::Error::from).flatten();
    loaded.with_context(|| format!("load {name}"))
}

struct Load<'a> {
    store: &'a Store,
    options: &'a LoadOptions,
    progress: &'a dyn Progress,
    in_hand: &'a Mutex<InHand<'a>>,
}

impl Load<'_> {
    fn run(&self, from: LoadFrom, path: Option<PathBuf>) -> anyhow::Result<Vec<Loaded>> {
        let source = ImageSource::open(self.store, from, &self.options.budgets)?;
        let transport = saved_images::transport(&source)?;
        self.check_policy(transport, path)?;
        let mut images = saved_images::images(&source, transport, &self.options.platform)?;
        if images.is_empty() {
            bail!("it holds no image");
        }
        if let Some(name) = &self.options.name {
            let [image] = images.as_mut_slice() else {
                bail!("it holds {} images, and one name is for one", images.len());
            };
            image.names = vec![name.clone()];
        }
        let images = images.into_iter().map(|image| {
            let digest = image.documents.digest.clone();
            let loaded = self.image(image);
            loaded.with_context(|| format!("image {digest}"))
        });
        images.collect()
    }

    /// What is not signed is let in only where the policy wants no signature.
    fn check_policy(&self, transport: &str, path: Option<PathBuf>) -> anyhow::Result<()> {
        let Some(policy) = Policy::load(&self.options.policy)? else {
            return Ok(());
        };
        let path = path.map(|path| path.canonicalize().unwrap_or(path));
        let required = policy.local_requirements(transport, path.as_deref())?;
        if required
            .iter()
            .any(|required| matches!(required, Requirement::Signed(_)))
        {
            bail!("the policy wants signatures from {transport:?}, which has none that are served");
        }
        Ok(())
    }

    fn image(&self, image: SavedImage) -> anyhow::Result<Loaded> {
        let (store, blobs) = (self.store, self.options.blobs);
        let documents = &image.documents;
        documents.manifest.refuse_foreign_layers()?;
        let choice = &self.options.platform;
        check_config(
            &documents.config,
            &documents.manifest,
            choice,
            self.progress,
        )
        .with_context(|| format!("config {}", documents.manifest.config.digest))?;
        let _holds = Documents::hold(store, &documents.digest, &documents.manifest)?;
        let layers = Layer::of(&documents.manifest, &documents.config);
        let descriptors = &documents.manifest.layers;
        let _blob_holds = fetch::hold_blobs(store, descriptors, blobs)?;
        let open = |blob: &Descriptor| self.open(&image, blob);
        let unpacked = unpack::unpack_layers(
            (store, self.in_hand),
            &layers,
            &self.options.budgets,
            &|layer| open(&layer.blob),
            self.progress,
        )?;
        if blobs == LayerBlobs::Kept {
            fetch::keep_missing(store, descriptors, &open, self.progress)?;
        }
        let record = image.documents.record(store, &unpacked)?;
        self.name(record, &image.resolved, &image.names)
    }

    /// How the blob of a layer is opened, in the thread that reads it.
    fn open(&self, image: &SavedImage, blob: &Descriptor) -> anyhow::Result<OpenBlob<'static>> {
        let (digest, size) = (blob.digest.clone(), blob.size);
        let content: Box<dyn std::io::Read + Send> =
            match (image.layers.get(&digest), blob.embedded()?) {
                (Some(piece), _) => Box::new(piece.reader()),
                (None, Some(bytes)) => Box::new(std::io::Cursor::new(bytes)),
                (None, None) => bail!("it is missing"),
            };
        let reader = Box::new(VerifyReader::new(content, digest, size));
        let is_kept = self.store.layer_blob(blob)?.is_some();
        if self.options.blobs == LayerBlobs::Streamed || is_kept {
            return Ok(Box::new(move || Ok(reader)));
        }
        let kept = fetch::kept_while_read(self.store, blob, reader)?;
        Ok(Box::new(move || Ok(kept)))
    }

    /// Gives the image the names that it claims, where they are free or its own.
    fn name(
        &self,
        image: ImageRecord,
        resolved: &Digest,
        names: &[Reference],
    ) -> anyhow::Result<Loaded> {
        let (mut references, mut refused) = (Vec::new(), Vec::new());
        for name in names {
            let reference = stored_name(name);
            let other = self.store.take_reference(
                &RefRecord {
                    reference: reference.clone(),
                    manifest: image.manifest.clone(),
                    resolved: resolved.clone(),
                    updated: now(),
                    origin: Origin::Here,
                },
                self.options.taking,
            )?;
            match other {
                None => references.push(reference),
                Some(other) => {
                    self.progress.warn(&format!(
                        "{reference} is the name of another image here, {}, and stays so \
                         (--replace takes it, --tag gives another)",
                        other.manifest
                    ));
                    refused.push(reference);
                }
            }
        }
        Ok(Loaded {
            references,
            refused,
            image,
        })
    }
}
