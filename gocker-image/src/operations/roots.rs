//! What has a root file system in the store: bundles, and images that have layers.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;

use super::{find_bundle, hold_image};
use crate::digest::Digest;
use crate::errno::CallError;
use crate::reference::Reference;
use crate::store::{BundleRecord, ImageRecord, Lock, Store};

/// The name of something that has a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rooted {
    /// A bundle's id or directory.
    Bundle(String),
    /// An image.
    Image(Reference),
}

impl std::fmt::Display for Rooted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bundle(name) => f.write_str(name),
            Self::Image(reference) => f.write_str(&reference.familiar()),
        }
    }
}

/// A root, held so that nobody removes it meanwhile.
pub(super) struct Root {
    pub(super) owner: Owner,
    /// The root itself; None for an image without layers.
    pub(super) fd: Option<File>,
    /// Where it lies.
    pub(super) path: Option<PathBuf>,
    /// The layers that it was made of; of an image, those below its topmost one.
    pub(super) base: Option<Digest>,
    /// The layers that it is; None for a bundle, which is none.
    pub(super) chain: Option<Digest>,
    _holds: Vec<Lock>,
}

/// Whose a root is.
pub(super) enum Owner {
    Bundle(BundleRecord),
    Image(ImageRecord),
}

/// Finds and holds what `name` names.
pub(super) fn hold_root(store: &Store, name: &Rooted) -> anyhow::Result<Root> {
    match name {
        Rooted::Bundle(name) => {
            let id = find_bundle(store, name)?.id.parse()?;
            let (record, hold) = store.hold_bundle(&id)?;
            let image = store.image(&record.manifest)?;
            let image = image.with_context(|| format!("image {} is missing", record.manifest))?;
            let fd = File::open(&record.rootfs);
            let fd = fd.map_err(|error| CallError::new("open", &record.rootfs, error))?;
            Ok(Root {
                fd: Some(fd),
                path: Some(record.rootfs.clone()),
                owner: Owner::Bundle(record),
                base: image.layers.last().cloned(),
                chain: None,
                _holds: vec![hold],
            })
        }
        Rooted::Image(reference) => {
            let (image, hold) = hold_image(store, reference)?;
            let mut layers = image.layers.iter().rev();
            let (chain, base) = (layers.next().cloned(), layers.next().cloned());
            let fd = chain.as_ref().map(|chain| store.open_layer(chain));
            Ok(Root {
                fd: fd.transpose()?,
                path: chain.as_ref().map(|chain| store.layer_path(chain)),
                owner: Owner::Image(image),
                base,
                chain,
                _holds: vec![hold],
            })
        }
    }
}
