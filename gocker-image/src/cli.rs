//! The command line of `gocker-image`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    BudgetArgs, CommitArgs, DfArgs, DiffArgs, FsckArgs, GrowArgs, HistoryArgs, LoadArgs, MountArgs,
    PushArgs, QuotaArgs, SaveArgs, TagArgs, UmountArgs,
};
use crate::image::Platform;
use crate::operations::{Network, Volumes};
use crate::reference::Reference;
use crate::run_args::RunOptionArgs;
use crate::store::{Backing, BundleId};

/// What the exit status says.
const EXIT_STATUSES: &str = "\
Exit status:
  0  it is done
  1  it failed in another way than those below
  2  the command line is wrong
  3  what was named is not here, or not at the registry
  4  something is not what its digest or signature says
  5  the disk is full
  6  a registry cannot be reached, or failed
  7  a registry wants other credentials, or does not let anyone in";

/// Above what every command takes.
pub(crate) const EVERY_COMMAND: &str = "Options of every command";

/// Pulls OCI and Docker images into btrfs subvolumes and makes runnable bundles
/// of them.
#[derive(Debug, Parser)]
#[command(name = "gocker-image", version, disable_help_subcommand = true, after_help = EXIT_STATUSES)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct GlobalArgs {
    /// Where images, layers and bundles are kept
    #[arg(
        long,
        global = true,
        help_heading = EVERY_COMMAND,
        value_name = "DIR",
        default_value = "/var/lib/gocker"
    )]
    pub(crate) root: PathBuf,
    /// Size of the file system that is made in a sparse file where DIR is not on btrfs; a store
    /// that is there already has to have it (grow makes it larger)
    #[arg(long, global = true, help_heading = EVERY_COMMAND, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) loop_size: Option<u64>,
    /// How layers and bundles are kept: on btrfs, made in a sparse file where DIR is on none; as
    /// copies, which share blocks where the file system can; or as a store does already, and a
    /// new one as it can
    #[arg(
        long,
        global = true,
        help_heading = EVERY_COMMAND,
        value_name = "auto|btrfs|copy",
        default_value = "auto",
        hide_default_value = true,
        value_parser = parse_backing
    )]
    pub(crate) backing: Backing,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// How registries are reached.
#[derive(Args, Clone, Debug)]
pub struct RegistryArgs {
    /// Reach this registry by http instead of https (those on loopback are, unless there are
    /// certificates for them)
    #[arg(long, global = true, help_heading = EVERY_COMMAND, value_name = "HOST[:PORT]")]
    pub(crate) insecure_registry: Vec<String>,
    /// The file with credentials, instead of those of Podman and Docker
    #[arg(long, global = true, help_heading = EVERY_COMMAND, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// The registries.conf, instead of the user's or the system's
    #[arg(long, global = true, help_heading = EVERY_COMMAND, value_name = "FILE")]
    pub(crate) registries_conf: Option<PathBuf>,
    /// A directory with certificates (*.crt, *.cert and *.key), instead of those of certs.d
    #[arg(long, global = true, help_heading = EVERY_COMMAND, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// A directory with containerd's settings of registries (HOST/hosts.toml)
    #[arg(long, global = true, help_heading = EVERY_COMMAND, value_name = "DIR")]
    pub(crate) hosts_dir: Option<PathBuf>,
    /// Give a connection up on which nothing has come for so long
    #[arg(long, global = true, help_heading = EVERY_COMMAND, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stall_timeout: Option<u64>,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch an image and unpack its layers
    Pull(PullArgs),
    /// Make a bundle: a config.json and a writable root file system
    Bundle(Box<BundleArgs>),
    /// Show what has changed in a bundle since it was made
    Diff(DiffArgs),
    /// Make an image of what has changed in a bundle
    Commit(Box<CommitArgs>),
    /// Mount the root of an image or a bundle, read-only, or list what is mounted
    Mount(MountArgs),
    /// Unmount what was mounted
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Remove bundles and their root file systems
    Unbundle(UnbundleArgs),
    /// List the images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Remove names of images, and what then nothing refers to
    Rm(RemoveArgs),
    /// Show an image's manifest, config, chain of layers and the config.json it gives as JSON
    Inspect(InspectArgs),
    /// Remove layers, blobs and rubbish that nothing refers to
    Prune(PruneArgs),
    /// Upload an image to a registry
    Push(PushArgs),
    /// Write images to an archive or a directory
    Save(SaveArgs),
    /// Bring in images from an archive or a directory
    Load(LoadArgs),
    /// Give an image one more name
    Tag(TagArgs),
    /// Show the steps by which an image was made, and the layer of each
    History(HistoryArgs),
    /// Show what the store takes on the disk, and what of it is shared
    Df(DfArgs),
    /// Let a store in a sparse file take more, while it is used
    Grow(GrowArgs),
    /// Look for damage in the store
    Fsck(FsckArgs),
    /// List the tags that a registry has of a repository
    Tags(TagsArgs),
    /// Keep the credentials of a registry, after asking it whether they are good
    Login(LoginArgs),
    /// Forget the credentials of a registry
    Logout(LogoutArgs),
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// How results are written that only programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum JsonFormat {
    /// For programs
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// The image: a name, with its registry, tag or digest where it needs them
    #[arg(value_name = "REF")]
    pub(crate) reference: Reference,
    /// The platform, instead of this machine's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Credentials for the registry; a password that is left out is asked for
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    /// Fetch no layer unless the image has a cosign signature by this public key
    #[arg(long, value_name = "FILE")]
    pub(crate) verify_key: Vec<PathBuf>,
    /// The policy.json, instead of the user's or the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Keep the layers as they were transferred too, so that the image can be pushed and saved
    /// without its registry
    #[arg(long)]
    pub(crate) keep_blobs: bool,
    /// Fetch layers that the registry may not hand on, if it has not, from the https addresses
    /// that the manifest names, without credentials
    #[arg(long)]
    pub(crate) allow_foreign_layers: bool,
    #[command(flatten)]
    pub(crate) budgets: BudgetArgs,
    /// Show no progress, print only the image's digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How the result is written; progress goes to standard error
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct TagsArgs {
    /// The repository: a name with its registry, without a tag
    #[arg(value_name = "NAME", value_parser = Reference::repository_of)]
    pub(crate) repository: Reference,
    /// Credentials for the registry; a password that is left out is asked for
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    /// How the list is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// The registry, or a repository or namespace at one that has credentials of its own
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(crate) registry: String,
    /// The user's name; asked for if it is left out
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// Read the password from standard input; else it is asked for
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LogoutArgs {
    /// The registry, as it was logged in at
    #[arg(
        value_name = "REGISTRY",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub(crate) registry: Option<String>,
    /// Forget all
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Print names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How the list is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// The images
    #[arg(value_name = "REF", required = true)]
    pub(crate) references: Vec<Reference>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: Reference,
    /// How it is written: only as JSON
    #[arg(long, value_enum, default_value_t = JsonFormat::Json)]
    pub(crate) format: JsonFormat,
}

#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Remove images with names too, unless a bundle was made of them
    #[arg(short, long)]
    pub(crate) all: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct UnbundleArgs {
    /// The bundles: their directories, or the names that they were made by
    #[arg(value_name = "DIR|NAME", required = true)]
    pub(crate) bundles: Vec<String>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct BundleArgs {
    /// The image, which must have been pulled
    #[arg(value_name = "REF")]
    pub(crate) reference: Reference,
    /// The directory to make for config.json; the root file system stays in the store
    #[arg(
        value_name = "DIR",
        required_unless_present = "name",
        conflicts_with = "name"
    )]
    pub(crate) dir: Option<PathBuf>,
    /// Make the bundle within the store, by this name
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<BundleId>,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) options: RunOptionArgs,
    /// The container's network: one of its own with nothing but loopback, or the host's
    #[arg(long, value_name = "none|host", default_value = "none", value_parser = parse_network)]
    pub(crate) network: Network,
    /// What becomes of the image's volumes: part of the root, or a tmpfs each
    #[arg(long, value_name = "rootfs|tmpfs", default_value = "rootfs", value_parser = parse_volumes)]
    pub(crate) volumes: Volumes,
    /// The process gets a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// What to run instead of the image's Cmd, after "--"
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// What to run, where it differs from the image's config.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ProcessArgs {
    /// Set a variable of the environment. Without "=" it gets the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Run as this user, and group after a colon, by number or name
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The working directory
    #[arg(
        short = 'w',
        long = "workdir",
        visible_alias = "cwd",
        value_name = "DIR"
    )]
    pub(crate) cwd: Option<String>,
    /// The host's name in the container
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// The first argument or arguments, instead of the image's Entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
}

/// Limits of what the container may use.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LimitArgs {
    /// The most memory, in bytes or with k, m, g behind
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) memory: Option<u64>,
    /// The most processor time, in processors: 0.5, 2
    #[arg(long, value_name = "N", value_parser = parse_cpus, allow_negative_numbers = true)]
    pub(crate) cpus: Option<f64>,
    /// The most processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<u32>,
    #[command(flatten)]
    pub(crate) quota: QuotaArgs,
}

/// Reads `512m` as bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let number = lower
        .strip_suffix("ib")
        .or_else(|| lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let (digits, shift) = match number.strip_suffix(['k', 'm', 'g', 't']) {
        None => (number, 0),
        Some(digits) if number.ends_with('k') => (digits, 10),
        Some(digits) if number.ends_with('m') => (digits, 20),
        Some(digits) if number.ends_with('g') => (digits, 30),
        Some(digits) => (digits, 40),
    };
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: Option<u64> = digits.parse().ok().filter(|_| is_plain);
    count
        .and_then(|count| count.checked_mul(1 << shift))
        .filter(|bytes| *bytes > 0 && i64::try_from(*bytes).is_ok())
        .ok_or_else(|| "write a number of bytes, or one with k, m, g or t behind".to_owned())
}

/// Reads how trees may be kept.
fn parse_backing(text: &str) -> Result<Backing, String> {
    match text {
        "auto" => Ok(Backing::Auto),
        "btrfs" => Ok(Backing::Btrfs),
        "copy" => Ok(Backing::Copy),
        _ => Err("there are auto, btrfs and copy".to_owned()),
    }
}

/// Reads the two networks that there are.
pub(crate) fn parse_network(text: &str) -> Result<Network, String> {
    match text {
        "none" => Ok(Network::Own),
        "host" => Ok(Network::Host),
        _ => Err("there are none and host".to_owned()),
    }
}

/// Reads what volumes can become.
pub(crate) fn parse_volumes(text: &str) -> Result<Volumes, String> {
    match text {
        "rootfs" => Ok(Volumes::InRootfs),
        "tmpfs" => Ok(Volumes::Tmpfs),
        _ => Err("there are rootfs and tmpfs".to_owned()),
    }
}

fn parse_cpus(text: &str) -> Result<f64, String> {
    let count: Option<f64> = text.parse().ok();
    count
        .filter(|count| count.is_finite() && *count >= 0.01 && *count <= 10_000.0)
        .ok_or_else(|| "write a number of processors of at least 0.01".to_owned())
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
    fn sizes_are_bytes_or_have_a_unit() {
        let cases = [
            ("1024", Some(1024)),
            ("64k", Some(64 << 10)),
            ("512m", Some(512 << 20)),
            ("512MiB", Some(512 << 20)),
            ("2G", Some(2 << 30)),
            ("1tb", Some(1 << 40)),
            ("5b", Some(5)),
            ("0", None),
            ("", None),
            ("m", None),
            ("-1", None),
            ("+1", None),
            ("1.5g", None),
            ("1 g", None),
            ("99999999999t", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn processors_are_positive() {
        for (text, good) in [
            ("0.5", true),
            ("2", true),
            ("0", false),
            ("-1", false),
            ("NaN", false),
            ("inf", false),
        ] {
            assert_eq!(parse_cpus(text).is_ok(), good, "{text}");
        }
    }
}
