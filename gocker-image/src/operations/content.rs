//! The content of the layers of an image that is here: from their blobs if they are kept, else
//! from where the image came from, verified either way.

use std::io::Read;

use anyhow::{Context as _, bail};

use super::Progress;
use super::documents::Stored;
use crate::digest::VerifyReader;
use crate::image::Descriptor;
use crate::registry::Client;
use crate::store::Store;

/// Where the layers of one image are read from.
pub(super) struct Content<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    pub(super) stored: &'a Stored,
    pub(super) progress: &'a dyn Progress,
}

impl Content<'_> {
    /// Opens the blob of a layer. The reader fails at the end of one that is not right.
    pub(super) fn open(&self, blob: &Descriptor) -> anyhow::Result<Box<dyn Read + Send>> {
        let digest = &blob.digest;
        if let Some(file) = self.store.layer_blob(blob)? {
            return Ok(Box::new(VerifyReader::new(file, digest.clone(), blob.size)));
        }
        if let Some(bytes) = blob.embedded()? {
            return Ok(Box::new(std::io::Cursor::new(bytes)));
        }
        let mut failed = None;
        for origin in &self.stored.origins {
            match self.client.blob(origin, blob) {
                Ok(reader) => {
                    let name = origin.name();
                    self.progress.note(&format!(
                        "layer {digest} is not kept: fetched again from {name}"
                    ));
                    return Ok(Box::new(reader));
                }
                Err(error) => failed = Some((origin.name(), error)),
            }
        }
        let advice = "pull the image with --keep-blobs";
        match failed {
            Some((name, error)) => Err(error).with_context(|| {
                format!(
                    "layer {digest} is not kept, and cannot be fetched again from {name} ({advice})"
                )
            }),
            None => bail!(
                "layer {digest} is not kept, and the image was not pulled from a registry \
                 (load it again without --no-keep-blobs)"
            ),
        }
    }
}
