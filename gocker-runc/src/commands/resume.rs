//! `resume ID`

use std::path::Path;
use std::process::ExitCode;

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Lets the container go on.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    crate::operations::pause::resume(root, &args.id)?;
    Ok(ExitCode::SUCCESS)
}
