//! `diff`: what a container has changed.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::Context;
use crate::cli::Format;
use crate::operations::{self, Rooted};
use crate::pack::{Action, Aspect, Change, Kind};
use crate::reference::Reference;
use crate::report;
use crate::store::{Store, StoreError};

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The bundle: its directory, or the name that it was made by; or an image
    #[arg(value_name = "BUNDLE")]
    name: String,
    /// What to compare it with, instead of the image that it was made of
    #[arg(value_name = "BUNDLE|IMAGE")]
    base: Option<String>,
    /// How the list is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Row<'a> {
    path: String,
    change: &'static str,
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    differs: &'a [Aspect],
}

/// Prints the changes, one a line: A for what was added, C for what was changed, D for what was
/// deleted.
pub(crate) fn diff(context: &Context, args: &DiffArgs) -> anyhow::Result<()> {
    let store = context.store_with_bundle("diff", &args.name)?;
    let find = |name: &String| {
        rooted(context, &store, name).with_context(|| format!("diff {:?}", args.name))
    };
    let base = args.base.as_ref().map(find).transpose()?;
    let changes = operations::diff(&store, &find(&args.name)?, base.as_ref())?;
    Ok(report::print(&match args.format {
        Format::Text => changes.iter().filter_map(line).collect(),
        Format::Json => {
            let rows: Vec<Row<'_>> = changes.iter().map(row).collect();
            report::json(&rows)?
        }
    })?)
}

/// What `text` names: a bundle if there is one of that name, else an image.
pub(super) fn rooted(context: &Context, store: &Store, text: &str) -> anyhow::Result<Rooted> {
    if operations::look_for_bundle(store, text)?.is_some() {
        return Ok(Rooted::Bundle(text.to_owned()));
    }
    let Ok(reference) = text.parse::<Reference>() else {
        return Err(StoreError::NoBundle(text.to_owned()).into());
    };
    Ok(Rooted::Image(context.qualify(&reference)?))
}

/// None for the root if nothing but its time has changed, as it does with any name in it.
fn line(change: &Change) -> Option<String> {
    if change.path.is_empty() && change.differs.iter().all(|what| *what == Aspect::Mtime) {
        return None;
    }
    let letter = match change.action {
        Action::Added => 'A',
        Action::Changed => 'C',
        Action::Deleted => 'D',
    };
    Some(format!("{letter} /{}\n", printable(&change.path)))
}

fn row(change: &Change) -> Row<'_> {
    Row {
        path: format!("/{}", String::from_utf8_lossy(&change.path)),
        change: match change.action {
            Action::Added => "added",
            Action::Changed => "changed",
            Action::Deleted => "deleted",
        },
        kind: change.kind,
        differs: &change.differs,
    }
}

/// A path in one line, without what would steer a terminal.
fn printable(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            // a String takes whatever is written to it
            let _written = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_printed_in_one_line() {
        for (path, expected) in [
            (&b"etc/passwd"[..], "etc/passwd"),
            ("ä/€".as_bytes(), "ä/€"),
            (b"a\nb\x1b[31m", "a\\nb\\u{1b}[31m"),
            (b"l\xe4tin", "l\\xe4tin"),
        ] {
            assert_eq!(printable(path), expected);
        }
    }
}
