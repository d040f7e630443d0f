//! Unpack: the layers of an image into the store, each as a subvolume of its
//! own, while the next ones are fetched and decompressed ahead.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::thread::Scope;

use anyhow::Context;

use super::{LayerEvent, Progress};
use crate::digest::Digest;
use crate::image::{Descriptor, ImageConfig, Manifest};
use crate::reference::Reference;
use crate::registry::Client;
use crate::store::{Claim, Held, LayerRecord, Settled, Store, ToMake, now};
use crate::unpack::{self, Budgets, Decoding, Expected, OpenBlob};

/// Layers that are fetched at once: the one that is applied, and the ones
/// after it as far as their pipes hold.
const WINDOW: usize = 3;

/// One layer of an image.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) blob: Descriptor,
    diff_id: Digest,
    chain_id: Digest,
    parent: Option<Digest>,
}

impl Layer {
    /// The layers of an image, the lowest first.
    pub(super) fn of(manifest: &Manifest, config: &ImageConfig) -> Vec<Self> {
        let mut parent = None;
        let ids = config.rootfs.diff_ids.iter().zip(config.chain_ids());
        let layers = manifest.layers.iter().zip(ids);
        let layers = layers.map(|(blob, (diff_id, chain_id))| Self {
            blob: blob.clone(),
            diff_id: diff_id.clone(),
            parent: parent.replace(chain_id.clone()),
            chain_id,
        });
        layers.collect()
    }
}

/// All layers of an image, held until a record refers to them.
pub(super) struct Unpacked {
    pub(super) held: Vec<Held>,
    /// How many of them were not here before.
    pub(super) fetched: usize,
}

/// How a layer's blob is opened, in the thread that reads it.
pub(super) fn open_blob(
    client: &Client,
    reference: &Reference,
    blob: &Descriptor,
) -> OpenBlob<'static> {
    let (client, reference, blob) = (client.clone(), reference.clone(), blob.clone());
    Box::new(move || {
        let reader = client.blob(&reference, &blob).map_err(io::Error::other)?;
        Ok(Box::new(reader) as Box<dyn Read + Send>)
    })
}

/// Brings all `layers` into the store that are not in it.
pub(super) fn unpack_layers(
    store: &Store,
    layers: &[Layer],
    budgets: &Budgets,
    open: &dyn Fn(&Layer) -> OpenBlob<'static>,
    progress: &dyn Progress,
) -> anyhow::Result<Unpacked> {
    std::thread::scope(|scope| {
        let mut work = Work {
            store,
            budgets,
            progress,
            settled: None,
            unpacked: Unpacked {
                held: Vec::new(),
                fetched: 0,
            },
        };
        let mut ahead = VecDeque::new();
        let mut checked_space = false;
        for (index, layer) in layers.iter().enumerate() {
            while ahead.len() < WINDOW
                && let Some(next) = layers.get(index + ahead.len())
            {
                let slot = work.claim(scope, next, open)?;
                if matches!(slot, Slot::ToMake(..)) && !checked_space {
                    let rest = layers[index + ahead.len()..].iter();
                    store.check_free(rest.map(|layer| layer.blob.size).sum())?;
                    checked_space = true;
                }
                ahead.push_back(slot);
            }
            let context = || format!("layer {}", layer.blob.digest);
            match ahead.pop_front() {
                Some(Slot::Held(held)) => work.unpacked.held.push(held),
                Some(Slot::ToMake(to_make, decoding)) => {
                    work.make(layer, to_make, decoding).with_context(context)?;
                }
                None => {}
            }
        }
        work.record_last()?;
        Ok(work.unpacked)
    })
}

/// A layer whose turn comes.
enum Slot<'scope> {
    Held(Held),
    ToMake(ToMake, Decoding<'scope>),
}

struct Work<'a> {
    store: &'a Store,
    budgets: &'a Budgets,
    progress: &'a dyn Progress,
    /// The layer below, complete but not known to be on disk.
    settled: Option<(Settled<'a>, LayerRecord)>,
    unpacked: Unpacked,
}

impl<'a> Work<'a> {
    /// Finds a layer, or begins to fetch it.
    fn claim<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        layer: &Layer,
        open: &dyn Fn(&Layer) -> OpenBlob<'static>,
    ) -> anyhow::Result<Slot<'scope>>
    where
        'a: 'scope,
    {
        let (progress, digest) = (self.progress, layer.blob.digest.clone());
        let waiting = || progress.layer(&digest, LayerEvent::Waiting);
        let to_make = match self.store.claim(&layer.chain_id, &waiting)? {
            Claim::Held(held) => {
                progress.layer(&digest, LayerEvent::Exists);
                return Ok(Slot::Held(held));
            }
            Claim::ToMake(to_make) => to_make,
        };
        let expected = Expected {
            diff_id: layer.diff_id.clone(),
            blob_bytes: layer.blob.size,
        };
        let bytes = layer.blob.size;
        progress.layer(&digest, LayerEvent::Begin { bytes });
        let fetched = move |bytes| progress.layer(&digest, LayerEvent::Advance { bytes });
        let decoding = unpack::decode(scope, expected, self.budgets, open(layer), fetched);
        Ok(Slot::ToMake(to_make, decoding))
    }

    /// Unpacks a layer over the one below and gives it its name.
    fn make(
        &mut self,
        layer: &Layer,
        to_make: ToMake,
        decoding: Decoding<'_>,
    ) -> anyhow::Result<()> {
        let draft = self.store.begin_layer(to_make, layer.parent.as_ref())?;
        // The snapshot that this began with has put the layer below on disk.
        self.record_settled()?;
        let digest = &layer.blob.digest;
        let progress = self.progress;
        let mut warn = |text: String| progress.warn(&format!("layer {digest}: {text}"));
        let applied = decoding.apply(draft.root()?, self.budgets, &mut warn)?;
        let settled = draft.settle()?;
        let record = LayerRecord {
            chain_id: layer.chain_id.clone(),
            diff_id: layer.diff_id.clone(),
            parent: layer.parent.clone(),
            blob: digest.clone(),
            entries: applied.entries,
            bytes: applied.bytes,
            created: now(),
        };
        self.settled = Some((settled, record));
        self.unpacked.fetched += 1;
        progress.layer(digest, LayerEvent::Done);
        Ok(())
    }

    fn record_settled(&mut self) -> anyhow::Result<()> {
        if let Some((settled, record)) = self.settled.take() {
            self.unpacked.held.push(settled.record(record)?);
        }
        Ok(())
    }

    /// Records the topmost layer, which no snapshot has put on disk.
    fn record_last(&mut self) -> anyhow::Result<()> {
        if self.settled.is_some() {
            self.store.sync()?;
        }
        self.record_settled()
    }
}
