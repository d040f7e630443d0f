//! `state ID`

use std::path::Path;
use std::process::ExitCode;

use crate::operations::list::one;

/// Arguments of `state`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Prints the container's state.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let entry = one(root, &args.id)?;
    let mut text = serde_json::to_vec_pretty(&entry.state.report(entry.status))?;
    text.push(b'\n');
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
