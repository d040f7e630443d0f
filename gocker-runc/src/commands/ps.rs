//! `ps ID [PS OPTIONS]`

use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use clap::ValueEnum;
use nix::unistd::Pid;

use crate::operations::ps::{processes, table};

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// The container's id, and options for ps(1)
    #[arg(
        value_names = ["ID", "PS_OPTION"],
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    id_and_options: Vec<String>,
}

/// How `ps` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As ps(1) does.
    Table,
    /// The ids alone.
    Json,
}

impl Args {
    /// The container's id.
    pub(crate) fn id(&self) -> &str {
        self.id_and_options.first().map_or("", String::as_str)
    }
}

/// Prints the container's processes.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    // The first word that is no known flag is the id.
    ensure!(!args.id().starts_with('-'), "unknown flag {:?}", args.id());
    let processes = processes(root, args.id())?;
    let text = match args.format {
        Format::Table => table(&processes, args.id_and_options.get(1..).unwrap_or_default())?,
        Format::Json => json(&processes)?,
    };
    super::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// An array; `null` where there is none, as runc prints it.
fn json(processes: &[Pid]) -> anyhow::Result<String> {
    let ids: Vec<i32> = processes.iter().map(|pid| pid.as_raw()).collect();
    let ids = if ids.is_empty() { None } else { Some(ids) };
    Ok(format!("{}\n", serde_json::to_string(&ids)?))
}
