//! `load`: images from an archive or a directory.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{BudgetArgs, Context};
use crate::cli::Format;
use crate::digest::Digest;
use crate::image::{Platform, PlatformChoice};
use crate::operations::{self, LayerBlobs, LoadFrom, LoadOptions, Loaded, Progress as _};
use crate::reference::Reference;
use crate::report;
use crate::store::Taking;
use crate::trust::PolicyPaths;

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// The archive (compressed or not) or directory, of OCI's or Docker's form; "-" is standard
    /// input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Call the image so, instead of by the names that it claims; for an archive of one image
    #[arg(short, long, value_name = "NAME")]
    tag: Option<Reference>,
    /// Take names from other images that have them
    #[arg(long)]
    replace: bool,
    /// Do not keep the layers as they lie in the archive; the image cannot be pushed or saved then
    #[arg(long)]
    no_keep_blobs: bool,
    /// The platform, instead of this machine's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// The policy.json, instead of the user's or the system's
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    budgets: BudgetArgs,
    /// Show no progress, print only digests
    #[arg(short, long)]
    quiet: bool,
    /// How the result is written; progress goes to standard error
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Answer<'a> {
    references: &'a [String],
    refused_references: &'a [String],
    manifest: &'a Digest,
    config: &'a Digest,
    platform: &'a str,
}

/// Loads, and prints the names and digests of what was loaded.
pub(crate) fn load(context: &Context, args: &LoadArgs) -> anyhow::Result<()> {
    let from = if args.input != Path::new("-") {
        LoadFrom::Path(args.input.clone())
    } else if io::stdin().is_terminal() {
        bail!("load: standard input is a terminal: name a file by --input, or a pipe");
    } else {
        LoadFrom::Stream(Box::new(io::stdin()))
    };
    if let Some(name) = args.tag.as_ref().filter(|name| name.digest().is_some()) {
        bail!(
            "load: {:?} has a digest: an image has no other than its own",
            name.familiar()
        );
    }
    let options = LoadOptions {
        platform: PlatformChoice::new(args.platform.clone()),
        budgets: args.budgets.budgets(),
        policy: (args.policy.clone()).map_or(PolicyPaths::Default, PolicyPaths::Only),
        blobs: if args.no_keep_blobs {
            LayerBlobs::Streamed
        } else {
            LayerBlobs::Kept
        },
        name: args.tag.clone(),
        taking: if args.replace {
            Taking::FromOthers
        } else {
            Taking::IfFree
        },
    };
    let progress = context.progress(args.quiet);
    let store = context.store(&progress)?;
    let loaded = operations::load(&store, from, &options, &progress)?;
    let names = store.references()?;
    let digests = loaded.iter().map(|loaded| &loaded.image.manifest);
    for digest in digests.filter(|digest| names.iter().all(|name| name.manifest != **digest)) {
        progress.note(&format!(
            "image {digest} has no name: give it one by tag {digest} NAME"
        ));
    }
    drop(progress);
    let text = match (args.format, args.quiet) {
        (Format::Json, _) => {
            let answers: Vec<_> = loaded.iter().map(answer).collect();
            report::json(&answers)?
        }
        (Format::Text, true) => loaded
            .iter()
            .map(|loaded| format!("{}\n", loaded.image.manifest))
            .collect(),
        (Format::Text, false) => loaded.iter().map(summary).collect(),
    };
    Ok(report::print(&text)?)
}

fn summary(loaded: &Loaded) -> String {
    let names: String = loaded
        .references
        .iter()
        .map(|name| format!("{name}\n"))
        .collect();
    format!(
        "{names}{}  {}\n",
        loaded.image.manifest, loaded.image.platform
    )
}

fn answer(loaded: &Loaded) -> Answer<'_> {
    Answer {
        references: &loaded.references,
        refused_references: &loaded.refused,
        manifest: &loaded.image.manifest,
        config: &loaded.image.config,
        platform: &loaded.image.platform,
    }
}
