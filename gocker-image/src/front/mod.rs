//! `gocker`: composes the two programs. Images and bundles by this library,
//! containers by the runtime's command line; there is no private door into
//! either.

mod cli;
mod containers;
mod ps;
mod rm;
mod run;
mod runtime;
mod wait;

use std::process::ExitCode;

pub use cli::Cli;

use crate::cli::PruneArgs;
use crate::commands::{self, Context};
use crate::operations;
use crate::store::Removed;
use cli::{Command, ImageCommand};
use runtime::Runtime;

/// The program's name, for what it says.
const PROGRAM: &str = "gocker";

/// Runs the command that was given. The exit status is the container's where
/// one runs in the foreground.
///
/// # Errors
/// If it does not succeed; nothing was said of it yet.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new(PROGRAM, cli.global);
    let runtime = || Runtime::find(&cli.state_root);
    match cli.command {
        Command::Run(args) => return run::run(&context, &runtime()?, *args),
        Command::Pull(args) => commands::pull(&context, &args)?,
        Command::Images(args) | Command::Image(ImageCommand::Ls(args)) => {
            commands::ls(&context, &args)?;
        }
        Command::Image(ImageCommand::Rm(args)) => commands::rm(&context, &args)?,
        Command::Ps(args) => ps::ps(context.find_store()?.as_ref(), &runtime()?, &args)?,
        Command::Rm(args) => rm::rm(context.find_store()?.as_ref(), &runtime()?, &args)?,
        Command::Prune(args) => prune(&context, &runtime()?, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Containers first, since their bundles hold images.
fn prune(context: &Context, runtime: &Runtime, args: &PruneArgs) -> anyhow::Result<()> {
    let Some(store) = context.find_store()? else {
        return commands::print_removed(args, Some(&[]), &Removed::default());
    };
    let containers = rm::prune_containers(&store, runtime)?;
    let removed = operations::prune(&store, commands::unused(args))?;
    commands::print_removed(args, Some(&containers), &removed)
}
