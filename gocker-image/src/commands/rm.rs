//! `rm`: removes names of images, and what then nothing refers to.

use anyhow::Context as _;

use super::Context;
use crate::cli::RemoveArgs;
use crate::operations::{self, NotPulled};
use crate::report;

/// Removes the images that are named, in turn, until one cannot be.
pub(crate) fn rm(context: &Context, args: &RemoveArgs) -> anyhow::Result<()> {
    let store = context.find_store()?;
    for reference in &args.references {
        let Some(store) = &store else {
            let name = reference.familiar();
            return Err(NotPulled(name.clone())).with_context(|| format!("remove {name:?}"));
        };
        let gone = operations::remove(store, &context.qualify(reference)?)?;
        let mut text = String::new();
        for name in &gone.references {
            text.push_str(&format!("removed name {name}\n"));
        }
        for image in &gone.removed.images {
            text.push_str(&format!("removed image {image}\n"));
        }
        report::print(&text)?;
    }
    Ok(())
}
