//! The commands of `gocker-image`, and what those of `gocker` share with them.
//!
//! Each file is one command: it calls an operation and prints what that
//! returns. It decides nothing.

mod bundle;
mod inspect;
mod ls;
mod prune;
mod pull;
mod rm;
mod unbundle;

use std::process::ExitCode;

use crate::cli::{Cli, Command, GlobalArgs};
use crate::operations::{self, Progress};
use crate::progress::LayerProgress;
use crate::registry::{Client, ClientConfig, RegistryError};
use crate::store::{Options, Store};

pub(crate) use bundle::overrides;
pub(crate) use ls::ls;
pub(crate) use prune::{print_removed, unused};
pub(crate) use pull::{pull, pull_quietly};
pub(crate) use rm::rm;

/// Runs the command that was given.
///
/// # Errors
/// If it does not succeed; nothing was said of it yet.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new("gocker-image", cli.global);
    match cli.command {
        Command::Pull(args) => pull(&context, &args)?,
        Command::Bundle(args) => bundle::bundle(&context, *args)?,
        Command::Unbundle(args) => unbundle::unbundle(&context, &args)?,
        Command::Ls(args) => ls(&context, &args)?,
        Command::Rm(args) => rm(&context, &args)?,
        Command::Inspect(args) => inspect::inspect(&context, &args)?,
        Command::Prune(args) => prune::prune(&context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What every command works with.
pub(crate) struct Context {
    /// The program's name, for what it says.
    pub(crate) program: &'static str,
    options: Options,
    insecure_registries: Vec<String>,
}

impl Context {
    pub(crate) fn new(program: &'static str, global: GlobalArgs) -> Self {
        let options = Options {
            root: global.root,
            loop_bytes: global.loop_size,
        };
        Self {
            program,
            options,
            insecure_registries: global.insecure_registry,
        }
    }

    /// The store, made if it is missing.
    pub(crate) fn store(&self, progress: &dyn Progress) -> anyhow::Result<Store> {
        operations::open_store(&self.options, progress)
    }

    /// The store. None if there is none, and then there is nothing in it.
    pub(crate) fn find_store(&self) -> anyhow::Result<Option<Store>> {
        operations::find_store(&self.options)
    }

    /// A client of registries.
    pub(crate) fn client(&self) -> Result<Client, RegistryError> {
        let insecure_registries = self.insecure_registries.clone();
        Client::new(ClientConfig {
            insecure_registries,
            ..ClientConfig::default()
        })
    }

    /// Progress on standard error. What a user must know is said even if it is
    /// quiet.
    pub(crate) fn progress(&self, quiet: bool) -> LayerProgress {
        LayerProgress::new(self.program, quiet)
    }
}
