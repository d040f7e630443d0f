//! `history`: the steps by which an image was made.

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Context;
use crate::cli::Format;
use crate::digest::Digest;
use crate::operations::{self, Step};
use crate::progress::{short, size_text};
use crate::reference::Reference;
use crate::{report, table};

/// The most characters of a command that are shown.
const COMMAND_WIDTH: usize = 60;

#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    /// The image
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Show commands and digests whole
    #[arg(long)]
    no_trunc: bool,
    /// How the list is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Row<'a> {
    created: Option<&'a str>,
    created_by: Option<&'a str>,
    comment: Option<&'a str>,
    empty_layer: bool,
    diff_id: Option<&'a Digest>,
    blob: Option<&'a Digest>,
    transfer_bytes: u64,
    content_bytes: u64,
}

/// Prints the steps, the last one first.
pub(crate) fn history(context: &Context, args: &HistoryArgs) -> anyhow::Result<()> {
    let store = context.store_with_image("history of", &args.reference)?;
    let steps = operations::history(&store, &context.qualify(&args.reference)?)?;
    let text = if args.format == Format::Json {
        let rows: Vec<_> = steps.iter().map(row).collect();
        report::json(&rows)?
    } else {
        let head = ["CREATED", "CREATED BY", "SIZE", "DIFF ID", "COMMENT"];
        let now = OffsetDateTime::now_utc();
        let rows: Vec<_> = steps
            .iter()
            .map(|step| cells(step, now, args.no_trunc))
            .collect();
        table::render(&head, &rows)
    };
    Ok(report::print(&text)?)
}

fn row(step: &Step) -> Row<'_> {
    let layer = step.layer.as_ref();
    Row {
        created: step.created.as_deref(),
        created_by: step.created_by.as_deref(),
        comment: step.comment.as_deref(),
        empty_layer: layer.is_none(),
        diff_id: layer.map(|layer| &layer.diff_id),
        blob: layer.map(|layer| &layer.blob),
        transfer_bytes: layer.map_or(0, |layer| layer.transfer_bytes),
        content_bytes: layer.map_or(0, |layer| layer.content_bytes),
    }
}

fn cells(step: &Step, now: OffsetDateTime, whole: bool) -> Vec<String> {
    let command = step.created_by.as_deref().unwrap_or("<unknown>");
    let diff_id = step.layer.as_ref().map_or("<empty>", |layer| {
        if whole {
            layer.diff_id.hex()
        } else {
            short(&layer.diff_id)
        }
    });
    vec![
        step.created
            .as_deref()
            .map_or_else(|| "<unknown>".to_owned(), |text| age(text, now)),
        if whole {
            command.to_owned()
        } else {
            table::cut(command, COMMAND_WIDTH)
        },
        size_text(step.layer.as_ref().map_or(0, |layer| layer.content_bytes)),
        diff_id.to_owned(),
        step.comment.clone().unwrap_or_default(),
    ]
}

/// How long ago a time was, in its largest unit; the text itself if it is no time, or to come.
fn age(text: &str, now: OffsetDateTime) -> String {
    const UNITS: [(i64, &str); 6] = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (7 * 86_400, "week"),
        (86_400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    let Ok(then) = OffsetDateTime::parse(text, &Rfc3339) else {
        return text.to_owned();
    };
    let seconds = (now - then).whole_seconds();
    if seconds < 0 {
        return text.to_owned();
    }
    for (unit, name) in UNITS {
        match seconds / unit {
            0 => {}
            1 => return format!("1 {name} ago"),
            count => return format!("{count} {name}s ago"),
        }
    }
    "less than a minute ago".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_their_largest_unit() {
        let now = OffsetDateTime::parse("2026-01-01T00:00:00Z", &Rfc3339).unwrap();
        let cases = [
            ("2025-12-31T23:59:30Z", "less than a minute ago"),
            ("2025-12-31T23:59:00Z", "1 minute ago"),
            ("2026-01-01T00:00:00+02:00", "2 hours ago"),
            ("2025-12-30T00:00:00.5Z", "1 day ago"),
            ("2025-12-10T00:00:00Z", "3 weeks ago"),
            ("2025-06-01T00:00:00Z", "7 months ago"),
            ("1970-01-01T00:00:00Z", "56 years ago"),
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("yesterday", "yesterday"),
        ];
        for (text, expected) in cases {
            assert_eq!(age(text, now), expected, "{text}");
        }
    }
}
