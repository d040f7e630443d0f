//! `gocker run`: an image, a bundle, the runtime.
//!
//! ```text
//! pull if missing -> bundle in the store -> gocker-runc run -> exit status
//!                                            not started, or --rm: bundle removed
//! ```

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::{Context as _, bail};

use super::cli::RunArgs;
use super::containers::{Lease, remove_bundle};
use super::runtime::Runtime;
use super::wait::HeldSignals;
use crate::cli::{Format, PullArgs};
use crate::commands::{self, BudgetArgs, Context};
use crate::image::Platform;
use crate::operations::{self, BundleRequest, Place, Progress as _};
use crate::progress::LayerProgress;
use crate::report;
use crate::store::{BundleId, BundleOwner, Lock, Store};

/// Written by the runtime when the container's process is there, and only then.
const PID_FILE: &str = "pid";
/// What a detached container writes.
const OUTPUT_LOG: &str = "output.log";

/// Runs a container and returns its exit status, or starts one and prints its
/// id.
pub(super) fn run(
    context: &Context,
    runtime: &Runtime,
    mut args: RunArgs,
) -> anyhow::Result<ExitCode> {
    args.image = context.qualify(&args.image)?;
    let terminal = wants_terminal(&args)?;
    let id = args.name.clone().map_or_else(random_id, Ok)?;
    let progress = context.progress(args.quiet);
    let store = context.store(&progress)?;
    let image_hold = pull_if_missing(context, &store, &args, &progress)?;
    let Some(_lease) = Lease::take(&store, id.as_str())? else {
        bail!(
            "run {id:?}: another command works on a container of that name",
            id = id.as_str()
        );
    };
    if store.bundle(&id)?.is_some() {
        bail!(
            "run {id:?}: a container of that name exists; gocker rm removes it",
            id = id.as_str()
        );
    }
    let mut overrides = commands::overrides(args.process, &args.limits, args.options)?;
    overrides.args = args.command;
    overrides.terminal = terminal;
    overrides.network = args.network;
    overrides.volumes = args.volumes;
    let (reference, place) = (args.image, Place::Named(id.clone()));
    let request = BundleRequest {
        reference,
        place,
        overrides,
        owner: BundleOwner::Container,
        quota_bytes: args.limits.quota.bytes(),
    };
    let bundle = operations::bundle(&store, &request, &progress)?.directory;
    // the bundle refers to it
    drop(image_hold);
    // its threads must not get the signals that are held from here on
    drop(progress);
    let id = id.as_str();
    if args.detach {
        let started = detached(runtime, id, &bundle);
        if started.is_err() {
            clean_up(&store, runtime, id);
        }
        started.with_context(|| format!("run {id:?}"))?;
        report::print(&format!("{id}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = foreground(runtime, id, &bundle);
    // without a pid file it has not run, and the runtime has said why
    let has_run = bundle.join(PID_FILE).exists();
    if args.rm || !has_run {
        clean_up(&store, runtime, id);
    }
    Ok(exit_code(ended.with_context(|| format!("run {id:?}"))?))
}

/// An image that is here is taken as it is, unless another platform is asked
/// for than it has. Nobody removes the image, nor its name with `prune --all`, while it is held.
fn pull_if_missing(
    context: &Context,
    store: &Store,
    args: &RunArgs,
    progress: &LayerProgress,
) -> anyhow::Result<Lock> {
    if let Some((image, hold)) = operations::look_for_image(store, &args.image)? {
        let platform: Platform = image.platform.parse()?;
        if args
            .platform
            .as_ref()
            .is_none_or(|wanted| wanted.rank(&platform).is_some())
        {
            if platform.is_foreign() {
                progress.warn(&format!(
                    "the image is for {platform}, which this machine is not"
                ));
            }
            return Ok(hold);
        }
    }
    let pull = PullArgs {
        reference: args.image.clone(),
        platform: args.platform.clone(),
        creds: None,
        verify_key: Vec::new(),
        policy: None,
        keep_blobs: false,
        allow_foreign_layers: false,
        budgets: BudgetArgs::default(),
        quiet: args.quiet,
        format: Format::Text,
    };
    commands::pull_quietly(context, store, &pull, progress).map(|pulled| pulled.hold)
}

/// Removes all that a container left. What went wrong before is the error, so
/// this is only a warning.
fn clean_up(store: &Store, runtime: &Runtime, id: &str) {
    let removed = runtime
        .delete_by_force(id)
        .and_then(|()| remove_bundle(store, id));
    if let Err(error) = removed {
        report::warn(
            super::PROGRAM,
            &format!("remove container {id:?}: {error:#}"),
        );
    }
}

/// Whether the container gets a terminal: as asked for, else if there is one to
/// be had at both ends.
fn wants_terminal(args: &RunArgs) -> anyhow::Result<bool> {
    let interactive = report::is_interactive();
    if args.tty && !interactive {
        bail!("--tty: standard input and output are not terminals");
    }
    Ok(args.tty || (interactive && !args.interactive && !args.detach))
}

/// Runs in the foreground; the exit status is the container's.
fn foreground(runtime: &Runtime, id: &str, bundle: &Path) -> anyhow::Result<ExitStatus> {
    let signals = HeldSignals::hold()?;
    let mut command = runtime.command(["run", "--pid-file"]);
    command
        .arg(bundle.join(PID_FILE))
        .arg("--bundle")
        .arg(bundle)
        .arg(id);
    let mut child = command.spawn().with_context(|| runtime.start_text())?;
    signals.wait(&mut child)
}

/// Starts in the background. What the container writes is kept in its bundle.
fn detached(runtime: &Runtime, id: &str, bundle: &Path) -> anyhow::Result<()> {
    let path = bundle.join(OUTPUT_LOG);
    let log = File::create_new(&path).with_context(|| format!("make {path:?}"))?;
    let errors = log.try_clone().with_context(|| format!("open {path:?}"))?;
    let mut command = runtime.command(["run", "--detach", "--bundle"]);
    command.arg(bundle).arg(id);
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    let status = command.status().with_context(|| runtime.start_text())?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    let read = File::open(&path).and_then(|file| file.take(4096).read_to_string(&mut said));
    match (read, said.trim()) {
        (Ok(_), text) if !text.is_empty() => bail!("{}", text.lines().last().unwrap_or(text)),
        _ => bail!("the runtime ended with {status}"),
    }
}

/// The container's exit status as ours: 128 and the signal if there was one.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Twelve random hex digits.
fn random_id() -> anyhow::Result<BundleId> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read \"/dev/urandom\"")?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digits.parse()?)
}
