//! `bundle`: a config.json and a writable root file system.

use serde::Serialize;

use anyhow::{Context as _, bail};

use super::Context;
use crate::cli::{BundleArgs, Format, LimitArgs, ProcessArgs};
use crate::errno::CallError;
use crate::operations::{self, BundleRequest, Network, Overrides, Place};
use crate::report;
use crate::run_args::RunOptionArgs;
use crate::store::{BundleOwner, BundleRecord};

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    reference: &'a str,
    manifest: &'a crate::digest::Digest,
    directory: &'a std::path::Path,
    rootfs: &'a std::path::Path,
    quota_bytes: Option<u64>,
}

/// Makes the bundle and prints its directory.
pub(crate) fn bundle(context: &Context, args: BundleArgs) -> anyhow::Result<()> {
    let place = match (args.name, args.dir) {
        (Some(name), _) => Place::Named(name),
        (None, Some(dir)) => Place::Directory(dir),
        (None, None) => bail!("neither a directory nor a name was given"),
    };
    let mut overrides = overrides(args.process, &args.limits, args.options)?;
    overrides.args = args.command;
    overrides.terminal = args.tty;
    overrides.network = args.network;
    overrides.volumes = args.volumes;
    let request = BundleRequest {
        reference: context.qualify(&args.reference)?,
        place,
        overrides,
        owner: BundleOwner::User,
        quota_bytes: args.limits.quota.bytes(),
    };
    let progress = context.progress(false);
    let store = context.store_with_image("bundle", &request.reference)?;
    let record = operations::bundle(&store, &request, &progress)?;
    Ok(report::print(&text(args.format, &record)?)?)
}

fn text(format: Format, record: &BundleRecord) -> anyhow::Result<String> {
    if format == Format::Text {
        return Ok(format!("{}\n", record.directory.display()));
    }
    let answer = Answer {
        id: &record.id,
        reference: &record.reference,
        manifest: &record.manifest,
        directory: &record.directory,
        rootfs: &record.rootfs,
        quota_bytes: record.quota_bytes,
    };
    Ok(report::json(&answer)?)
}

/// What the arguments that `bundle` and `run` share say.
pub(crate) fn overrides(
    process: ProcessArgs,
    limits: &LimitArgs,
    options: RunOptionArgs,
) -> anyhow::Result<Overrides> {
    let own = |name: &str| match std::env::var_os(name) {
        None => Ok(None),
        Some(value) => match value.into_string() {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("--env {name}: its value here is not UTF-8"),
        },
    };
    let mut items = Vec::new();
    for file in &options.env_file {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| CallError::new("read", file, error));
        items.extend(env_lines(&text.context("--env-file")?));
    }
    items.extend(process.env);
    Ok(Overrides {
        env: complete_env(&items, own)?,
        options: options.options(),
        user: process.user,
        cwd: process.cwd,
        hostname: process.hostname,
        entrypoint: process.entrypoint.map(|program| {
            // "" takes the image's away
            if program.is_empty() {
                Vec::new()
            } else {
                vec![program]
            }
        }),
        memory_bytes: limits.memory,
        cpus: limits.cpus,
        pids_limit: limits.pids_limit,
        network: Network::Own,
        ..Overrides::default()
    })
}

/// The variables of a file: a line each, without those that are empty or begin with `#`.
fn env_lines(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned)
}

/// Gives a name without a value the value that `own` knows; one that it does
/// not know is left out.
fn complete_env(
    items: &[String],
    own: impl Fn(&str) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<Vec<String>> {
    let mut env = Vec::new();
    for item in items {
        match item.split_once('=') {
            Some(("", _)) => bail!("--env {item:?}: the name is missing"),
            Some(_) => env.push(item.clone()),
            None if item.is_empty() => bail!("--env {item:?}: the name is missing"),
            None => env.extend(own(item)?.map(|value| format!("{item}={value}"))),
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_takes_the_value_from_here() {
        let own = |name: &str| Ok((name == "HERE").then(|| "x=y".to_owned()));
        let items = ["A=b", "HERE", "MISSING", "C="].map(str::to_owned);
        assert_eq!(
            complete_env(&items, own).unwrap(),
            ["A=b", "HERE=x=y", "C="]
        );
        for bad in ["", "=x"] {
            assert!(complete_env(&[bad.to_owned()], own).is_err(), "{bad:?}");
        }
    }
}
