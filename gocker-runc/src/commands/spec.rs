//! `spec`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use bundles::{Bundle, defaults};
use nix::unistd::{getegid, geteuid};

/// Arguments of `spec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory to write config.json to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For a user who is not root
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    rootless: bool,
}

/// Writes the default configuration, over none that is there.
///
/// # Errors
/// There is a config.json, or it cannot be written.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path: &Path = &args.bundle.join(Bundle::CONFIG_JSON);
    ensure!(!path.exists(), "{path:?} exists: remove it first");
    let spec = if args.rootless {
        defaults::rootless_spec(geteuid().as_raw(), getegid().as_raw())
    } else {
        defaults::spec()
    };
    Bundle::write(&args.bundle, &spec)?;
    Ok(ExitCode::SUCCESS)
}
