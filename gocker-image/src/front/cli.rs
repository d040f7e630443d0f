//! The command line of `gocker`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::runtime::DEFAULT_STATE_ROOT;
use crate::cli::{
    EVERY_COMMAND, Format, GlobalArgs, LimitArgs, ListArgs, ProcessArgs, PruneArgs, PullArgs,
    RemoveArgs, parse_network, parse_volumes,
};
use crate::image::Platform;
use crate::operations::{Network, Volumes};
use crate::reference::Reference;
use crate::run_args::RunOptionArgs;
use crate::store::BundleId;

/// What the exit status says.
const EXIT_STATUSES: &str = "\
Exit status:
  0  it is done
  1  it failed
  2  the command line is wrong";

/// What that of `run` says.
const RUN_EXIT_STATUSES: &str = "\
Exit status:
  in the foreground that of the container's process,
  or 128 and the number of the signal that ended it; else
  0  the container runs in the background
  1  the container could not be run
  2  the command line is wrong";

/// Pulls images and runs containers of them.
///
/// It keeps images and bundles as gocker-image does, and runs containers by the
/// program gocker-runc, which is looked for beside this one and in PATH, or
/// named by the variable GOCKER_RUNC.
#[derive(Debug, Parser)]
#[command(name = "gocker", version, disable_help_subcommand = true, after_help = EXIT_STATUSES)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    /// Where the runtime keeps the state of containers
    #[arg(long, global = true, help_heading = EVERY_COMMAND, value_name = "DIR", default_value = DEFAULT_STATE_ROOT)]
    pub(super) state_root: PathBuf,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Fetch an image and unpack its layers
    Pull(Box<PullArgs>),
    /// Run a container of an image, which is pulled if it is not there
    #[command(after_help = RUN_EXIT_STATUSES)]
    Run(Box<RunArgs>),
    /// List containers
    Ps(PsArgs),
    /// Remove containers
    Rm(RmArgs),
    /// List and remove images
    #[command(subcommand)]
    Image(ImageCommand),
    /// List the images
    Images(ListArgs),
    /// Remove stopped containers, and layers, blobs and rubbish that nothing refers to
    Prune(PruneArgs),
}

/// One command of `gocker image`.
#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// List the images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Remove names of images, and what then nothing refers to
    Rm(RemoveArgs),
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// Remove the container when it has ended
    #[arg(long)]
    pub(super) rm: bool,
    /// The container's name, instead of a random one
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<BundleId>,
    /// Run in the background and print the container's id. What it writes is
    /// kept as output.log in its bundle
    #[arg(short, long, conflicts_with_all = ["interactive", "tty", "rm"])]
    pub(super) detach: bool,
    /// Keep standard input as it is, without a terminal unless -t is given
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give the container a terminal. The default if standard input and output are terminals
    #[arg(short, long)]
    pub(super) tty: bool,
    /// The container's network: one of its own with nothing but loopback, or the host's
    #[arg(long, value_name = "none|host", default_value = "none", value_parser = parse_network)]
    pub(super) network: Network,
    /// What becomes of the image's volumes: part of the root, or a tmpfs each
    #[arg(long, value_name = "rootfs|tmpfs", default_value = "rootfs", value_parser = parse_volumes)]
    pub(super) volumes: Volumes,
    /// The platform, instead of this machine's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(super) platform: Option<Platform>,
    /// Show no progress of a pull
    #[arg(short, long)]
    pub(super) quiet: bool,
    #[command(flatten)]
    pub(super) process: ProcessArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    #[command(flatten)]
    pub(super) options: RunOptionArgs,
    /// The image: a name, with its registry, tag or digest where it needs them
    #[arg(value_name = "IMAGE")]
    pub(super) image: Reference,
    /// What to run instead of the image's Cmd
    #[arg(
        value_name = "CMD",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(super) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct PsArgs {
    /// Stopped containers too
    #[arg(short, long)]
    pub(super) all: bool,
    /// Print ids only
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// How the list is written
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(Args, Debug)]
pub(super) struct RmArgs {
    /// End containers that still run
    #[arg(short, long)]
    pub(super) force: bool,
    /// The containers' ids or names
    #[arg(value_name = "ID", required = true)]
    pub(super) ids: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_image_is_the_containers() {
        let words = "gocker run --rm -m 64m --name x busybox ls --rm -l -- /";
        let cli = Cli::try_parse_from(words.split(' ')).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("not run")
        };
        assert_eq!(run.limits.memory, Some(64 << 20));
        assert_eq!(run.name.map(|name| name.to_string()).as_deref(), Some("x"));
        assert_eq!(run.command, ["ls", "--rm", "-l", "--", "/"]);
    }
}
