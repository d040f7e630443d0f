//! `tag`: gives an image one more name.

use clap::Args;
use serde::Serialize;

use super::Context;
use super::in_turn::in_turn;
use crate::cli::Format;
use crate::digest::Digest;
use crate::operations;
use crate::reference::Reference;

#[derive(Args, Debug)]
pub(crate) struct TagArgs {
    /// The image: one of its names, or its digest
    #[arg(value_name = "REF")]
    reference: Reference,
    /// The names that it gets; one that another image has is taken from it
    #[arg(value_name = "NAME", required = true)]
    names: Vec<Reference>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Answer {
    reference: String,
    manifest: Digest,
}

/// Gives the names, and prints them if that is asked for, also those before one that fails.
pub(crate) fn tag(context: &Context, args: &TagArgs) -> anyhow::Result<()> {
    let store = context.store_with_image("tag", &args.reference)?;
    let from = context.qualify(&args.reference)?;
    let tag = |name: &Reference| {
        let record = operations::tag(&store, &from, name)?;
        Ok(Answer {
            reference: record.reference,
            manifest: record.manifest,
        })
    };
    in_turn(args.format, &args.names, tag, |_| String::new())
}
