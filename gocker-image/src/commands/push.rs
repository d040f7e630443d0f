//! `push`: uploads an image to a registry.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Context;
use crate::cli::Format;
use crate::digest::Digest;
use crate::errno::CallError;
use crate::operations::{self, PushOptions, Pushed};
use crate::reference::Reference;
use crate::report;

#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// The image: one of its names, or its digest
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Where to; the image's own name if it is left out
    #[arg(value_name = "DEST")]
    destination: Option<Reference>,
    /// Credentials for the registry; a password that is left out is asked for
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
    /// Write the image's digest to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Show no progress, print only the image's digest
    #[arg(short, long)]
    quiet: bool,
    /// How the result is written; progress goes to standard error
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Answer<'a> {
    destination: String,
    manifest: &'a Digest,
    media_type: &'a str,
    present_layers: usize,
    mounted_layers: usize,
    uploaded_layers: usize,
}

/// Pushes and prints what was pushed: its digest alone if it is to be quiet.
pub(crate) fn push(context: &Context, args: &PushArgs) -> anyhow::Result<()> {
    let reference = context.qualify(&args.reference)?;
    let destination = match &args.destination {
        Some(destination) => context.qualify(destination)?,
        None if reference.bare_digest().is_some() => {
            anyhow::bail!("push {:?}: name where to", reference.familiar())
        }
        None => reference.clone(),
    };
    let store = context.store_with_image("push", &reference)?;
    let given = super::login::given(destination.registry(), args.creds.as_deref())?;
    let client = context.client(given)?;
    let options = PushOptions {
        reference,
        destination,
    };
    let progress = context.progress(args.quiet);
    let pushed = operations::push(&store, &client, &options, &progress)?;
    drop(progress);
    if let Some(path) = &args.digestfile {
        let written = std::fs::write(path, format!("{}\n", pushed.manifest));
        written.map_err(|error| CallError::new("write", path, error))?;
    }
    let text = match (args.format, args.quiet) {
        (Format::Json, _) => report::json(&answer(&pushed))?,
        (Format::Text, true) => format!("{}\n", pushed.manifest),
        (Format::Text, false) => format!("{}\n{}\n", pushed.destination, pushed.manifest),
    };
    Ok(report::print(&text)?)
}

fn answer(pushed: &Pushed) -> Answer<'_> {
    Answer {
        destination: pushed.destination.to_string(),
        manifest: &pushed.manifest,
        media_type: &pushed.media_type,
        present_layers: pushed.present_layers,
        mounted_layers: pushed.mounted_layers,
        uploaded_layers: pushed.uploaded_layers,
    }
}
