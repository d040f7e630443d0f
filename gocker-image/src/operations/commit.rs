//! Commit: what a container has changed becomes a layer, and an image on top of the one that the
//! bundle was made of.
//!
//! ```text
//! freeze the root -> compare -> tar -> digest, compress -> blob
//!     -> unpack the very tar (DiffID, ChainID) -> config -> manifest -> image -> name
//! ```
//!
//! The layer in the store is what unpacking the blob gives, as it is for everybody who pulls it.
//! The new image is OCI's, whatever its base is: layers are the same bytes under either media
//! type.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use flate2::write::GzEncoder;

use super::committed::{self, Step};
use super::config_change::ConfigChange;
use super::documents::{self, Documents};
use super::unpack::{self, Layer, Unpacked};
use super::{Progress, find_bundle, stored_name};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::{Descriptor, ImageConfig, Manifest, media_type};
use crate::interrupt;
use crate::pack::{Change, Kinship, LayerOptions, compare, write_layer};
use crate::reference::Reference;
use crate::store::{BlobDraft, BundleRecord, HoldKind, ImageRecord, Origin, RefRecord, Store, now};
use crate::unpack::{Budgets, Compression, OpenBlob};

/// What to make of a bundle.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// The bundle: its id or directory.
    pub bundle: String,
    /// The new image's name.
    pub name: Reference,
    /// Who made it.
    pub author: Option<String>,
    /// What was done, for the history.
    pub message: Option<String>,
    /// What is another in the new image's config.
    pub changes: Vec<ConfigChange>,
    /// How the layer is compressed.
    pub compression: Compression,
    /// Whether the new image has one layer with all that the tree has.
    pub squash: Squash,
    /// When it was made, in seconds since 1970, and no file of the layer later. None: now, and
    /// files keep their times.
    pub timestamp: Option<i64>,
}

/// What becomes of the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squash {
    /// They become one with the new one.
    Yes,
    /// They stay below the new one.
    No,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The name that it has in the store.
    pub reference: String,
    /// The image.
    pub image: ImageRecord,
    /// The blob of the new layer; None if nothing had changed.
    pub layer: Option<Digest>,
}

/// Makes an image of a bundle. The container may run meanwhile: its root is copied in one moment,
/// or, where the file system has no snapshots, refused if it changed while it was copied.
///
/// # Errors
/// When there is no such bundle, a file in it cannot be in a layer, or the disk is full. Nothing
/// is left behind then.
pub fn commit(
    store: &Store,
    options: &CommitOptions,
    progress: &dyn Progress,
) -> anyhow::Result<Committed> {
    let (in_hand, frozen) = (Mutex::default(), Mutex::new(None::<Digest>));
    // the layer is ours, however well it is compressed
    let budgets = Budgets {
        ratio: u64::MAX,
        ..Budgets::default()
    };
    let tidy = || {
        unpack::put_away_for_good(&in_hand, store);
        let frozen = frozen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = &*frozen {
            // what fails here is left to the next command, which sweeps
            drop(store.abandon_draft(name));
        }
        // nor is another copy made
        std::mem::forget(frozen);
    };
    let committed = interrupt::guarded(&tidy, || {
        let work = Work {
            store,
            options,
            progress,
            budgets: &budgets,
            frozen: &frozen,
            in_hand: &in_hand,
        };
        work.run()
    });
    let committed = committed.map_err(anyhow::Error::from).flatten();
    committed.with_context(|| format!("commit {:?}", options.bundle))
}

struct Work<'a> {
    store: &'a Store,
    options: &'a CommitOptions,
    progress: &'a dyn Progress,
    budgets: &'a Budgets,
    /// The copy that is being read.
    frozen: &'a Mutex<Option<Digest>>,
    in_hand: &'a Mutex<unpack::InHand<'a>>,
}

/// The image that the new one is made of.
struct Base {
    image: ImageRecord,
    manifest: Manifest,
    config: Vec<u8>,
}

/// A layer that is written, without a name yet.
struct NewLayer {
    blob: BlobDraft,
    descriptor: Descriptor,
    diff_id: Digest,
}

impl Work<'_> {
    fn run(&self) -> anyhow::Result<Committed> {
        let store = self.store;
        if self.options.name.digest().is_some() {
            let name = self.options.name.familiar();
            bail!(
                "the new image's name {name:?} has a digest, which it can only get by its content"
            );
        }
        let id = find_bundle(store, &self.options.bundle)?.id.parse()?;
        let (bundle, _bundle_hold) = store.hold_bundle(&id)?;
        let _image_hold = store.hold(HoldKind::Image, &bundle.manifest)?;
        let base = self.base(&bundle)?;
        let layer = self.new_layer(&bundle, &base)?;
        let step = Step {
            created: committed::created(self.options.timestamp)?,
            created_by: bundle.args.join(" "),
            author: self.options.author.clone(),
            comment: self.options.message.clone(),
            changes: &self.options.changes,
            squash: self.options.squash,
        };
        let diff_id = layer.as_ref().map(|layer| &layer.diff_id);
        let config = committed::config(&base.config, diff_id, &step)?;
        let descriptor = layer.as_ref().map(|layer| &layer.descriptor);
        let manifest = committed::manifest(&base.manifest, descriptor, &config, &step)?;
        let documents = Documents {
            digest: Digest::of(&manifest),
            manifest: Manifest::parse(&manifest)?,
            manifest_bytes: manifest,
            config: ImageConfig::parse(&config)?,
            config_bytes: config,
        };
        let unpacked = self.unpack(&documents, layer.as_ref())?;
        // held until the image's record names it
        let kept = layer.map(|layer| layer.blob.keep()).transpose()?;
        let origin = documents::origin_of(store, &base.image.manifest)?;
        let (reference, image) = self.record(documents, &unpacked, origin)?;
        Ok(Committed {
            reference,
            image,
            layer: kept.map(|kept| kept.digest),
        })
    }

    fn base(&self, bundle: &BundleRecord) -> anyhow::Result<Base> {
        let missing = |what, digest: &Digest| format!("{what} {digest} is missing");
        let store = self.store;
        let image = store.image(&bundle.manifest)?;
        let image = image.with_context(|| missing("image", &bundle.manifest))?;
        let manifest = store.blob(&image.manifest)?;
        let manifest = manifest.with_context(|| missing("manifest", &image.manifest))?;
        let config = store.blob(&image.config)?;
        Ok(Base {
            manifest: Manifest::parse(&manifest)
                .with_context(|| format!("manifest {}", image.manifest))?,
            config: config.with_context(|| missing("config", &image.config))?,
            image,
        })
    }

    /// Writes the layer; None if nothing has changed.
    fn new_layer(&self, bundle: &BundleRecord, base: &Base) -> anyhow::Result<Option<NewLayer>> {
        let store = self.store;
        let mut name = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        let frozen = store.freeze(&bundle.rootfs)?;
        *name = frozen.name().cloned();
        drop(name);
        let root = frozen.root()?;
        let below = match self.options.squash {
            Squash::No => base.image.layers.last(),
            Squash::Yes => None,
        };
        let below = below.map(|top| store.open_layer(top)).transpose()?;
        let old = below.as_ref().map(AsFd::as_fd);
        let changes = compare(old, root.as_fd(), Kinship::Copy)?;
        if changes.is_empty() {
            return Ok(None);
        }
        self.write(root.as_fd(), &changes).map(Some)
    }

    fn write(
        &self,
        root: std::os::fd::BorrowedFd<'_>,
        changes: &[Change],
    ) -> anyhow::Result<NewLayer> {
        let blob = self.store.new_blob(Algorithm::Sha256)?;
        let out = Hashed {
            hasher: Hasher::new(Algorithm::Sha256),
            out: Compressor::new(blob, self.options.compression).context("compress")?,
        };
        let options = LayerOptions {
            latest: self.options.timestamp,
        };
        let mut warn = |text: String| self.progress.warn(&text);
        let (out, _) = write_layer(root, changes, options, out, &mut warn)?;
        let diff_id = out.hasher.finish();
        let blob = out.out.finish().context("write the layer")?;
        let media_type = media_type::layer_media_type(self.options.compression.suffix());
        Ok(NewLayer {
            descriptor: Descriptor::new(&media_type, blob.digest(), blob.bytes()),
            diff_id,
            blob,
        })
    }

    /// Brings the new layer into the store; the others are held in it.
    fn unpack(&self, documents: &Documents, new: Option<&NewLayer>) -> anyhow::Result<Unpacked> {
        let layers = Layer::of(&documents.manifest, &documents.config);
        let open = |layer: &Layer| -> anyhow::Result<OpenBlob<'static>> {
            let Some(new) = new.filter(|new| new.descriptor.digest == layer.blob.digest) else {
                bail!("its layer is missing from the store");
            };
            let file = new.blob.reader()?;
            Ok(Box::new(move || Ok(Box::new(file) as Box<dyn Read + Send>)))
        };
        let place = (self.store, self.in_hand);
        unpack::unpack_layers(place, &layers, self.budgets, &open, self.progress)
    }

    /// Records the image, and its name last of all.
    fn record(
        &self,
        documents: Documents,
        unpacked: &Unpacked,
        origin: Origin,
    ) -> anyhow::Result<(String, ImageRecord)> {
        let store = self.store;
        let _holds = Documents::hold(store, &documents.digest, &documents.manifest)?;
        let image = documents.record(store, unpacked)?;
        let reference = stored_name(&self.options.name);
        store.put_reference(&RefRecord {
            reference: reference.clone(),
            manifest: image.manifest.clone(),
            resolved: image.manifest.clone(),
            updated: now(),
            origin,
        })?;
        Ok((reference, image))
    }
}

/// What passes through is hashed.
struct Hashed<W> {
    hasher: Hasher,
    out: W,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Compresses in one thread and without a date, so that the same bytes give the same blob.
enum Compressor {
    Gzip(Box<GzEncoder<BlobDraft>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, BlobDraft>>),
    None(Box<BlobDraft>),
}

impl Compressor {
    fn new(blob: BlobDraft, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip => {
                let level = flate2::Compression::default();
                Self::Gzip(Box::new(GzEncoder::new(blob, level)))
            }
            Compression::Zstd => {
                let level = zstd::DEFAULT_COMPRESSION_LEVEL;
                Self::Zstd(Box::new(zstd::stream::write::Encoder::new(blob, level)?))
            }
            Compression::None => Self::None(Box::new(blob)),
        })
    }

    fn finish(self) -> io::Result<BlobDraft> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::None(blob) => Ok(*blob),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
            Self::None(blob) => blob,
        }
    }
}

impl Write for Compressor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}
