//! `prune`: removes what nothing refers to.

use serde::Serialize;

use super::Context;
use crate::cli::{Format, PruneArgs};
use crate::digest::Digest;
use crate::operations;
use crate::progress::size_text;
use crate::report;
use crate::store::{Removed, Unused};

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<&'a [String]>,
    images: &'a [Digest],
    layers: &'a [Digest],
    content_bytes: u64,
    leftovers: usize,
}

/// Prunes the store, if there is one.
pub(crate) fn prune(context: &Context, args: &PruneArgs) -> anyhow::Result<()> {
    let removed = match context.find_store()? {
        Some(store) => operations::prune(&store, unused(args))?,
        None => Removed::default(),
    };
    print_removed(args, None, &removed)
}

/// Which images go by these arguments.
pub(crate) fn unused(args: &PruneArgs) -> Unused {
    if args.all {
        Unused::All
    } else {
        Unused::Nameless
    }
}

/// Prints what went; `containers` are those that `gocker` removed before.
pub(crate) fn print_removed(
    args: &PruneArgs,
    containers: Option<&[String]>,
    removed: &Removed,
) -> anyhow::Result<()> {
    if args.format == Format::Json {
        let answer = Answer {
            containers,
            images: &removed.images,
            layers: &removed.layers,
            content_bytes: removed.content_bytes,
            leftovers: removed.leftovers,
        };
        return Ok(report::print(&report::json(&answer)?)?);
    }
    let mut text = String::new();
    for container in containers.unwrap_or_default() {
        text.push_str(&format!("removed container {container}\n"));
    }
    for image in &removed.images {
        text.push_str(&format!("removed image {image}\n"));
    }
    for layer in &removed.layers {
        text.push_str(&format!("removed layer {layer}\n"));
    }
    if removed.leftovers > 0 {
        text.push_str(&format!("removed {} leftovers\n", removed.leftovers));
    }
    text.push_str(&format!("freed {}\n", size_text(removed.content_bytes)));
    Ok(report::print(&text)?)
}
