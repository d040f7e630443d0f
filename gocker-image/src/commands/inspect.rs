//! `inspect`: all that is known of an image, as JSON.

use anyhow::Context as _;

use super::Context;
use crate::cli::InspectArgs;
use crate::operations::{self, NotPulled};
use crate::report;

/// Prints the image's record, manifest and config.
pub(crate) fn inspect(context: &Context, args: &InspectArgs) -> anyhow::Result<()> {
    let Some(store) = context.find_store()? else {
        let name = args.reference.familiar();
        return Err(NotPulled(name.clone())).with_context(|| format!("inspect {name:?}"));
    };
    let inspection = operations::inspect(&store, &context.qualify(&args.reference)?)?;
    Ok(report::print(&format!(
        "{}\n",
        serde_json::to_string_pretty(&inspection)?
    ))?)
}
