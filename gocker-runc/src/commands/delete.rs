//! `delete ID`

use std::path::Path;
use std::process::ExitCode;

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Kill the container first; a missing one is no error
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    force: bool,
}

/// Deletes the container.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    crate::operations::delete::delete(root, &args.id, args.force)?;
    Ok(ExitCode::SUCCESS)
}
