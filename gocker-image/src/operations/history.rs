//! History: the steps by which an image was made, and the layer of each.

use anyhow::Context;

use super::documents::Stored;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::store::Store;

/// One step of making an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When, as the config says (RFC 3339).
    pub created: Option<String>,
    /// The command.
    pub created_by: Option<String>,
    /// What its maker says of it.
    pub comment: Option<String>,
    /// What it made. None: only a change of the config.
    pub layer: Option<StepLayer>,
}

/// The layer that a step made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLayer {
    /// The digest of its archive.
    pub diff_id: Digest,
    /// The digest of its blob.
    pub blob: Digest,
    /// The bytes of its blob, as they are transferred.
    pub transfer_bytes: u64,
    /// Bytes of file content in it.
    pub content_bytes: u64,
}

/// The steps of the image `reference`, the last one first.
///
/// # Errors
/// When it is not here, or the store is damaged.
pub fn history(store: &Store, reference: &Reference) -> anyhow::Result<Vec<Step>> {
    let name = reference.familiar();
    try_history(store, reference).with_context(|| format!("history of {name:?}"))
}

fn try_history(store: &Store, reference: &Reference) -> anyhow::Result<Vec<Step>> {
    let stored = Stored::find(store, reference)?;
    let (manifest, config) = (stored.documents.manifest, stored.documents.config);
    let mut layers = Vec::new();
    let chain = stored.image.layers.iter().zip(config.rootfs.diff_ids);
    for (blob, (chain_id, diff_id)) in manifest.layers.into_iter().zip(chain) {
        let record = store.layer(chain_id)?;
        let record =
            record.with_context(|| format!("layer {chain_id} is missing from the store"))?;
        layers.push(StepLayer {
            diff_id,
            blob: blob.digest,
            transfer_bytes: blob.size,
            content_bytes: record.bytes,
        });
    }
    let mut layers = layers.into_iter();
    let mut steps: Vec<Step> = Vec::new();
    for entry in config.history {
        let layer = if entry.empty_layer {
            None
        } else {
            layers.next()
        };
        steps.push(Step {
            created: entry.created,
            created_by: entry.created_by,
            comment: entry.comment,
            layer,
        });
    }
    // a config need not tell how its layers were made
    steps.extend(layers.map(|layer| Step {
        created: None,
        created_by: None,
        comment: None,
        layer: Some(layer),
    }));
    steps.reverse();
    Ok(steps)
}
