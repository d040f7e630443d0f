//! The content of layers: what is kept here, what an earlier pull had fetched, and the rest from
//! the registry.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;

use super::{LayerEvent, Progress};
use crate::digest::{Digest, VerifyError, VerifyReader};
use crate::image::Descriptor;
use crate::reference::Reference;
use crate::registry::{Client, Kept};
use crate::store::{BlobDraft, HoldKind, Lock, Partial, Store, StoreError};
use crate::unpack::OpenBlob;

/// A blob smaller than this is fetched anew sooner than it is kept.
const KEPT_FROM: u64 = 1 << 20;

/// What becomes of the blobs of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerBlobs {
    /// They are unpacked while they come in, and not kept.
    Streamed,
    /// They are kept besides.
    Kept,
}

/// Where the layers of one image come from.
pub(super) struct Source<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    blobs: LayerBlobs,
    /// What was here, and turned out to be wrong.
    spoiled: Arc<Mutex<Vec<Digest>>>,
    /// Whether partial blobs are kept while they are fetched.
    keeps: AtomicBool,
}

impl<'a> Source<'a> {
    pub(super) fn new(
        store: &'a Store,
        client: &'a Client,
        reference: &'a Reference,
        blobs: LayerBlobs,
    ) -> Self {
        Self {
            store,
            client,
            reference,
            blobs,
            spoiled: Arc::default(),
            keeps: AtomicBool::new(true),
        }
    }

    /// How a layer's blob is opened, in the thread that reads it.
    pub(super) fn open(&self, blob: &Descriptor) -> anyhow::Result<OpenBlob<'static>> {
        if let Some(file) = self.store.layer_blob(blob)? {
            return Ok(self.open_kept(blob, file));
        }
        let (client, reference) = (self.client.clone(), self.reference.clone());
        let (blob, spoiled) = (blob.clone(), Arc::clone(&self.spoiled));
        let recording = self.recording(&blob)?;
        let blobs = self.blobs;
        Ok(Box::new(move || {
            let (recording, kept) = recording.take_up(&blob)?;
            let known = kept.as_ref().map_or(0, |kept| kept.bytes);
            let reader = client.blob_from(&reference, &blob, kept);
            Ok(Box::new(Recorded {
                reader: Box::new(reader.map_err(io::Error::other)?),
                recording,
                blobs,
                blob,
                known,
                position: 0,
                spoiled,
            }) as Box<dyn Read + Send>)
        }))
    }

    /// Opens a blob that is kept.
    fn open_kept(&self, blob: &Descriptor, file: File) -> OpenBlob<'static> {
        let (digest, size) = (blob.digest.clone(), blob.size);
        let spoiled = Arc::clone(&self.spoiled);
        Box::new(move || {
            Ok(Box::new(KeptReader {
                reader: VerifyReader::new(file, digest.clone(), size),
                digest,
                spoiled,
            }) as Box<dyn Read + Send>)
        })
    }

    /// Where a blob is written to while it is fetched.
    fn recording(&self, blob: &Descriptor) -> Result<Recording, StoreError> {
        if let Some(partial) = self.partial(blob)? {
            return Ok(Recording::Partial(partial));
        }
        match self.blobs {
            LayerBlobs::Streamed => Ok(Recording::None),
            LayerBlobs::Kept => {
                let draft = self.store.new_blob(blob.digest.algorithm())?;
                Ok(Recording::Draft(Box::new(draft)))
            }
        }
    }

    /// Where a blob is kept for the next pull. None: it is small, another process keeps it, or
    /// there is no room.
    fn partial(&self, blob: &Descriptor) -> Result<Option<Partial>, StoreError> {
        let is_worth_it = blob.size >= KEPT_FROM && blob.data.is_none();
        if !is_worth_it || !self.keeps.load(Ordering::SeqCst) {
            return Ok(None);
        }
        match self.store.partial(&blob.digest) {
            Err(StoreError::Call(error)) if error.is_full() => Ok(None),
            result => result,
        }
    }

    /// Keeps nothing from now on that was not asked for, because the disk is full. Says whether
    /// anything was kept.
    pub(super) fn make_room(&self, layers: &[Descriptor]) -> Result<bool, StoreError> {
        if !self.keeps.swap(false, Ordering::SeqCst) {
            return Ok(false);
        }
        for blob in layers {
            self.store.remove_partial(&blob.digest)?;
        }
        let could_keep = layers.iter().any(|blob| blob.size >= KEPT_FROM);
        Ok(could_keep && self.blobs == LayerBlobs::Streamed)
    }

    /// Whether a pull has failed only by what was here before; it is gone now.
    pub(super) fn was_spoiled(&self) -> Result<bool, StoreError> {
        let spoiled =
            std::mem::take(&mut *self.spoiled.lock().unwrap_or_else(PoisonError::into_inner));
        for digest in &spoiled {
            self.store.remove_layer_blob(digest)?;
        }
        Ok(!spoiled.is_empty())
    }
}

/// Holds the blobs that are to be kept, until an image's record names them.
pub(super) fn hold_blobs(
    store: &Store,
    layers: &[Descriptor],
    blobs: LayerBlobs,
) -> Result<Vec<Lock>, StoreError> {
    if blobs == LayerBlobs::Streamed {
        return Ok(Vec::new());
    }
    let holds = layers
        .iter()
        .map(|blob| store.hold(HoldKind::Blob, &blob.digest));
    holds.collect()
}

/// Brings in the blobs of layers that were unpacked before, without their blobs. What `open`
/// opens keeps them.
pub(super) fn keep_missing(
    store: &Store,
    layers: &[Descriptor],
    open: &dyn Fn(&Descriptor) -> anyhow::Result<OpenBlob<'static>>,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    for blob in layers {
        if store.layer_blob(blob)?.is_some() {
            continue;
        }
        let (digest, bytes) = (&blob.digest, blob.size);
        progress.layer(digest, LayerEvent::Begin { bytes });
        let read = || -> anyhow::Result<()> {
            let mut reader = open(blob)?()?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                match reader.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => progress.layer(
                        digest,
                        LayerEvent::Advance {
                            bytes: count as u64,
                        },
                    ),
                }
            }
        };
        read().with_context(|| format!("layer {digest}"))?;
        progress.layer(digest, LayerEvent::Done);
    }
    Ok(())
}

/// Keeps the blob that `reader`, which verifies, delivers, while somebody else reads it.
pub(super) fn kept_while_read(
    store: &Store,
    blob: &Descriptor,
    reader: Box<dyn Read + Send>,
) -> Result<Box<dyn Read + Send>, StoreError> {
    let draft = store.new_blob(blob.digest.algorithm())?;
    Ok(Box::new(Recorded {
        reader,
        recording: Recording::Draft(Box::new(draft)),
        blobs: LayerBlobs::Kept,
        blob: blob.clone(),
        known: 0,
        position: 0,
        spoiled: Arc::default(),
    }))
}

/// What a blob is written to while it is read.
enum Recording {
    None,
    /// What the next pull goes on with if this one breaks.
    Partial(Partial),
    /// Nothing but the blob to keep.
    Draft(Box<BlobDraft>),
}

impl Recording {
    /// What is here of the blob already, and where the rest goes.
    fn take_up(self, blob: &Descriptor) -> io::Result<(Self, Option<Kept>)> {
        let Self::Partial(partial) = self else {
            return Ok((self, None));
        };
        if partial.bytes() == 0 {
            return Ok((Self::Partial(partial), None));
        }
        // the registry does not take up more than the blob has
        if partial.bytes() > blob.size {
            return Ok((Self::None, None));
        }
        let kept = Kept {
            bytes: partial.bytes(),
            reader: Box::new(partial.reader().map_err(io::Error::other)?),
        };
        Ok((Self::Partial(partial), Some(kept)))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Partial(partial) => partial.append(bytes),
            Self::Draft(draft) => draft.write_all(bytes),
        }
    }

    fn discard(&mut self) {
        if let Self::Partial(partial) = std::mem::replace(self, Self::None) {
            // what cannot be removed now is swept when it is old
            drop(partial.discard());
        }
    }

    /// Makes a blob of it, whose bytes were verified.
    fn keep(&mut self) -> Result<(), StoreError> {
        match std::mem::replace(self, Self::None) {
            Self::None => Ok(()),
            Self::Partial(partial) => partial.keep(),
            Self::Draft(draft) => draft.keep().map(drop),
        }
    }
}

/// A blob that is written down while it is read.
struct Recorded {
    /// It verifies.
    reader: Box<dyn Read + Send>,
    recording: Recording,
    blobs: LayerBlobs,
    blob: Descriptor,
    /// How many bytes were here before.
    known: u64,
    position: u64,
    spoiled: Arc<Mutex<Vec<Digest>>>,
}

impl Read for Recorded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = match self.reader.read(buf) {
            Ok(count) => count,
            Err(error) => {
                self.give_up(&error);
                return Err(error);
            }
        };
        let is_new = self.position >= self.known;
        self.position += count as u64;
        if is_new && let Err(error) = self.recording.append(&buf[..count]) {
            // a full disk has better use for the space
            self.recording.discard();
            if self.blobs == LayerBlobs::Kept {
                return Err(error);
            }
        }
        // the last bytes come only if the digest is right
        if self.blobs == LayerBlobs::Kept && self.position == self.blob.size {
            self.recording.keep().map_err(io::Error::other)?;
        }
        Ok(count)
    }
}

impl Recorded {
    /// Removes what was here if it is known to be wrong.
    fn give_up(&mut self, error: &io::Error) {
        if is_wrong(error) {
            if self.known > 0 {
                note(&self.spoiled, &self.blob.digest);
            }
            self.recording.discard();
        }
    }
}

/// A blob that was kept.
struct KeptReader {
    reader: VerifyReader<File>,
    digest: Digest,
    spoiled: Arc<Mutex<Vec<Digest>>>,
}

impl Read for KeptReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf).inspect_err(|error| {
            if is_wrong(error) {
                note(&self.spoiled, &self.digest);
            }
        })
    }
}

fn is_wrong(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<VerifyError>())
}

fn note(spoiled: &Mutex<Vec<Digest>>, digest: &Digest) {
    let mut spoiled = spoiled.lock().unwrap_or_else(PoisonError::into_inner);
    spoiled.push(digest.clone());
}
