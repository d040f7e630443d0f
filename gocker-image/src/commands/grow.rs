//! `grow`: a larger file for a loop-backed store.

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::Context;
use crate::cli::{Format, parse_size};
use crate::operations;
use crate::progress::size_text;
use crate::report;

#[derive(Args, Debug)]
pub(crate) struct GrowArgs {
    /// What the store may take in all, in bytes or with k, m, g, t behind
    #[arg(value_name = "SIZE", value_parser = parse_size)]
    pub(crate) size: u64,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Serialize)]
struct Answer {
    before_bytes: u64,
    after_bytes: u64,
}

/// Lets the store grow, while containers run in it.
pub(crate) fn grow(context: &Context, args: &GrowArgs) -> anyhow::Result<()> {
    let Some(store) = context.find_store()? else {
        bail!("grow: there is no store yet; --loop-size says how large one is made");
    };
    let (before_bytes, after_bytes) = (operations::grow(&store, args.size)?, args.size);
    let text = match args.format {
        Format::Text => format!(
            "{} -> {}\n",
            size_text(before_bytes),
            size_text(after_bytes)
        ),
        Format::Json => {
            let answer = Answer {
                before_bytes,
                after_bytes,
            };
            report::json(&answer)?
        }
    };
    Ok(report::print(&text)?)
}
