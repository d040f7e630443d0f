//! `restore ID`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::checkpoint::Images;
use crate::init::plan::Choices;
use crate::operations::activation::Activation;
use crate::operations::create::{Globals, Mode, Request};
use crate::operations::restore::{Saved, restore};
use crate::operations::run::Afterwards;

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    images: Images,
    /// The socket that gets the terminal's descriptor
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Leave once the process runs
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    detach: bool,
    /// The file that gets the process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Leave the container's orphans to somebody else
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    no_subreaper: bool,
    /// Move the root over / instead of pivoting, for an initramfs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    no_pivot: bool,
    /// The security label of the process, instead of the one it had
    #[arg(long, value_name = "TYPE:LABEL")]
    lsm_profile: Option<String>,
    /// The security label of the mounts, instead of the one they had
    #[arg(long, value_name = "LABEL")]
    lsm_mount_context: Option<String>,
}

/// Brings the processes of a checkpoint back.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args, globals: Globals) -> anyhow::Result<ExitCode> {
    let mode = if args.detach {
        Mode::Detached
    } else {
        Mode::Foreground
    };
    let request = Request {
        root,
        id: &args.id,
        bundle: &args.bundle,
        console_socket: args.console_socket.as_deref(),
        pid_file: args.pid_file.as_deref(),
        pidfd_socket: None,
        choices: Choices {
            no_pivot: args.no_pivot,
            ..Choices::default()
        },
        mode,
        globals,
        activation: Activation {
            notify_socket: super::notify_socket(),
            variables: Vec::new(),
        },
    };
    let saved = Saved {
        images: args.images.request(),
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
    };
    let afterwards = Afterwards {
        keep: false,
        no_subreaper: args.no_subreaper,
    };
    restore(&request, &saved, afterwards).map(ExitCode::from)
}
