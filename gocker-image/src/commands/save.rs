//! `save`: images as an archive or a directory.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Context;
use crate::cli::Format;
use crate::digest::Digest;
use crate::operations::{self, NotPulled, SaveFormat, SaveTo};
use crate::reference::Reference;
use crate::report;

#[derive(Args, Debug)]
pub(crate) struct SaveArgs {
    /// The images: names, or digests
    #[arg(value_name = "REF", required = true)]
    references: Vec<Reference>,
    /// The file or directory to make; "-" is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// What is made
    #[arg(long = "as", value_enum, value_name = "FORM", default_value_t)]
    form: Form,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// How it is told what was saved, if it was not saved to standard output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The forms by the names that Podman has for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// An OCI image layout in a tar archive: digests stay what they are
    #[default]
    OciArchive,
    /// An OCI image layout in a directory
    OciDir,
    /// What "docker save" writes: layers are not compressed, and there is no manifest
    DockerArchive,
    /// One image as its manifest and blobs in a directory, as skopeo's "dir:"
    DockerDir,
}

#[derive(Serialize)]
struct Answer {
    reference: Option<String>,
    manifest: Digest,
}

/// Saves, and prints the digests of what was saved.
pub(crate) fn save(context: &Context, args: &SaveArgs) -> anyhow::Result<()> {
    let is_stream = args.output == Path::new("-");
    let to = if !is_stream {
        SaveTo::Path(args.output.clone())
    } else if io::stdout().is_terminal() {
        bail!("save: standard output is a terminal: name a file by --output, or a pipe");
    } else if args.format == Format::Json {
        bail!("save: --format json needs standard output for itself: name a file by --output");
    } else {
        SaveTo::Stream(Box::new(io::stdout()))
    };
    let Some(store) = context.find_store()? else {
        let name = args.references.first().map(Reference::familiar);
        return Err(NotPulled(name.unwrap_or_default())).context("save");
    };
    let references: Vec<Reference> = args
        .references
        .iter()
        .map(|reference| context.qualify(reference))
        .collect::<Result<_, _>>()?;
    let form = match args.form {
        Form::OciArchive => SaveFormat::OciArchive,
        Form::OciDir => SaveFormat::OciDir,
        Form::DockerArchive => SaveFormat::DockerArchive,
        Form::DockerDir => SaveFormat::DockerDir,
    };
    let client = context.client(None)?;
    let progress = context.progress(args.quiet);
    let saved = operations::save((&store, &client), &references, form, to, &progress)?;
    drop(progress);
    if is_stream {
        return Ok(());
    }
    let answers = saved.into_iter().map(|saved| Answer {
        reference: saved.reference,
        manifest: saved.manifest,
    });
    let text = match args.format {
        Format::Json => {
            let answers: Vec<_> = answers.collect();
            report::json(&answers)?
        }
        Format::Text => answers
            .map(|answer| format!("{}\n", answer.manifest))
            .collect(),
    };
    Ok(report::print(&text)?)
}
