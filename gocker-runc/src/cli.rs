//! The command line: runc's, word for word.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::commands::{
    checkpoint, create, delete, events, exec, features, kill, list, pause, ps, restore, resume,
    run, spec, start, state, update,
};
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

impl From<Rootless> for crate::rootless::Rootless {
    fn from(rootless: Rootless) -> Self {
        match rootless {
            Rootless::True => Self::Yes,
            Rootless::False => Self::No,
            Rootless::Auto => Self::Auto,
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Save a container's processes, to be restored later
    Checkpoint(Box<checkpoint::Args>),
    /// Make a container that waits to be started
    Create(create::Args),
    /// Delete a container
    Delete(delete::Args),
    /// Print what a container uses, and when it runs out of memory
    Events(events::Args),
    /// Run a further process in a container
    Exec(exec::Args),
    /// Print what this runtime serves, as JSON
    Features(features::Args),
    /// Send a signal to a container's process
    Kill(kill::Args),
    /// List the containers
    List(list::Args),
    /// Stop all processes of a container
    Pause(pause::Args),
    /// Print the processes of a container
    Ps(ps::Args),
    /// Bring the processes of a checkpoint back
    Restore(Box<restore::Args>),
    /// Let a paused container go on
    Resume(resume::Args),
    /// Make a container and start it
    Run(run::Args),
    /// Write a config.json to begin with
    Spec(spec::Args),
    /// Start a container that was made
    Start(start::Args),
    /// Print a container's state, as JSON
    State(state::Args),
    /// Change the limits of a container
    Update(update::Args),
}

impl Command {
    /// The exit status of a failure that is not the process's own.
    pub(crate) fn failure(&self) -> ExitCode {
        match self {
            // Any other could be the process's.
            Self::Exec(_) => ExitCode::from(255),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Long flags that clients send with one dash: Go's flag packages take both.
const LONG_FLAGS: &[&str] = &[
    "additional-gids",
    "all",
    "apparmor",
    "auto-dedup",
    "blkio-weight",
    "bundle",
    "cap",
    "cgroup",
    "console-socket",
    "cpu-burst",
    "cpu-idle",
    "cpu-period",
    "cpu-quota",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpu-share",
    "cpuset-cpus",
    "cpuset-mems",
    "cwd",
    "debug",
    "detach",
    "empty-ns",
    "env",
    "ext-unix-sk",
    "file-locks",
    "force",
    "format",
    "help",
    "ignore-paused",
    "image-path",
    "interval",
    "keep",
    "kernel-memory",
    "kernel-memory-tcp",
    "l3-cache-schema",
    "lazy-pages",
    "leave-running",
    "link-remap",
    "log",
    "log-format",
    "lsm-mount-context",
    "lsm-profile",
    "manage-cgroups-mode",
    "mem-bw-schema",
    "memory",
    "memory-reservation",
    "memory-swap",
    "no-new-keyring",
    "no-new-privs",
    "no-pivot",
    "no-subreaper",
    "page-server",
    "parent-path",
    "pid-file",
    "pidfd-socket",
    "pids-limit",
    "pre-dump",
    "preserve-fds",
    "process",
    "process-label",
    "quiet",
    "resources",
    "root",
    "rootless",
    "shell-job",
    "stats",
    "status-fd",
    "systemd-cgroup",
    "tcp-established",
    "tcp-skip-in-flight",
    "tty",
    "user",
    "version",
    "work-path",
];

/// Flags that take the next argument for their value: the global ones, and those of commands
/// [`ENDING_AT_THE_ID`].
const FLAGS_WITH_VALUES: &[&str] = &[
    "additional-gids",
    "apparmor",
    "c",
    "cap",
    "cgroup",
    "console-socket",
    "cwd",
    "e",
    "env",
    "f",
    "format",
    "g",
    "log",
    "log-format",
    "p",
    "pid-file",
    "pidfd-socket",
    "preserve-fds",
    "process",
    "process-label",
    "root",
    "rootless",
    "u",
    "user",
];

/// Subcommands in which what follows the container's id is somebody else's.
const ENDING_AT_THE_ID: &[&str] = &["exec", "ps"];

/// Turns `-no-pivot` into `--no-pivot`, up to a `--` or, in some commands, up to the id.
pub(crate) fn normalize(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut flags_end = false;
    let mut is_value = true;
    // None before the subcommand.
    let mut ends_at_the_id = None;
    args.map(|arg| {
        // The program's own name is as little a flag as another's value is.
        if std::mem::take(&mut is_value) || flags_end {
            return arg;
        }
        let arg = normalize_one(arg);
        if arg.as_bytes().first() == Some(&b'-') && arg != "-" {
            flags_end = arg == "--";
            is_value = ends_at_the_id != Some(false) && takes_next(arg.as_bytes());
        } else if let Some(ends_here) = ends_at_the_id {
            flags_end = ends_here;
        } else {
            ends_at_the_id = Some(ENDING_AT_THE_ID.iter().any(|name| arg == *name));
        }
        arg
    })
    .collect()
}

/// Whether the flags in `arg`, `--long` or `-short`, take the next argument for their value.
fn takes_next(arg: &[u8]) -> bool {
    let takes = |name: &[u8]| FLAGS_WITH_VALUES.iter().any(|flag| flag.as_bytes() == name);
    match arg.strip_prefix(b"--") {
        Some(name) => takes(name),
        // In `-te` it is e's; in `-eA=1` e has one.
        None => {
            let value = arg.iter().skip(1).position(|letter| takes(&[*letter]));
            value.is_some_and(|index| index + 2 == arg.len())
        }
    }
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
    fn flags_with_values_are_known() {
        let command = Cli::command();
        let all = command
            .get_subcommands()
            .filter(|command| ENDING_AT_THE_ID.contains(&command.get_name()));
        for flag in all
            .chain([&command])
            .flat_map(clap::Command::get_arguments)
            .filter(|flag| !flag.is_positional())
        {
            let takes_next = flag.get_action().takes_values() && !flag.is_require_equals_set();
            let names = flag.get_long().map(str::to_owned).into_iter();
            for name in names.chain(flag.get_short().map(String::from)) {
                assert_eq!(
                    FLAGS_WITH_VALUES.contains(&name.as_str()),
                    takes_next,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn what_follows_the_id_is_the_commands() {
        let cases: &[(&[&str], &[&str])] = &[
            (
                &[
                    "-log", "exec", "exec", "-tty", "-e", "A=1", "web", "ls", "-log",
                ],
                &[
                    "--log", "exec", "exec", "--tty", "-e", "A=1", "web", "ls", "-log",
                ],
            ),
            (
                &["exec", "-te", "-cwd", "web", "-tty"],
                &["exec", "-te", "-cwd", "web", "-tty"],
            ),
            (
                &["exec", "-eA=1", "-cwd", "/", "web", "-tty"],
                &["exec", "-eA=1", "--cwd", "/", "web", "-tty"],
            ),
            (
                &["ps", "-f", "json", "web", "-format"],
                &["ps", "-f", "json", "web", "-format"],
            ),
            (
                &["kill", "-all", "web", "-9"],
                &["kill", "--all", "web", "-9"],
            ),
            (&["delete", "web", "-force"], &["delete", "web", "--force"]),
            (&["run", "--", "-log"], &["run", "--", "-log"]),
        ];
        for (args, expected) in cases {
            let args = ["gocker-runc"].iter().chain(*args).map(OsString::from);
            assert_eq!(normalize(args)[1..], **expected);
        }
    }

    #[test]
    fn exec_leaves_a_commands_flags_alone() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["web", "ls", "--tty"], &["web", "ls", "--tty"]),
            (&["-t", "web", "--tty", "-d"], &["web", "--tty", "-d"]),
            (&["web", "--", "ls", "--"], &["web", "--", "ls", "--"]),
            (&["--", "web", "ls", "-h"], &["web", "ls", "-h"]),
            (&["web", "--help"], &["web", "--help"]),
        ];
        for (args, expected) in cases {
            let args = ["gocker-runc", "exec"].iter().chain(*args);
            let args = normalize(args.map(OsString::from));
            let cli = Cli::try_parse_from(args).expect("parses");
            let Command::Exec(args) = cli.command else {
                panic!("not exec")
            };
            assert_eq!(args.id_and_command, *expected);
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
