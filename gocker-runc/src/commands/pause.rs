//! `pause ID`

use std::path::Path;
use std::process::ExitCode;

/// Arguments of `pause`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Freezes the container.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    crate::operations::pause::pause(root, &args.id)?;
    Ok(ExitCode::SUCCESS)
}
