//! The content of layers: what an earlier pull had fetched, and the rest from the registry.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::VerifyError;
use crate::image::Descriptor;
use crate::reference::Reference;
use crate::registry::{BlobReader, Client, Kept};
use crate::store::{Partial, Store, StoreError};
use crate::unpack::OpenBlob;

/// A blob smaller than this is fetched anew sooner than it is kept.
const KEPT_FROM: u64 = 1 << 20;

/// Where the layers of one image come from.
pub(super) struct Source<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    pub(super) reference: &'a Reference,
    /// Whether bytes that were kept turned out to be wrong.
    spoiled: Arc<AtomicBool>,
    /// Whether blobs are kept while they are fetched.
    keeps: AtomicBool,
}

impl<'a> Source<'a> {
    pub(super) fn new(store: &'a Store, client: &'a Client, reference: &'a Reference) -> Self {
        Self {
            store,
            client,
            reference,
            spoiled: Arc::default(),
            keeps: AtomicBool::new(true),
        }
    }

    /// How a layer's blob is opened, in the thread that reads it.
    pub(super) fn open(&self, blob: &Descriptor) -> anyhow::Result<OpenBlob<'static>> {
        let (client, reference) = (self.client.clone(), self.reference.clone());
        let (blob, spoiled) = (blob.clone(), Arc::clone(&self.spoiled));
        let partial = self.partial(&blob)?;
        Ok(Box::new(move || {
            let kept = match &partial {
                Some(partial) if partial.bytes() > 0 => Some(Kept {
                    bytes: partial.bytes(),
                    reader: Box::new(partial.reader().map_err(io::Error::other)?),
                }),
                _ => None,
            };
            // the registry does not take up more than the blob has
            let kept = kept.filter(|kept| kept.bytes <= blob.size);
            let known = kept.as_ref().map_or(0, |kept| kept.bytes);
            let reader = client.blob_from(&reference, &blob, kept);
            Ok(Box::new(Recorded {
                reader: reader.map_err(io::Error::other)?,
                partial: partial.filter(|partial| partial.bytes() == known),
                known,
                position: 0,
                spoiled,
            }) as Box<dyn Read + Send>)
        }))
    }

    /// Where a blob is kept. None: it is small, another process keeps it, or there is no room.
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

    /// Keeps nothing from now on, because the disk is full. Says whether anything was kept.
    pub(super) fn make_room(&self, layers: &[Descriptor]) -> Result<bool, StoreError> {
        if !self.keeps.swap(false, Ordering::SeqCst) {
            return Ok(false);
        }
        for blob in layers {
            self.store.remove_partial(&blob.digest)?;
        }
        Ok(layers.iter().any(|blob| blob.size >= KEPT_FROM))
    }

    /// Whether a pull has failed only by what an earlier one had kept.
    pub(super) fn was_spoiled(&self) -> bool {
        self.spoiled.swap(false, Ordering::SeqCst)
    }
}

/// A blob that is kept while it is read.
struct Recorded {
    reader: BlobReader,
    partial: Option<Partial>,
    /// How many bytes were kept before.
    known: u64,
    position: u64,
    spoiled: Arc<AtomicBool>,
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
        if is_new
            && let Some(partial) = &mut self.partial
            && partial.append(&buf[..count]).is_err()
        {
            // a full disk has better use for the space
            self.discard();
        }
        Ok(count)
    }
}

impl Recorded {
    /// Removes what is kept if it is known to be wrong.
    fn give_up(&mut self, error: &io::Error) {
        let inner = error.get_ref();
        if inner.is_some_and(|inner| inner.is::<VerifyError>()) {
            self.spoiled.fetch_or(self.known > 0, Ordering::SeqCst);
            self.discard();
        }
    }

    fn discard(&mut self) {
        if let Some(partial) = self.partial.take() {
            // what cannot be removed now is swept when it is old
            drop(partial.discard());
        }
    }
}
