//! The commands of `gocker-image`, and what those of `gocker` share with them.
//!
//! Each file is one command: it calls an operation and prints what that
//! returns. It decides nothing.

mod budgets;
mod bundle;
mod commit;
mod df;
mod diff;
mod fsck;
mod grow;
mod history;
mod in_turn;
mod inspect;
mod load;
mod login;
mod ls;
mod mount;
mod prune;
mod pull;
mod push;
mod quota;
mod rm;
mod save;
mod tag;
mod tags;
mod unbundle;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{Cli, Command, GlobalArgs, RegistryArgs};
use crate::operations::{self, NotPulled, Progress};
use crate::progress::LayerProgress;
use crate::reference::Reference;
use crate::registry::{AuthFiles, Client, ClientConfig, Credential, RegistryError};
use crate::store::{Options, Store, StoreError};

pub(crate) use budgets::BudgetArgs;
pub(crate) use bundle::overrides;
pub(crate) use commit::CommitArgs;
pub(crate) use df::DfArgs;
pub(crate) use diff::DiffArgs;
pub(crate) use fsck::FsckArgs;
pub(crate) use grow::GrowArgs;
pub(crate) use history::HistoryArgs;
pub(crate) use load::LoadArgs;
pub(crate) use ls::ls;
pub(crate) use mount::{MountArgs, UmountArgs};
pub(crate) use prune::{print_removed, unused};
pub(crate) use pull::{pull, pull_quietly};
pub(crate) use push::PushArgs;
pub(crate) use quota::QuotaArgs;
pub(crate) use rm::rm;
pub(crate) use save::SaveArgs;
pub(crate) use tag::TagArgs;

/// Runs the command that was given.
///
/// # Errors
/// If it does not succeed; nothing was said of it yet.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new("gocker-image", cli.global);
    match cli.command {
        Command::Pull(args) => pull(&context, &args)?,
        Command::Bundle(args) => bundle::bundle(&context, *args)?,
        Command::Commit(args) => commit::commit(&context, *args)?,
        Command::Diff(args) => diff::diff(&context, &args)?,
        Command::Mount(args) => mount::mount(&context, &args)?,
        Command::Umount(args) => mount::umount(&context, &args)?,
        Command::Unbundle(args) => unbundle::unbundle(&context, &args)?,
        Command::Ls(args) => ls(&context, &args)?,
        Command::Rm(args) => rm(&context, &args)?,
        Command::Inspect(args) => inspect::inspect(&context, &args)?,
        Command::Prune(args) => prune::prune(&context, &args)?,
        Command::Push(args) => push::push(&context, &args)?,
        Command::Save(args) => save::save(&context, &args)?,
        Command::Load(args) => load::load(&context, &args)?,
        Command::Tag(args) => tag::tag(&context, &args)?,
        Command::History(args) => history::history(&context, &args)?,
        Command::Df(args) => df::df(&context, &args)?,
        Command::Grow(args) => grow::grow(&context, &args)?,
        Command::Fsck(args) => return fsck::fsck(&context, &args),
        Command::Tags(args) => tags::tags(&context, &args)?,
        Command::Login(args) => login::login(&context, &args)?,
        Command::Logout(args) => login::logout(&context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What every command works with.
pub(crate) struct Context {
    /// The program's name, for what it says.
    pub(crate) program: &'static str,
    options: Options,
    registry: RegistryArgs,
}

impl Context {
    pub(crate) fn new(program: &'static str, global: GlobalArgs) -> Self {
        let options = Options {
            root: global.root,
            loop_bytes: global.loop_size,
            backing: global.backing,
        };
        Self {
            program,
            options,
            registry: global.registry,
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

    /// The store, for a command that does `step` with one of its images.
    pub(crate) fn store_with_image(
        &self,
        step: &str,
        reference: &Reference,
    ) -> anyhow::Result<Store> {
        self.find_store()?.ok_or_else(|| {
            let name = reference.familiar();
            let text = format!("{step} {name:?}");
            anyhow::Error::from(NotPulled(name)).context(text)
        })
    }

    /// The store, for a command that does `step` with one of its bundles.
    pub(crate) fn store_with_bundle(&self, step: &str, name: &str) -> anyhow::Result<Store> {
        self.find_store()?.ok_or_else(|| {
            let missing = StoreError::NoBundle(name.to_owned());
            anyhow::Error::from(missing).context(format!("{step} {name:?}"))
        })
    }

    /// A client of registries. `given` is a credential that the user gave for one of them.
    pub(crate) fn client(
        &self,
        given: Option<(String, Credential)>,
    ) -> Result<Client, RegistryError> {
        Client::new(ClientConfig {
            credential: given,
            ..self.client_config()
        })
    }

    /// The whole name of what a user calls `reference`.
    pub(crate) fn qualify(&self, reference: &Reference) -> anyhow::Result<Reference> {
        if reference.short_name().is_none() || reference.bare_digest().is_some() {
            return Ok(reference.clone());
        }
        Ok(self.client(None)?.qualify(reference)?)
    }

    /// Where credentials are kept.
    pub(crate) fn auth_files(&self) -> AuthFiles {
        match &self.registry.authfile {
            Some(file) => AuthFiles::only(file.clone()),
            None => AuthFiles::from_environment(),
        }
    }

    fn client_config(&self) -> ClientConfig {
        let args = &self.registry;
        let mut config = ClientConfig {
            insecure_registries: args.insecure_registry.clone(),
            auth_files: self.auth_files(),
            ..ClientConfig::default()
        };
        if let Some(seconds) = args.stall_timeout {
            config.stall_timeout = Duration::from_secs(seconds);
            config.connect_timeout = config.connect_timeout.min(config.stall_timeout);
        }
        if let Some(file) = &args.registries_conf {
            config.settings.registries_conf = vec![file.clone()];
        }
        if let Some(dir) = &args.hosts_dir {
            config.settings.hosts_dirs = vec![dir.clone()];
        }
        config.settings.cert_dir.clone_from(&args.cert_dir);
        config
    }

    /// Progress on standard error. What a user must know is said even if it is
    /// quiet.
    pub(crate) fn progress(&self, quiet: bool) -> LayerProgress {
        LayerProgress::new(self.program, quiet)
    }
}
