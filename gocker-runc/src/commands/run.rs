//! `run ID`

use std::path::Path;
use std::process::ExitCode;

use super::create;
use crate::operations::create::{Globals, Mode};
use crate::operations::run::{Afterwards, run as run_container};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    create: create::Args,
    /// Leave once the process runs
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    detach: bool,
    /// Keep the container when its process has ended
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    keep: bool,
    /// Leave the container's orphans to somebody else
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    no_subreaper: bool,
}

impl std::ops::Deref for Args {
    type Target = create::Args;

    fn deref(&self) -> &create::Args {
        &self.create
    }
}

/// Makes and starts the container; in the foreground the exit status is the process's.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args, globals: Globals) -> anyhow::Result<ExitCode> {
    let mode = if args.detach {
        Mode::Detached
    } else {
        Mode::Foreground
    };
    let afterwards = Afterwards {
        keep: args.keep,
        no_subreaper: args.no_subreaper,
    };
    run_container(&args.create.request(root, mode, globals), afterwards).map(ExitCode::from)
}
