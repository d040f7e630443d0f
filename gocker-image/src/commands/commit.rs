//! `commit`: makes an image of what a container has changed.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Context;
use crate::cli::Format;
use crate::digest::Digest;
use crate::operations::{self, CommitOptions, Committed, ConfigChange, Squash};
use crate::reference::Reference;
use crate::report;
use crate::unpack::Compression;

/// The variable that says when what is built was built, as all tools for reproducible builds
/// understand it.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

#[derive(Args, Debug)]
pub(crate) struct CommitArgs {
    /// The bundle: its directory, or the name that it was made by
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// The new image's name
    #[arg(value_name = "NAME")]
    name: Reference,
    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// What was done, for the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Change the new image's config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER,
    /// VOLUME or WORKDIR, with a value as a Dockerfile has it
    #[arg(short, long, value_name = "FIELD=VALUE")]
    change: Vec<ConfigChange>,
    /// How the layer is compressed
    #[arg(long, value_enum, default_value_t)]
    compression: CompressionArg,
    /// Make one layer of everything
    #[arg(short, long)]
    squash: bool,
    /// When the image was made, in seconds since 1970; files of a later time get this one. The
    /// variable SOURCE_DATE_EPOCH says the same. Else the time is the present one
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    /// Print only the image's digest
    #[arg(short, long)]
    quiet: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The kinds of compression, by the names that they have on the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CompressionArg {
    #[default]
    Gzip,
    Zstd,
    None,
}

#[derive(Serialize)]
struct Answer<'a> {
    reference: &'a str,
    manifest: &'a Digest,
    config: &'a Digest,
    chain_ids: &'a [Digest],
    layer: Option<&'a Digest>,
}

/// Makes the image and prints its digest.
pub(crate) fn commit(context: &Context, args: CommitArgs) -> anyhow::Result<()> {
    let options = CommitOptions {
        name: context.qualify(&args.name)?,
        author: args.author,
        message: args.message,
        changes: args.change,
        compression: match args.compression {
            CompressionArg::Gzip => Compression::Gzip,
            CompressionArg::Zstd => Compression::Zstd,
            CompressionArg::None => Compression::None,
        },
        squash: if args.squash { Squash::Yes } else { Squash::No },
        timestamp: match args.timestamp {
            Some(seconds) => Some(seconds),
            None => source_date_epoch()?,
        },
        bundle: args.bundle,
    };
    let store = context.store_with_bundle("commit", &options.bundle)?;
    let progress = context.progress(args.quiet || args.format == Format::Json);
    let committed = operations::commit(&store, &options, &progress)?;
    drop(progress);
    Ok(report::print(&text(args.format, &committed)?)?)
}

fn source_date_epoch() -> anyhow::Result<Option<i64>> {
    let Some(value) = std::env::var_os(SOURCE_DATE_EPOCH).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let seconds = value.to_str().and_then(|text| text.parse().ok());
    let Some(seconds) = seconds else {
        anyhow::bail!("{SOURCE_DATE_EPOCH}: {value:?} is not a number of seconds");
    };
    Ok(Some(seconds))
}

fn text(format: Format, committed: &Committed) -> anyhow::Result<String> {
    if format == Format::Text {
        return Ok(format!("{}\n", committed.image.manifest));
    }
    let answer = Answer {
        reference: &committed.reference,
        manifest: &committed.image.manifest,
        config: &committed.image.config,
        chain_ids: &committed.image.layers,
        layer: committed.layer.as_ref(),
    };
    Ok(report::json(&answer)?)
}
