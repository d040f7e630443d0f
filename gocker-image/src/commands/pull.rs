//! `pull`: fetches an image and unpacks its layers.

use anyhow::bail;
use serde::Serialize;

use super::Context;
use crate::cli::{Format, PullArgs};
use crate::digest::Digest;
use crate::image::PlatformChoice;
use crate::operations::{self, ForeignLayers, LayerBlobs, Progress, PullOptions, Pulled, Trust};
use crate::progress::size_text;
use crate::report;
use crate::store::Store;
use crate::trust::PolicyPaths;

#[derive(Serialize)]
struct Answer<'a> {
    reference: &'a str,
    resolved: &'a Digest,
    manifest: &'a Digest,
    config: &'a Digest,
    platform: &'a str,
    chain_ids: &'a [Digest],
    fetched_layers: usize,
    transfer_bytes: u64,
    content_bytes: u64,
}

/// Pulls and prints what was pulled: its digest alone if it is to be quiet.
pub(crate) fn pull(context: &Context, args: &PullArgs) -> anyhow::Result<()> {
    let quiet = args.quiet || args.format == Format::Json;
    let progress = context.progress(args.quiet);
    let store = context.store(&progress)?;
    let pulled = pull_quietly(context, &store, args, &progress)?;
    drop(progress);
    let text = match (args.format, quiet) {
        (Format::Json, _) => report::json(&answer(&pulled))?,
        (Format::Text, true) => format!("{}\n", pulled.image.manifest),
        (Format::Text, false) => summary(&pulled),
    };
    Ok(report::print(&text)?)
}

/// Pulls without a word on standard output.
pub(crate) fn pull_quietly(
    context: &Context,
    store: &Store,
    args: &PullArgs,
    progress: &dyn Progress,
) -> anyhow::Result<Pulled> {
    let reference = context.qualify(&args.reference)?;
    if let Some(digest) = reference.bare_digest() {
        bail!("pull {digest}: name the repository that has it: NAME@{digest}");
    }
    let given = super::login::given(reference.registry(), args.creds.as_deref())?;
    let options = PullOptions {
        reference,
        platform: PlatformChoice::new(args.platform.clone()),
        budgets: args.budgets.budgets(),
        trust: Trust {
            keys: args.verify_key.clone(),
            policy: (args.policy.clone()).map_or(PolicyPaths::Default, PolicyPaths::Only),
        },
        blobs: if args.keep_blobs {
            LayerBlobs::Kept
        } else {
            LayerBlobs::Streamed
        },
        foreign_layers: if args.allow_foreign_layers {
            ForeignLayers::Allowed
        } else {
            ForeignLayers::Refused
        },
    };
    operations::pull(store, &context.client(given)?, &options, progress)
}

fn summary(pulled: &Pulled) -> String {
    let image = &pulled.image;
    let count = match image.layers.len() {
        1 => "1 layer".to_owned(),
        count => format!("{count} layers"),
    };
    let layers = match (image.layers.len(), pulled.fetched_layers) {
        (0, _) => count,
        (_, 0) => format!("{count}, nothing new"),
        (all, fetched) if all == fetched => count,
        (_, fetched) => format!("{count}, {fetched} of them new"),
    };
    let size = size_text(image.transfer_bytes);
    format!(
        "{}\n{}  {}  {layers}  {size}\n",
        pulled.reference, image.manifest, image.platform
    )
}

fn answer(pulled: &Pulled) -> Answer<'_> {
    Answer {
        reference: &pulled.reference,
        resolved: &pulled.resolved,
        manifest: &pulled.image.manifest,
        config: &pulled.image.config,
        platform: &pulled.image.platform,
        chain_ids: &pulled.image.layers,
        fetched_layers: pulled.fetched_layers,
        transfer_bytes: pulled.image.transfer_bytes,
        content_bytes: pulled.image.content_bytes,
    }
}
