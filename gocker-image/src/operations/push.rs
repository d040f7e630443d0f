//! Push: from the store to a registry, byte by byte as the image was pulled.
//!
//! ```text
//! a layer    is there -> taken over from the repository it was pulled from -> uploaded
//! uploaded   from its blob if it is kept, else fetched again meanwhile
//! foreign    stays where the manifest says that it is
//! config, manifest last
//! ```

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use crossbeam_channel::{Sender, unbounded};

use super::content::Content;
use super::documents::Stored;
use super::{LayerEvent, Progress};
use crate::digest::Digest;
use crate::image::Descriptor;
use crate::reference::Reference;
use crate::registry::{Client, Upload};
use crate::store::Store;

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
        let mut ways = Vec::new();
        let mut done: Vec<&Digest> = Vec::new();
        for layer in &documents.manifest.layers {
            if done.contains(&&layer.digest) {
                continue;
            }
            done.push(&layer.digest);
            if super::stays_elsewhere(layer, self.content.progress) {
                continue;
            }
            let way = self.layer(layer);
            ways.push(way.with_context(|| format!("layer {}", layer.digest))?);
        }
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

    fn layer(&self, layer: &Descriptor) -> anyhow::Result<Way> {
        let Content {
            client, progress, ..
        } = self.content;
        if client.has_blob(self.destination, &layer.digest)? {
            progress.layer(&layer.digest, LayerEvent::Present);
            return Ok(Way::Present);
        }
        for origin in &self.content.stored.origins {
            let is_elsewhere = origin.registry() == self.destination.registry()
                && origin.repository() != self.destination.repository();
            if is_elsewhere
                && client.mount_blob(self.destination, origin.repository(), &layer.digest)?
            {
                progress.layer(&layer.digest, LayerEvent::Mounted);
                return Ok(Way::Mounted);
            }
        }
        let bytes = layer.size;
        progress.layer(&layer.digest, LayerEvent::Begin { bytes });
        self.upload(layer)?;
        progress.layer(&layer.digest, LayerEvent::Done);
        Ok(Way::Uploaded)
    }

    /// Uploads a layer in a thread of its own, while this one tells how far that is.
    fn upload(&self, layer: &Descriptor) -> anyhow::Result<()> {
        let (sender, counts) = unbounded();
        // what is wrong with the content explains why the registry did not get it
        let cause: Arc<Mutex<Option<anyhow::Error>>> = Arc::default();
        let seen = Arc::clone(&cause);
        let pushed = std::thread::scope(|scope| {
            let push = scope.spawn(move || {
                let open = |_| match self.content.open(layer) {
                    Ok(reader) => Ok(Box::new(Watched {
                        reader,
                        counts: sender.clone(),
                        cause: Arc::clone(&seen),
                    }) as Box<dyn Read + Send>),
                    Err(error) => {
                        let text = error.to_string();
                        note(&seen, error);
                        Err(io::Error::other(text))
                    }
                };
                let upload = Upload {
                    descriptor: layer,
                    open: &open,
                    chunk_bytes: None,
                };
                self.content.client.push_blob(self.destination, &upload)
            });
            for bytes in counts {
                let advance = LayerEvent::Advance { bytes };
                self.content.progress.layer(&layer.digest, advance);
            }
            push.join()
        });
        let pushed = match pushed {
            Ok(pushed) => pushed.map_err(anyhow::Error::from),
            Err(_) => bail!("the upload panicked"),
        };
        let cause = cause.lock().unwrap_or_else(PoisonError::into_inner).take();
        pushed.map_err(|error| cause.unwrap_or(error))
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

/// The content of a layer on its way to a registry.
struct Watched {
    reader: Box<dyn Read + Send>,
    counts: Sender<u64>,
    cause: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buf) {
            Ok(count) => {
                // who does not listen any more need not be told
                self.counts.send(count as u64).unwrap_or_default();
                Ok(count)
            }
            Err(error) => {
                let kind = error.kind();
                let text = error.to_string();
                note(&self.cause, error.into());
                Err(io::Error::new(kind, text))
            }
        }
    }
}

fn note(cause: &Mutex<Option<anyhow::Error>>, error: anyhow::Error) {
    *cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
}
