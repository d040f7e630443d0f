//! `fsck`: whether the store is whole.
//!
//! ```text
//! exit status   0 nothing is damaged   1 the store could not be looked through
//!               3 what was damaged is repaired   4 damage is left
//! ```

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Context;
use crate::cli::Format;
use crate::operations;
use crate::report;
use crate::store::{Depth, Finding, FsckOptions, FsckReport, Outcome, Repair};

/// All that was damaged is gone.
const REPAIRED: u8 = 3;
/// Something is damaged.
const DAMAGED: u8 = 4;

#[derive(Args, Debug)]
#[command(after_help = "\
Exit status:
  0  nothing is damaged
  1  the store could not be looked through
  2  the command line is wrong
  3  all that was damaged is repaired
  4  damage is left")]
pub(crate) struct FsckArgs {
    /// Remove what is damaged and what killed commands left, so that the next pull brings it
    /// again. What another command uses is left alone, and so are bundles that hold data
    #[arg(long)]
    pub(crate) repair: bool,
    /// Remove damaged bundles too, with all that was written in them
    #[arg(long, requires = "repair")]
    pub(crate) remove_bundles: bool,
    /// Read every file of every layer, so that the file system finds what its disk has spoiled
    #[arg(long)]
    pub(crate) deep: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Serialize)]
struct Answer<'a> {
    damaged: usize,
    left: usize,
    #[serde(flatten)]
    report: &'a FsckReport,
}

/// Looks through the store, if there is one.
pub(crate) fn fsck(context: &Context, args: &FsckArgs) -> anyhow::Result<ExitCode> {
    let options = FsckOptions {
        repair: match (args.repair, args.remove_bundles) {
            (false, _) => Repair::No,
            (true, false) => Repair::Yes,
            (true, true) => Repair::WithBundles,
        },
        depth: if args.deep {
            Depth::Files
        } else {
            Depth::Records
        },
    };
    let report = match context.find_store()? {
        Some(store) => operations::fsck(&store, options)?,
        None => FsckReport::default(),
    };
    let (damaged, left) = (report.damage().count(), report.left());
    let text = match args.format {
        Format::Json => {
            let answer = Answer {
                damaged,
                left,
                report: &report,
            };
            report::json(&answer)?
        }
        Format::Text => text(&report),
    };
    report::print(&text)?;
    Ok(match (damaged, left) {
        (0, _) => ExitCode::SUCCESS,
        (_, 0) => ExitCode::from(REPAIRED),
        _ => ExitCode::from(DAMAGED),
    })
}

/// A line for each finding, and one for all.
fn text(report: &FsckReport) -> String {
    let mut text: String = report.findings.iter().map(line).collect();
    let checked = &report.checked;
    text.push_str(&format!(
        "{} blobs, {} layers, {} images, {} names, {} bundles: {} damaged, {} repaired\n",
        checked.blobs,
        checked.layers,
        checked.images,
        checked.references,
        checked.bundles,
        report.damage().count(),
        report.damage().count() - report.left(),
    ));
    text
}

fn line(finding: &Finding) -> String {
    let outcome = match finding.outcome {
        Outcome::Found => finding.remedy.as_str(),
        Outcome::Repaired => "removed",
        Outcome::InUse => "in use by another command, so it is left",
    };
    let (path, problem) = (finding.path.display(), &finding.problem);
    let line = format!("{path}: {problem}: {outcome}");
    // the names of strangers may hold anything
    let clean: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("{clean}\n")
}
