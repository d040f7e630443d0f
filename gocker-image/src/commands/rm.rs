//! `rm`: removes names of images, and what then nothing refers to.

use anyhow::Context as _;
use serde::Serialize;

use super::Context;
use super::in_turn::in_turn;
use crate::cli::RemoveArgs;
use crate::digest::Digest;
use crate::operations::{self, NotPulled};
use crate::reference::Reference;

/// What went with one of the names.
#[derive(Serialize)]
struct Gone {
    names: Vec<String>,
    images: Vec<Digest>,
}

/// Removes the images that are named, in turn, until one cannot be.
pub(crate) fn rm(context: &Context, args: &RemoveArgs) -> anyhow::Result<()> {
    let store = context.find_store()?;
    let remove = |reference: &Reference| {
        let Some(store) = &store else {
            let name = reference.familiar();
            return Err(NotPulled(name.clone())).with_context(|| format!("remove {name:?}"));
        };
        let gone = operations::remove(store, &context.qualify(reference)?)?;
        Ok(Gone {
            names: gone.references,
            images: gone.removed.images,
        })
    };
    in_turn(args.format, &args.references, remove, |gone| {
        let names = gone
            .names
            .iter()
            .map(|name| format!("removed name {name}\n"));
        let images = gone.images.iter();
        let images = images.map(|image| format!("removed image {image}\n"));
        names.chain(images).collect()
    })
}
