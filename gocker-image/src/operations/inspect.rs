//! Inspect: all that is known of one image.

use std::os::fd::AsFd;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::runtime_config::{Overrides, Parts, convert};
use super::{hold_image, user};
use crate::digest::Digest;
use crate::image::ImageConfig;
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
    /// The config.json of a bundle that is made of it, for which nothing else is asked; null if
    /// it has nothing to run or no such user.
    pub runtime_config: Value,
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
    let (image, _hold) = hold_image(store, reference)?;
    let names = store.references()?.into_iter();
    let names = names.filter(|name| name.manifest == image.manifest);
    let top = image.layers.last();
    Ok(Inspection {
        references: names.map(|name| name.reference).collect(),
        rootfs: top.map(|top| store.layer_path(top).to_string_lossy().into_owned()),
        manifest_document: document(store, &image.manifest)?,
        config_document: document(store, &image.config)?,
        runtime_config: runtime_config(store, &image)?,
        image,
    })
}

fn runtime_config(store: &Store, image: &ImageRecord) -> anyhow::Result<Value> {
    let bytes = store.blob(&image.config)?.unwrap_or_default();
    let config = ImageConfig::parse(&bytes).with_context(|| format!("config {}", image.config))?;
    let root = image.layers.last().map(|top| store.open_layer(top));
    let Some(root) = root.transpose()? else {
        return Ok(Value::Null);
    };
    let ids = user::find(root.as_fd(), &config.config.user);
    let overrides = Overrides::default();
    let spec = ids.ok().and_then(|ids| {
        let parts = Parts {
            config: &config,
            overrides: &overrides,
            ids: &ids,
            root_path: "rootfs",
            hostname: "",
        };
        convert(bundles::defaults::spec(), &parts, &mut |_| {}).ok()
    });
    let mut config = serde_json::to_value(spec)?;
    sort_capabilities(&mut config);
    Ok(config)
}

/// Puts the sets of capabilities into one order, so that the same image gives the same answer.
fn sort_capabilities(config: &mut Value) {
    let sets = config.pointer_mut("/process/capabilities");
    for set in sets.and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(names) = set.1.as_array_mut() {
            names.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        }
    }
}

fn document(store: &Store, digest: &Digest) -> anyhow::Result<Value> {
    let bytes = store.blob(digest)?;
    let bytes = bytes.with_context(|| format!("blob {digest} is missing from the store"))?;
    serde_json::from_slice(&bytes).with_context(|| format!("blob {digest}"))
}
