//! Inspect: all that is known of one image.

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::{NotPulled, find_image};
use crate::digest::Digest;
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};

/// All that is known of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// All its names.
    pub references: Vec<String>,
    /// What the store remembers of it.
    #[serde(flatten)]
    pub image: ImageRecord,
    /// Where its root lies, read-only; None without layers.
    pub rootfs: Option<String>,
    /// Its manifest, as the registry sent it.
    pub manifest_document: Value,
    /// Its config, as the registry sent it.
    pub config_document: Value,
}

/// Tells all that is known of the image `reference`.
///
/// # Errors
/// When it was not pulled, or the store is damaged.
pub fn inspect(store: &Store, reference: &Reference) -> anyhow::Result<Inspection> {
    let name = reference.familiar();
    try_inspect(store, reference).with_context(|| format!("inspect {name:?}"))
}

fn try_inspect(store: &Store, reference: &Reference) -> anyhow::Result<Inspection> {
    let image = find_image(store, reference)?;
    let image = image.ok_or_else(|| NotPulled(reference.familiar()))?;
    let names = store.references()?.into_iter();
    let names = names.filter(|name| name.manifest == image.manifest);
    let top = image.layers.last();
    Ok(Inspection {
        references: names.map(|name| name.reference).collect(),
        rootfs: top.map(|top| store.layer_path(top).to_string_lossy().into_owned()),
        manifest_document: document(store, &image.manifest)?,
        config_document: document(store, &image.config)?,
        image,
    })
}

fn document(store: &Store, digest: &Digest) -> anyhow::Result<Value> {
    let bytes = store.blob(digest)?;
    let bytes = bytes.with_context(|| format!("blob {digest} is missing from the store"))?;
    serde_json::from_slice(&bytes).with_context(|| format!("blob {digest}"))
}
