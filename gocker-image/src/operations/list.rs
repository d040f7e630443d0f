//! List: the images of the store, each under each of its names.

use anyhow::Context;

use crate::store::{ImageRecord, Store};

/// An image under one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The whole name; None if the image has none.
    pub reference: Option<String>,
    /// The image.
    pub image: ImageRecord,
}

/// All images, by name; those without one last.
///
/// # Errors
/// When a record is unreadable.
pub fn list(store: &Store) -> anyhow::Result<Vec<Listed>> {
    let images = store.images().context("list images")?;
    let mut names = store.references().context("list names")?;
    names.sort_by(|a, b| a.reference.cmp(&b.reference));
    let mut listed = Vec::new();
    for name in &names {
        let image = images.iter().find(|image| image.manifest == name.manifest);
        listed.extend(image.map(|image| Listed {
            reference: Some(name.reference.clone()),
            image: image.clone(),
        }));
    }
    let is_nameless = |image: &&ImageRecord| names.iter().all(|n| n.manifest != image.manifest);
    let nameless = images.iter().filter(is_nameless).map(|image| Listed {
        reference: None,
        image: image.clone(),
    });
    listed.extend(nameless);
    Ok(listed)
}
