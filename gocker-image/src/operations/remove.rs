//! Remove: takes a name from an image, and with the last one the image.

use anyhow::Context;

use super::{NotPulled, find_image, stored_name};
use crate::digest::Digest;
use crate::reference::Reference;
use crate::store::{Removed, Store};

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedImage {
    /// The names that were taken away.
    pub references: Vec<String>,
    /// The image that they stood for.
    pub manifest: Digest,
    /// What went with them. An image that a bundle was made of stays until the
    /// bundle is removed.
    pub removed: Removed,
}

/// Removes the name `reference`, and the image if that was its last one. A
/// reference by digest removes all names that the image has in the repository.
///
/// # Errors
/// When it was not pulled, or something cannot be removed.
pub fn remove(store: &Store, reference: &Reference) -> anyhow::Result<RemovedImage> {
    let name = reference.familiar();
    try_remove(store, reference).with_context(|| format!("remove {name:?}"))
}

fn try_remove(store: &Store, reference: &Reference) -> anyhow::Result<RemovedImage> {
    let image = find_image(store, reference)?;
    let manifest = match (image, store.reference(&stored_name(reference))?) {
        (Some(image), _) => image.manifest,
        // A name whose image is gone can still be taken away.
        (None, Some(name)) => name.manifest,
        (None, None) => return Err(NotPulled(reference.familiar()).into()),
    };
    let mut references = Vec::new();
    for name in store.references()? {
        let is_meant = match reference.digest() {
            None => name.reference == stored_name(reference),
            Some(_) => {
                let parsed = name.reference.parse::<Reference>();
                name.manifest == manifest && parsed.is_ok_and(|r| r.name() == reference.name())
            }
        };
        if is_meant && store.remove_reference(&name.reference)? {
            references.push(name.reference);
        }
    }
    let removed = store.remove_unused(&manifest)?;
    Ok(RemovedImage {
        references,
        manifest,
        removed,
    })
}
