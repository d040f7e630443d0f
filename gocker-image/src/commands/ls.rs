//! `ls`: the images, each under each of its names.

use serde::Serialize;

use super::Context;
use crate::cli::{Format, ListArgs};
use crate::digest::Digest;
use crate::operations::{self, Listed};
use crate::progress::{short, size_text};
use crate::reference::Reference;
use crate::{report, table};

#[derive(Serialize)]
struct Row<'a> {
    reference: Option<&'a str>,
    manifest: &'a Digest,
    config: &'a Digest,
    platform: &'a str,
    layers: usize,
    transfer_bytes: u64,
    content_bytes: u64,
    created: Option<&'a str>,
    pulled: &'a str,
}

/// Prints the images. Where there is no store there are none.
pub(crate) fn ls(context: &Context, args: &ListArgs) -> anyhow::Result<()> {
    let images = match context.find_store()? {
        Some(store) => operations::list(&store)?,
        None => Vec::new(),
    };
    let text = if args.format == Format::Json && args.quiet {
        report::json(&images.iter().map(name).collect::<Vec<_>>())?
    } else if args.format == Format::Json {
        let rows: Vec<_> = images.iter().map(row).collect();
        report::json(&rows)?
    } else if args.quiet {
        images
            .iter()
            .map(|listed| format!("{}\n", name(listed)))
            .collect()
    } else {
        let head = ["IMAGE", "DIGEST", "PLATFORM", "PULLED", "SIZE"];
        table::render(&head, &images.iter().map(cells).collect::<Vec<_>>())
    };
    Ok(report::print(&text)?)
}

/// The name in its short form, else the digest.
fn name(listed: &Listed) -> String {
    let Some(reference) = &listed.reference else {
        return listed.image.manifest.to_string();
    };
    reference
        .parse()
        .map_or_else(|_| reference.clone(), |parsed: Reference| parsed.familiar())
}

fn cells(listed: &Listed) -> Vec<String> {
    let image = &listed.image;
    let name = if listed.reference.is_some() {
        name(listed)
    } else {
        "<none>".to_owned()
    };
    vec![
        name,
        short(&image.manifest).to_owned(),
        image.platform.clone(),
        image.pulled.clone(),
        size_text(image.content_bytes),
    ]
}

fn row(listed: &Listed) -> Row<'_> {
    Row {
        reference: listed.reference.as_deref(),
        manifest: &listed.image.manifest,
        config: &listed.image.config,
        platform: &listed.image.platform,
        layers: listed.image.layers.len(),
        transfer_bytes: listed.image.transfer_bytes,
        content_bytes: listed.image.content_bytes,
        created: listed.image.created.as_deref(),
        pulled: &listed.image.pulled,
    }
}
