//! Unpack: the layers of an image into the store, each as a subvolume of its
//! own, while the next ones are fetched and decompressed ahead.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use anyhow::Context;

use super::{LayerEvent, Progress};
use crate::digest::Digest;
use crate::image::{Descriptor, ImageConfig, Manifest};
use crate::store::{Claim, Held, LayerRecord, Room, Settled, Store, ToMake, now};
use crate::unpack::{self, Budgets, Decoding, Expected, OpenBlob};

/// How the blob of a layer is opened.
pub(super) type Open<'a> = dyn Fn(&Layer) -> anyhow::Result<OpenBlob<'static>> + 'a;

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

/// Brings all `layers` into the store that are not in it. What is in hand meanwhile is seen in
/// `in_hand`.
pub(super) fn unpack_layers<'a>(
    (store, in_hand): (&'a Store, &'a Mutex<InHand<'a>>),
    layers: &[Layer],
    budgets: &'a Budgets,
    open: &Open<'_>,
    progress: &'a dyn Progress,
) -> anyhow::Result<Unpacked> {
    let work = Work {
        store,
        budgets,
        progress,
        in_hand,
        unpacked: Unpacked {
            held: Vec::new(),
            fetched: 0,
        },
    };
    let unpacked = work.run(layers, open);
    if unpacked.is_err() {
        let mut in_hand = lock(in_hand);
        // The draft went with whoever worked on it. The layer below must not stay in hand, for it
        // is locked; if it cannot be recorded now, the next sweep removes it.
        in_hand.draft = None;
        drop(in_hand.record_settled(store));
    }
    unpacked
}

impl<'a> Work<'a> {
    fn run(mut self, layers: &[Layer], open: &Open<'_>) -> anyhow::Result<Unpacked> {
        let store = self.store;
        std::thread::scope(|scope| {
            let work = &mut self;
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
            work.record_last()
        })?;
        Ok(self.unpacked)
    }
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
    in_hand: &'a Mutex<InHand<'a>>,
    unpacked: Unpacked,
}

/// What is not in the store yet.
#[derive(Default)]
pub(super) struct InHand<'a> {
    /// The layer that is being unpacked.
    draft: Option<Digest>,
    /// The layer below, complete but not known to be on disk.
    settled: Option<(Settled<'a>, LayerRecord)>,
}

impl InHand<'_> {
    /// Records the layer that is complete, if there is one.
    fn record_settled(&mut self, store: &Store) -> anyhow::Result<()> {
        if let Some((settled, record)) = self.settled.take() {
            store.sync()?;
            let blob = record.blob.clone();
            settled.record(record)?;
            store.remove_partial(&blob)?;
        }
        Ok(())
    }

    /// Records what is complete and removes what is not.
    fn put_away(&mut self, store: &Store) -> anyhow::Result<()> {
        let recorded = self.record_settled(store);
        if let Some(chain_id) = self.draft.take() {
            store.abandon_draft(&chain_id)?;
        }
        recorded
    }
}

/// Records what is complete and removes what is not, because the process ends: from now on
/// nobody takes anything in hand. What fails here is left to the next command, which sweeps.
pub(super) fn put_away_for_good(in_hand: &Mutex<InHand<'_>>, store: &Store) {
    let mut in_hand = lock(in_hand);
    drop(in_hand.put_away(store));
    std::mem::forget(in_hand);
}

/// Whoever panicked left nothing half done in it.
fn lock<'m, 'a>(in_hand: &'m Mutex<InHand<'a>>) -> MutexGuard<'m, InHand<'a>> {
    in_hand.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Work<'a> {
    /// Finds a layer, or begins to fetch it.
    fn claim<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        layer: &Layer,
        open: &Open<'_>,
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
        let decoding = unpack::decode(scope, expected, self.budgets, open(layer)?, fetched);
        Ok(Slot::ToMake(to_make, decoding))
    }

    /// Unpacks a layer over the one below and gives it its name.
    fn make(
        &mut self,
        layer: &Layer,
        to_make: ToMake,
        decoding: Decoding<'_>,
    ) -> anyhow::Result<()> {
        let mut in_hand = lock(self.in_hand);
        in_hand.draft = Some(layer.chain_id.clone());
        let draft = self.store.begin_layer(to_make, layer.parent.as_ref())?;
        drop(in_hand);
        // The snapshot that this began with has put the layer below on disk.
        self.record_settled()?;
        let digest = &layer.blob.digest;
        let progress = self.progress;
        let mut warn = |text: String| progress.warn(&format!("layer {digest}: {text}"));
        let (mut room, mut full) = (Room::new(self.store), None);
        let mut take = |bytes| {
            let taken = room.take(bytes);
            taken.map_err(|error| io::Error::other(full.insert(error).to_string()))
        };
        let applied = decoding.apply(draft.root()?, self.budgets, &mut warn, &mut take);
        let applied = match (applied, full) {
            (Err(_), Some(full)) => return Err(full.into()),
            (Err(error), None) if error.is_full() => {
                return Err(self.store.filled(error)?.into());
            }
            (applied, _) => applied?,
        };
        let mut in_hand = lock(self.in_hand);
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
        in_hand.draft = None;
        in_hand.settled = Some((settled, record));
        drop(in_hand);
        self.unpacked.fetched += 1;
        progress.layer(digest, LayerEvent::Done);
        Ok(())
    }

    fn record_settled(&mut self) -> anyhow::Result<()> {
        let mut in_hand = lock(self.in_hand);
        if let Some((settled, record)) = in_hand.settled.take() {
            let blob = record.blob.clone();
            self.unpacked.held.push(settled.record(record)?);
            self.store.remove_partial(&blob)?;
        }
        Ok(())
    }

    /// Records the topmost layer, which no snapshot has put on disk.
    fn record_last(&mut self) -> anyhow::Result<()> {
        let blob = {
            let in_hand = lock(self.in_hand);
            let settled = in_hand.settled.as_ref();
            settled.map(|(_, record)| record.blob.clone())
        };
        if let Some(blob) = blob {
            // before the sync, which would write it to the disk for nothing
            self.store.remove_partial(&blob)?;
            self.store.sync()?;
        }
        self.record_settled()
    }
}
