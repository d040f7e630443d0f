//! `start ID`

use std::path::Path;
use std::process::ExitCode;

/// Arguments of `start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Starts the container.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    crate::operations::start::start(root, &args.id, super::notify_socket().as_ref())?;
    Ok(ExitCode::SUCCESS)
}
