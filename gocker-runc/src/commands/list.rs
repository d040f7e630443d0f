//! `list`

use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::logging;
use crate::operations::list::{Entry, all};

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Print the ids alone
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    quiet: bool,
}

/// How `list` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints all containers.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let (entries, problems) = all(root)?;
    for problem in problems {
        logging::warn(&problem);
    }
    let text = if args.quiet {
        entries
            .iter()
            .map(|entry| format!("{}\n", entry.state.id))
            .collect()
    } else if args.format == Format::Json {
        json(&entries)?
    } else {
        table(&entries)
    };
    super::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// An array; `null` where there is none, as runc prints it.
fn json(entries: &[Entry]) -> anyhow::Result<String> {
    let reports: Vec<_> = entries
        .iter()
        .map(|entry| entry.state.report(entry.status))
        .collect();
    let reports = if reports.is_empty() {
        None
    } else {
        Some(reports)
    };
    Ok(serde_json::to_string(&reports)?)
}

/// Columns are at least 12 wide, with 3 spaces between.
fn table(entries: &[Entry]) -> String {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let rows: Vec<[String; 6]> = std::iter::once(heading)
        .chain(entries.iter().map(|Entry { state, status }| {
            let report = state.report(*status);
            [
                state.id.clone(),
                report.pid.to_string(),
                status.to_string(),
                state.bundle.display().to_string(),
                state.created.clone(),
                state.owner.clone(),
            ]
        }))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count() + 3)
            .max()
            .unwrap_or_default()
            .max(12)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells
            .chain([row[5].clone(), "\n".into()])
            .collect::<String>()
    };
    rows.iter().map(line).collect()
}
