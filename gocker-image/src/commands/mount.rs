//! `mount` and `umount`: the root of an image or a bundle, read-only, outside of a container.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::Context;
use super::diff::rooted;
use super::in_turn::in_turn;
use crate::cli::Format;
use crate::operations;
use crate::reference::Reference;
use crate::store::{MountRecord, StoreError};
use crate::{report, table};

#[derive(Args, Debug)]
pub(crate) struct MountArgs {
    /// The image or bundle; without one, all mounts are listed
    #[arg(value_name = "BUNDLE|IMAGE")]
    name: Option<String>,
    /// Where, instead of a place of the store's own
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct UmountArgs {
    /// The images, bundles or directories
    #[arg(
        value_name = "BUNDLE|IMAGE|DIR",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    names: Vec<String>,
    /// Unmount all
    #[arg(short, long)]
    all: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Mounts and prints where, or lists what is mounted.
pub(crate) fn mount(context: &Context, args: &MountArgs) -> anyhow::Result<()> {
    let store = context.find_store()?;
    let Some(name) = &args.name else {
        let mounts = store.as_ref().map(operations::mounts).transpose()?;
        return print_all(args.format, &mounts.unwrap_or_default());
    };
    let wanted = || format!("mount {name:?}");
    let store = store
        .ok_or_else(|| StoreError::NoBundle(name.clone()))
        .with_context(wanted)?;
    let root = rooted(context, &store, name).with_context(wanted)?;
    let mounted = operations::mount(&store, &root, args.directory.as_deref())?;
    let text = match args.format {
        Format::Text => format!("{}\n", mounted.directory.display()),
        Format::Json => report::json(&mounted)?,
    };
    Ok(report::print(&text)?)
}

fn print_all(format: Format, mounts: &[MountRecord]) -> anyhow::Result<()> {
    let row = |mount: &MountRecord| vec![mount.name.clone(), mount.directory.display().to_string()];
    Ok(report::print(&match format {
        Format::Json => report::json(mounts)?,
        Format::Text => table::render(
            &["NAME", "DIRECTORY"],
            &mounts.iter().map(row).collect::<Vec<_>>(),
        ),
    })?)
}

/// Unmounts what is named, in turn, until something cannot be.
pub(crate) fn umount(context: &Context, args: &UmountArgs) -> anyhow::Result<()> {
    let store = context.find_store()?;
    let mut names = args.names.clone();
    if let (true, Some(store)) = (args.all, &store) {
        let mounts = operations::mounts(store)?.into_iter();
        names = mounts
            .map(|mount| mount.directory.display().to_string())
            .collect();
    }
    let umount = |name: &String| {
        let Some(store) = &store else {
            let missing = StoreError::NotMounted(name.clone());
            return Err(missing).with_context(|| format!("umount {name:?}"));
        };
        let whole = match name.parse::<Reference>() {
            Ok(reference) => context.qualify(&reference)?.familiar(),
            Err(_) => name.clone(),
        };
        operations::umount(store, name, &whole)
    };
    in_turn(args.format, &names, umount, |gone| {
        let directories = gone.iter().map(|mount| mount.directory.display());
        directories
            .map(|directory| format!("{directory}\n"))
            .collect()
    })
}
