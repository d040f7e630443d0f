//! The command line: runc's, word for word.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::commands::{create, delete, features, kill, list, run, spec, start, state};
use crate::logging::Format;

/// What `--version` prints after the program's name.
const VERSION: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\ncommit: unknown\nspec: 1.3.0"
);

/// Runs containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "gocker-runc", version = VERSION, disable_version_flag = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Print the version.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    /// Log more.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) debug: bool,
    /// Append messages to this file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// The log file's form.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Where containers' states are kept; one that is lost at a reboot.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Let systemd make the cgroups.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) systemd_cgroup: bool,
    /// Ignore cgroup permission errors.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) rootless: Rootless,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// As people read.
    Text,
    /// As engines read.
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// `--rootless`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rootless {
    /// As if the caller were not root.
    True,
    /// As if the caller were root.
    False,
    /// As the caller is.
    Auto,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container that waits to be started
    Create(create::Args),
    /// Delete a container
    Delete(delete::Args),
    /// Print what this runtime serves, as JSON
    Features(features::Args),
    /// Send a signal to a container's process
    Kill(kill::Args),
    /// List the containers
    List(list::Args),
    /// Make a container and start it
    Run(run::Args),
    /// Write a config.json to begin with
    Spec(spec::Args),
    /// Start a container that was made
    Start(start::Args),
    /// Print a container's state, as JSON
    State(state::Args),
}

/// Long flags that clients send with one dash: Go's flag packages take both.
const LONG_FLAGS: &[&str] = &[
    "all",
    "bundle",
    "console-socket",
    "debug",
    "detach",
    "force",
    "format",
    "help",
    "keep",
    "log",
    "log-format",
    "no-new-keyring",
    "no-pivot",
    "no-subreaper",
    "pid-file",
    "pidfd-socket",
    "preserve-fds",
    "quiet",
    "root",
    "rootless",
    "systemd-cgroup",
    "version",
];

/// Turns `-no-pivot` into `--no-pivot`, up to a `--`.
pub(crate) fn normalize(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut flags_end = false;
    args.map(|arg| {
        flags_end |= arg == "--";
        if flags_end { arg } else { normalize_one(arg) }
    })
    .collect()
}

fn normalize_one(arg: OsString) -> OsString {
    let bytes = arg.as_bytes();
    let Some(name) = bytes.strip_prefix(b"-").filter(|rest| rest.len() > 1) else {
        return arg;
    };
    let name = name.split(|byte| *byte == b'=').next().unwrap_or_default();
    if !LONG_FLAGS
        .iter()
        .any(|flag| OsStr::new(flag).as_bytes() == name)
    {
        return arg;
    }
    OsString::from_vec([b"-", bytes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_long_flag_may_have_one_dash() {
        let command = Cli::command();
        let all = std::iter::once(&command).chain(command.get_subcommands());
        for flag in all
            .flat_map(clap::Command::get_arguments)
            .filter_map(clap::Arg::get_long)
        {
            assert!(LONG_FLAGS.contains(&flag), "{flag}");
        }
    }

    #[test]
    fn one_dash_becomes_two() {
        let cases = [
            ("-no-pivot", "--no-pivot"),
            ("-log=x", "--log=x"),
            ("--log", "--log"),
            ("-d", "-d"),
            ("-unknown", "-unknown"),
            ("-", "-"),
            ("web", "web"),
        ];
        for (arg, expected) in cases {
            assert_eq!(normalize_one(arg.into()), expected);
        }
    }

    #[test]
    fn options_are_taken_after_the_id() {
        let args = [
            "gocker-runc",
            "--root",
            "/r",
            "create",
            "web",
            "--bundle",
            "/b",
            "-no-pivot",
        ];
        let args = normalize(args.iter().map(OsString::from));
        let cli = Cli::try_parse_from(args).expect("parses");
        let Command::Create(args) = cli.command else {
            panic!("not create")
        };
        assert_eq!(args.bundle, PathBuf::from("/b"));
        assert!(args.no_pivot);
    }
}
