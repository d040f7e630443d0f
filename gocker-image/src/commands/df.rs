//! `df`: what the store takes on the disk.

use clap::Args;

use super::Context;
use crate::cli::Format;
use crate::operations;
use crate::progress::size_text;
use crate::store::{KindUsage, Usage};
use crate::{report, table};

#[derive(Args, Debug)]
pub(crate) struct DfArgs {
    /// Every layer, bundle and blob in a line of its own
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Prints what the store takes, if there is one.
pub(crate) fn df(context: &Context, args: &DfArgs) -> anyhow::Result<()> {
    let usage = context.find_store()?.map(|store| operations::usage(&store));
    let usage = usage.transpose()?;
    let text = match (args.format, &usage) {
        (Format::Json, _) => report::json(&usage)?,
        (Format::Text, None) => "there is no store yet\n".to_owned(),
        (Format::Text, Some(usage)) => text(usage, args.verbose),
    };
    Ok(report::print(&text)?)
}

fn text(usage: &Usage, verbose: bool) -> String {
    let kinds = [
        ("layers", &usage.layers),
        ("bundles", &usage.bundles),
        ("blobs", &usage.blobs),
        ("partial", &usage.partial),
    ];
    let head = ["KIND", "COUNT", "SIZE", "OWN", "RECLAIMABLE"];
    let none = ["images".to_owned(), usage.images.to_string()];
    let mut rows = vec![none.to_vec()];
    rows.extend(kinds.map(|(name, kind)| kind_row(name, kind)));
    let mut text = table::render(&head, &rows);
    if verbose {
        let items = kinds.iter().flat_map(|(name, kind)| item_rows(name, kind));
        let head = ["KIND", "NAME", "SIZE", "SHARED", "OWN", "USE", "QUOTA"];
        text.push('\n');
        text.push_str(&table::render(&head, &items.collect::<Vec<_>>()));
    }
    let disk = usage.file_system;
    let (size, free) = (size_text(disk.size_bytes), size_text(disk.free_bytes));
    text.push_str(&format!("\nfile system: {size}, {free} free\n"));
    if let Some(file) = &usage.backing_file {
        let (size, taken) = (size_text(file.size_bytes), size_text(file.allocated_bytes));
        let path = file.path.display();
        text.push_str(&format!("in {path}: up to {size}, takes {taken}\n"));
    }
    text
}

fn kind_row(name: &str, kind: &KindUsage) -> Vec<String> {
    vec![
        name.to_owned(),
        kind.count.to_string(),
        size_text(kind.bytes),
        size_text(kind.own_bytes),
        size_text(kind.reclaimable_bytes),
    ]
}

fn item_rows(name: &str, kind: &KindUsage) -> Vec<Vec<String>> {
    let rows = kind.items.iter().map(|item| {
        vec![
            name.to_owned(),
            item.name.clone(),
            size_text(item.bytes),
            size_text(item.shared_bytes),
            size_text(item.own_bytes),
            if item.unused { "unused" } else { "used" }.to_owned(),
            item.quota_bytes.map_or_else(|| "-".to_owned(), size_text),
        ]
    });
    rows.collect()
}
