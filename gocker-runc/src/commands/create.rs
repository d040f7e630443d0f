//! `create ID`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::preserved;
use crate::cli::Cli;
use crate::init::plan::Choices;
use crate::operations::activation::Activation;
use crate::operations::create::{Driver, Globals, Mode, Request, create};

/// Arguments of `create`, which `run` has, too.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// The socket that gets the terminal's descriptor
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// The socket that gets the process's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// The file that gets the process id
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Move the root over / instead of pivoting, for an initramfs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) no_new_keyring: bool,
    /// Pass this many descriptors from 3 on to the process
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
}

impl From<&Cli> for Globals {
    fn from(cli: &Cli) -> Self {
        let driver = if cli.systemd_cgroup {
            Driver::Systemd
        } else {
            Driver::Files
        };
        Self {
            rootless: cli.rootless.into(),
            driver,
        }
    }
}

impl Args {
    /// What the operation is asked for.
    pub(crate) fn request<'a>(
        &'a self,
        root: &'a Path,
        mode: Mode,
        globals: Globals,
    ) -> Request<'a> {
        let listened = preserved::listened();
        Request {
            root,
            id: &self.id,
            bundle: &self.bundle,
            console_socket: self.console_socket.as_deref(),
            pid_file: self.pid_file.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
            choices: Choices {
                no_pivot: self.no_pivot,
                no_new_keyring: self.no_new_keyring,
                preserve_fds: listened.saturating_add(self.preserve_fds),
            },
            mode,
            globals,
            activation: Activation {
                notify_socket: super::notify_socket(),
                variables: preserved::variables(listened),
            },
        }
    }
}

/// Makes the container.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args, globals: Globals) -> anyhow::Result<ExitCode> {
    create(&args.request(root, Mode::Create, globals))?;
    Ok(ExitCode::SUCCESS)
}
