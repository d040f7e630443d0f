//! `features`

use std::process::ExitCode;

/// Arguments of `features`: none.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints what is served.
///
/// # Errors
/// stdout's.
pub(crate) fn run(_: &Args) -> anyhow::Result<ExitCode> {
    let mut text = serde_json::to_vec_pretty(&crate::operations::features::document())?;
    text.push(b'\n');
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
