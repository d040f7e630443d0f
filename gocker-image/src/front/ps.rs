//! `gocker ps`: the containers, for people and for programs.

use serde::Serialize;

use super::cli::PsArgs;
use super::containers::{self, Container};
use super::runtime::Runtime;
use crate::cli::Format;
use crate::reference::Reference;
use crate::store::Store;
use crate::{report, table};

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    image: &'a str,
    command: &'a [String],
    created: &'a str,
    status: &'a str,
    pid: i32,
    bundle: &'a std::path::Path,
}

/// Prints the containers that run, or all.
pub(super) fn ps(store: Option<&Store>, runtime: &Runtime, args: &PsArgs) -> anyhow::Result<()> {
    let mut containers = match store {
        Some(store) => containers::list(store, runtime)?,
        None => Vec::new(),
    };
    containers.retain(|container| args.all || !container.is_stopped());
    let rows: Vec<_> = containers.iter().map(row).collect();
    let text = if args.quiet {
        rows.iter().map(|row| format!("{}\n", row.id)).collect()
    } else if args.format == Format::Json {
        report::json(&rows)?
    } else {
        let head = [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PID",
        ];
        table::render(&head, &rows.iter().map(cells).collect::<Vec<_>>())
    };
    Ok(report::print(&text)?)
}

fn row(container: &Container) -> Row<'_> {
    Row {
        id: &container.bundle.id,
        image: &container.bundle.reference,
        command: &container.bundle.args,
        created: &container.bundle.created,
        status: container.status(),
        pid: container.pid(),
        bundle: &container.bundle.directory,
    }
}

fn cells(row: &Row<'_>) -> Vec<String> {
    let image = row.image.parse().map_or_else(
        |_| row.image.to_owned(),
        |image: Reference| image.familiar(),
    );
    let pid = if row.pid > 0 {
        row.pid.to_string()
    } else {
        "-".to_owned()
    };
    let command = table::cut(&row.command.join(" "), 40);
    vec![
        row.id.to_owned(),
        image,
        command,
        row.created.to_owned(),
        row.status.to_owned(),
        pid,
    ]
}
