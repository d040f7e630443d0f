//! Push: from the store to a registry, byte by byte as the image was pulled.
//!
//! ```text
//! a layer    is there -> taken over from the repository it was pulled from -> uploaded
//! uploaded   from its blob if it is kept, else fetched again meanwhile
//! foreign    stays where the manifest says that it is
//! a few layers at once; the first that fails ends the others
//! config, manifest last
//! ```

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use crossbeam_channel::{Sender, unbounded};

use super::content::Content;
use super::documents::Stored;
use super::{LayerEvent, Progress};
use crate::digest::Digest;
use crate::image::Descriptor;
use crate::reference::Reference;
use crate::registry::{Client, Upload};
use crate::store::Store;

/// Layers that are sent at once, as many as a pull fetches.
const LANES: usize = 3;

/// What to push, and where to.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// The image.
    pub reference: Reference,
    /// What it is to be called at its registry.
    pub destination: Reference,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// What it is called at its registry.
    pub destination: Reference,
    /// The image.
    pub manifest: Digest,
    /// What its manifest is.
    pub media_type: String,
    /// Layers that were there already.
    pub present_layers: usize,
    /// Layers that the registry took over from another of its repositories.
    pub mounted_layers: usize,
    /// Layers that were uploaded.
    pub uploaded_layers: usize,
}

/// Pushes an image. Its digest stays what it is.
///
/// # Errors
/// When it is not here, a layer cannot be had, or the registry does not take something. The
/// manifest comes last, so that the registry never has an image that is not whole.
pub fn push(
    store: &Store,
    client: &Client,
    options: &PushOptions,
    progress: &dyn Progress,
) -> anyhow::Result<Pushed> {
    let names = (
        options.reference.familiar(),
        options.destination.to_string(),
    );
    let pushed = Stored::find(store, &options.reference).and_then(|stored| {
        let content = Content {
            store,
            client,
            stored: &stored,
            progress,
        };
        let push = Push {
            content: &content,
            destination: &options.destination,
        };
        push.run()
    });
    pushed.with_context(|| format!("push {:?} to {:?}", names.0, names.1))
}

struct Push<'a> {
    content: &'a Content<'a>,
    destination: &'a Reference,
}

/// How a layer came to be at the registry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Present,
    Mounted,
    Uploaded,
}

impl Push<'_> {
    fn run(&self) -> anyhow::Result<Pushed> {
        let documents = &self.content.stored.documents;
        if let Some(digest) = self.destination.digest()
            && *digest != documents.digest
        {
            bail!(
                "the image has the digest {}, not {digest}",
                documents.digest
            );
        }
        let mut layers: Vec<&Descriptor> = Vec::new();
        for layer in &documents.manifest.layers {
            let is_known = layers.iter().any(|known| known.digest == layer.digest);
            if !is_known && !super::stays_elsewhere(layer, self.content.progress) {
                layers.push(layer);
            }
        }
        let ways = self.send(&layers)?;
        let config = &documents.manifest.config;
        self.config(config, &documents.config_bytes)
            .with_context(|| format!("config {}", config.digest))?;
        let media_type = &documents.manifest.media_type;
        let client = self.content.client;
        client.push_manifest(self.destination, media_type, &documents.manifest_bytes)?;
        let count = |way| ways.iter().filter(|&&known| known == way).count();
        Ok(Pushed {
            destination: self.destination.clone(),
            manifest: documents.digest.clone(),
            media_type: media_type.clone(),
            present_layers: count(Way::Present),
            mounted_layers: count(Way::Mounted),
            uploaded_layers: count(Way::Uploaded),
        })
    }

    /// Sends layers, a few at once, while this thread tells how far they are.
    fn send(&self, layers: &[&Descriptor]) -> anyhow::Result<Vec<Way>> {
        let next = AtomicUsize::new(0);
        let failed = Arc::new(AtomicBool::new(false));
        let (sender, events) = unbounded();
        let lanes = thread::scope(|scope| {
            let next = &next;
            let lanes = (0..LANES.min(layers.len())).map(|_| {
                let lane = Lane {
                    push: self,
                    layers,
                    next,
                    failed: Arc::clone(&failed),
                    events: sender.clone(),
                };
                scope.spawn(move || lane.run())
            });
            let lanes: Vec<_> = lanes.collect();
            // the lanes' own end when they do
            drop(sender);
            for (index, event) in events {
                let layer: &Descriptor = layers[index];
                self.content.progress.layer(&layer.digest, event);
            }
            let ends = lanes.into_iter().map(thread::ScopedJoinHandle::join);
            ends.collect::<Vec<_>>()
        });
        let mut ways = Vec::new();
        for lane in lanes {
            ways.extend(lane.map_err(|_| anyhow!("an upload panicked"))??);
        }
        Ok(ways)
    }

    fn config(&self, config: &Descriptor, bytes: &[u8]) -> anyhow::Result<()> {
        let client = self.content.client;
        if client.has_blob(self.destination, &config.digest)? {
            return Ok(());
        }
        let open = |_| Ok(Box::new(io::Cursor::new(bytes.to_vec())) as Box<dyn Read + Send>);
        let upload = Upload {
            descriptor: config,
            open: &open,
            chunk_bytes: None,
        };
        Ok(client.push_blob(self.destination, &upload)?)
    }
}

/// What happens to the layer of that number.
type Event = (usize, LayerEvent);

/// Sends one layer after the other; whatever lane is free takes the next.
struct Lane<'a> {
    push: &'a Push<'a>,
    layers: &'a [&'a Descriptor],
    next: &'a AtomicUsize,
    /// Whether a layer could not be sent, in whatever lane.
    failed: Arc<AtomicBool>,
    events: Sender<Event>,
}

impl Lane<'_> {
    fn run(&self) -> anyhow::Result<Vec<Way>> {
        let mut ways = Vec::new();
        while !self.failed.load(Ordering::SeqCst) {
            let index = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(layer) = self.layers.get(index) else {
                break;
            };
            match self.layer(index, layer) {
                Ok(way) => ways.push(way),
                // this one ended because of the first, which is told
                Err(_) if self.failed.swap(true, Ordering::SeqCst) => break,
                Err(error) => return Err(error.context(format!("layer {}", layer.digest))),
            }
        }
        Ok(ways)
    }

    fn layer(&self, index: usize, layer: &Descriptor) -> anyhow::Result<Way> {
        let Push {
            content,
            destination,
        } = self.push;
        let client = content.client;
        if client.has_blob(destination, &layer.digest)? {
            self.tell(index, LayerEvent::Present);
            return Ok(Way::Present);
        }
        for origin in &content.stored.origins {
            let is_elsewhere = origin.registry() == destination.registry()
                && origin.repository() != destination.repository();
            if is_elsewhere && client.mount_blob(destination, origin.repository(), &layer.digest)? {
                self.tell(index, LayerEvent::Mounted);
                return Ok(Way::Mounted);
            }
        }
        self.tell(index, LayerEvent::Begin { bytes: layer.size });
        self.upload(index, layer)?;
        self.tell(index, LayerEvent::Done);
        Ok(Way::Uploaded)
    }

    fn upload(&self, index: usize, layer: &Descriptor) -> anyhow::Result<()> {
        let cause = Cause::default();
        let open = |_| {
            // what failed before is not what fails now
            drop(cause.take());
            if self.failed.load(Ordering::SeqCst) {
                return Err(ended());
            }
            match self.push.content.open(layer) {
                Ok(reader) => Ok(Box::new(Watched {
                    reader,
                    index,
                    events: self.events.clone(),
                    failed: Arc::clone(&self.failed),
                    cause: cause.clone(),
                }) as Box<dyn Read + Send>),
                Err(error) => {
                    let text = error.to_string();
                    cause.note(error);
                    Err(io::Error::other(text))
                }
            }
        };
        let upload = Upload {
            descriptor: layer,
            open: &open,
            chunk_bytes: None,
        };
        let content = self.push.content;
        let pushed = content.client.push_blob(self.push.destination, &upload);
        pushed.map_err(|error| cause.take().unwrap_or_else(|| error.into()))
    }

    fn tell(&self, index: usize, event: LayerEvent) {
        tell(&self.events, (index, event));
    }
}

/// Tells it to the thread that shows it, which listens until the last lane ends.
fn tell(events: &Sender<Event>, event: Event) {
    events.send(event).unwrap_or_default();
}

fn ended() -> io::Error {
    io::Error::other("another layer could not be sent")
}

/// The content of a layer on its way to a registry. It breaks off when another layer fails.
struct Watched {
    reader: Box<dyn Read + Send>,
    index: usize,
    events: Sender<Event>,
    failed: Arc<AtomicBool>,
    cause: Cause,
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(ended());
        }
        match self.reader.read(buf) {
            Ok(count) => {
                let bytes = count as u64;
                tell(&self.events, (self.index, LayerEvent::Advance { bytes }));
                Ok(count)
            }
            Err(error) => {
                let kind = error.kind();
                let text = error.to_string();
                self.cause.note(error.into());
                Err(io::Error::new(kind, text))
            }
        }
    }
}

/// What is wrong with the content, which explains why the registry did not get it.
#[derive(Clone, Default)]
struct Cause(Arc<Mutex<Option<anyhow::Error>>>);

impl Cause {
    fn note(&self, error: anyhow::Error) {
        *self.lock() = Some(error);
    }

    fn take(&self) -> Option<anyhow::Error> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<anyhow::Error>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
