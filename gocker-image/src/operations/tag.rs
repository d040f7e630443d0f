//! Tag: gives an image one more name.

use anyhow::{Context, bail};

use super::documents::origin;
use super::{hold_image, stored_name};
use crate::reference::Reference;
use crate::store::{Origin, RefRecord, Store, now};

/// Makes the name `to` stand for the image `from`, whatever it stood for. Returns its record.
///
/// # Errors
/// When `from` is not here, or `to` names a digest.
pub fn tag(store: &Store, from: &Reference, to: &Reference) -> anyhow::Result<RefRecord> {
    let names = (from.familiar(), to.familiar());
    try_tag(store, from, to).with_context(|| format!("tag {:?} as {:?}", names.0, names.1))
}

fn try_tag(store: &Store, from: &Reference, to: &Reference) -> anyhow::Result<RefRecord> {
    if to.digest().is_some() {
        bail!("the new name has a digest: an image has no other than its own");
    }
    let (image, _hold) = hold_image(store, from)?;
    let mut names = store.references()?;
    names.retain(|name| name.manifest == image.manifest);
    let asked = stored_name(from);
    names.sort_by_key(|name| name.reference != asked);
    let reference = stored_name(to);
    // a name that is given to its own image again keeps what is known of it
    if let Some(same) = names.iter().find(|name| name.reference == reference) {
        return Ok(same.clone());
    }
    let pulled_by = names.iter().find_map(origin);
    let record = RefRecord {
        resolved: names
            .first()
            .map_or_else(|| image.manifest.clone(), |name| name.resolved.clone()),
        manifest: image.manifest,
        reference,
        updated: now(),
        origin: pulled_by.map_or(Origin::Here, |name| Origin::Other(name.to_owned())),
    };
    store.put_reference(&record)?;
    Ok(record)
}
