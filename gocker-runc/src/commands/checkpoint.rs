//! `checkpoint ID`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;

use crate::operations::checkpoint::checkpoint;

/// Arguments of `checkpoint`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    images: Images,
    /// Images of an earlier checkpoint, which this one only completes
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Leave the container running
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    leave_running: bool,
    /// Leave out what is on its way in TCP connections
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    tcp_skip_in_flight: bool,
    /// Give unlinked files a name again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    link_remap: bool,
    /// The descriptor that gets a zero byte when the server of lazy pages is ready
    #[arg(long, value_name = "FD", allow_hyphen_values = true)]
    status_fd: Option<i32>,
    /// Send memory to a page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Save memory alone and leave the container running
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pre_dump: bool,
}

/// Arguments that `checkpoint` and `restore` have in common.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Images {
    /// The directory of the images [default: checkpoint]
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// The directory for logs and other work files
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    tcp_established: bool,
    /// Allow Unix sockets whose other end is outside
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    ext_unix_sk: bool,
    /// Allow jobs of a shell that is outside
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    shell_job: bool,
    /// Take file locks along
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    file_locks: bool,
    /// What becomes of the cgroups
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<CgroupsMode>,
    /// A namespace of which nothing is kept but that it is there
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// Move memory only when it is asked for
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    lazy_pages: bool,
    /// Punch out what a later image has anew
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    auto_dedup: bool,
}

/// `--manage-cgroups-mode`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum CgroupsMode {
    /// Restore the properties of those that are made anew.
    Soft,
    /// Restore the properties of all.
    Full,
    /// Make all anew, and fail where one is there.
    Strict,
    /// Leave them alone.
    Ignore,
}

/// Saves the container's processes.
///
/// # Errors
/// The operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    checkpoint(root, &args.id)?;
    Ok(ExitCode::SUCCESS)
}
