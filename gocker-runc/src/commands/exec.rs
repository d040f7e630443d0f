//! `exec ID COMMAND`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{bail, ensure};
use oci_spec::runtime::Capability;

use crate::operations::create::Mode;
use crate::operations::exec::{Request, Source, exec};
use crate::operations::exec_process::Changes;
use crate::operations::exec_user::{UserFlag, parse_id};

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The socket that gets the terminal's descriptor
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// The socket that gets the process's pidfd
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// The working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// A variable for the environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    tty: bool,
    /// The user and group, as numbers or as the container names them
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A further group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<String>,
    /// Take the process from this file; no command is given then
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Leave once the process runs
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    detach: bool,
    /// The file that gets the process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// The AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Let execve(2) grant nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_new_privs: Option<bool>,
    /// A further capability
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Pass this many descriptors from 3 on to the process
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// A cgroup beneath the container's, for all controllers or for some
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    cgroup: Vec<String>,
    /// Do it in a paused container, too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    ignore_paused: bool,
    /// The container's id and, without --process, the command
    #[arg(
        value_names = ["ID", "COMMAND"],
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) id_and_command: Vec<String>,
}

impl Args {
    /// The container's id.
    pub(crate) fn id(&self) -> &str {
        self.id_and_command.first().map_or("", String::as_str)
    }

    /// A flag that describes the process, and would go unheard beside `--process`.
    fn describing_flag(&self) -> Option<&'static str> {
        let given = [
            ("--cwd", self.cwd.is_some()),
            ("--env", !self.env.is_empty()),
            ("--user", self.user.is_some()),
            ("--additional-gids", !self.additional_gids.is_empty()),
            ("--process-label", self.process_label.is_some()),
            ("--apparmor", self.apparmor.is_some()),
            ("--no-new-privs", self.no_new_privs.is_some()),
            ("--cap", !self.cap.is_empty()),
        ];
        given
            .iter()
            .find(|(_, given)| *given)
            .map(|(flag, _)| *flag)
    }

    /// What follows the id, and a `--` after it.
    fn command(&self) -> &[String] {
        match self.id_and_command.get(1..).unwrap_or_default() {
            [dashes, command @ ..] if dashes == "--" => command,
            command => command,
        }
    }
}

/// Runs the process; in the foreground the exit status is the process's.
///
/// # Errors
/// A flag's value, and the operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    // The first word that is no known flag is the id.
    ensure!(!args.id().starts_with('-'), "unknown flag {:?}", args.id());
    let source = match &args.process {
        Some(file) => {
            ensure!(
                args.command().is_empty(),
                "a command and --process are two ways to say the same: give one"
            );
            if let Some(flag) = args.describing_flag() {
                bail!("{flag} says nothing beside --process, whose file has the whole process");
            }
            Source::File(file)
        }
        None => {
            ensure!(
                !args.command().is_empty(),
                "no command is given: add it after the id, or give --process"
            );
            Source::Flags(Box::new(changes(args)?))
        }
    };
    let request = Request {
        root,
        id: args.id(),
        source,
        terminal: args.tty,
        mode: if args.detach {
            Mode::Detached
        } else {
            Mode::Foreground
        },
        console_socket: args.console_socket.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        pid_file: args.pid_file.as_deref(),
        sub_cgroups: &args.cgroup,
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
    };
    exec(&request).map(ExitCode::from)
}

fn changes(args: &Args) -> anyhow::Result<Changes> {
    let gids = args.additional_gids.iter();
    let capabilities = args.cap.iter();
    Ok(Changes {
        args: args.command().to_vec(),
        env: args.env.clone(),
        cwd: args.cwd.clone().filter(|cwd| !cwd.is_empty()),
        user: args.user.as_deref().map(UserFlag::parse).transpose()?,
        additional_gids: gids
            .map(|gid| parse_id("--additional-gids", gid))
            .collect::<anyhow::Result<_>>()?,
        capabilities: capabilities
            .map(|name| parse_capability(name))
            .collect::<anyhow::Result<_>>()?,
        no_new_privileges: args.no_new_privs,
        terminal: args.tty,
        apparmor_profile: args.apparmor.clone(),
        selinux_label: args.process_label.clone(),
    })
}

fn parse_capability(name: &str) -> anyhow::Result<Capability> {
    let known = name.strip_prefix("CAP_").map(Capability::from_str);
    match known {
        Some(Ok(capability)) => Ok(capability),
        _ => bail!("--cap {name:?}: unknown capability"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        assert_eq!(
            parse_capability("CAP_SYS_ADMIN").expect("is known"),
            Capability::SysAdmin
        );
        for bad in ["SYS_ADMIN", "CAP_NOPE", "cap_kill", ""] {
            assert!(parse_capability(bad).is_err(), "{bad:?}");
        }
    }
}
