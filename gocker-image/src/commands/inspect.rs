//! `inspect`: all that is known of an image, as JSON.

use super::Context;
use crate::cli::{InspectArgs, JsonFormat};
use crate::operations;
use crate::report;

/// Prints the image's record, manifest and config.
pub(crate) fn inspect(context: &Context, args: &InspectArgs) -> anyhow::Result<()> {
    let store = context.store_with_image("inspect", &args.reference)?;
    let JsonFormat::Json = args.format;
    let inspection = operations::inspect(&store, &context.qualify(&args.reference)?)?;
    Ok(report::print(&report::json(&inspection)?)?)
}
