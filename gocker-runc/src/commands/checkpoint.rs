//! `checkpoint ID`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;

use crate::criu::rpc;
use crate::operations::checkpoint::{Request, checkpoint};
use crate::operations::images;

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
    /// The directory of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
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
    #[arg(long, value_name = "MODE", default_value = "soft")]
    manage_cgroups_mode: CgroupsMode,
    /// A namespace of which nothing is kept but that it is there
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<EmptyNamespace>,
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

/// `--empty-ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EmptyNamespace {
    /// The network's: whoever restores sets it up.
    Network,
}

impl From<CgroupsMode> for rpc::CgroupsMode {
    fn from(mode: CgroupsMode) -> Self {
        match mode {
            CgroupsMode::Soft => Self::Soft,
            CgroupsMode::Full => Self::Full,
            CgroupsMode::Strict => Self::Strict,
            CgroupsMode::Ignore => Self::Ignore,
        }
    }
}

impl Images {
    /// What the operation is asked for.
    pub(super) fn request(&self) -> images::Images {
        images::Images {
            path: self.image_path.clone(),
            work_path: self.work_path.clone(),
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            cgroups: self.manage_cgroups_mode.into(),
            empty_network: self.empty_ns.contains(&EmptyNamespace::Network),
            lazy_pages: self.lazy_pages,
            auto_dedup: self.auto_dedup,
        }
    }
}

/// Saves the container's processes.
///
/// # Errors
/// The operation's, or a page server that cannot be one.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let page_server = args.page_server.as_deref().map(parse_page_server);
    let request = Request {
        images: args.images.request(),
        parent_path: args.parent_path.clone(),
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        // runc's own way to say that there is none.
        status_fd: args.status_fd.filter(|fd| *fd != -1),
        page_server: page_server.transpose()?,
        pre_dump: args.pre_dump,
    };
    checkpoint(root, &args.id, &request)?;
    Ok(ExitCode::SUCCESS)
}

/// `ADDRESS:PORT`; the address may have colons itself.
fn parse_page_server(text: &str) -> anyhow::Result<(String, u16)> {
    let wrong = || format!("--page-server: {text:?} is not ADDRESS:PORT");
    let (address, port) = text.rsplit_once(':').with_context(wrong)?;
    let port = port.parse().with_context(wrong)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok((address.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers() {
        let parse = |text| parse_page_server(text).ok();
        assert_eq!(parse("1.2.3.4:5"), Some(("1.2.3.4".into(), 5)));
        assert_eq!(parse("[::1]:27"), Some(("::1".into(), 27)));
        for wrong in ["1.2.3.4", "host:", "host:99999", ":x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
