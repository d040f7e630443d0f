//! `tag`: gives an image one more name.

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::Context;
use crate::cli::Format;
use crate::digest::Digest;
use crate::operations::{self, NotPulled};
use crate::reference::Reference;
use crate::report;

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

/// Gives the names, and prints them if that is asked for.
pub(crate) fn tag(context: &Context, args: &TagArgs) -> anyhow::Result<()> {
    let Some(store) = context.find_store()? else {
        let name = args.reference.familiar();
        return Err(NotPulled(name.clone())).with_context(|| format!("tag {name:?}"));
    };
    let from = context.qualify(&args.reference)?;
    let mut answers = Vec::new();
    for name in &args.names {
        let record = operations::tag(&store, &from, name)?;
        answers.push(Answer {
            reference: record.reference,
            manifest: record.manifest,
        });
    }
    if args.format == Format::Json {
        report::print(&format!("{}\n", serde_json::to_string_pretty(&answers)?))?;
    }
    Ok(())
}
