//! `tags`: lists the tags of a repository.

use anyhow::Context as _;
use serde::Serialize;

use super::Context;
use crate::cli::{Format, TagsArgs};
use crate::report;

#[derive(Serialize)]
struct Answer<'a> {
    repository: &'a str,
    tags: &'a [String],
}

/// Prints the tags that a registry has of a repository.
pub(crate) fn tags(context: &Context, args: &TagsArgs) -> anyhow::Result<()> {
    let reference = context.qualify(&args.repository)?;
    let name = reference.name();
    let given = super::login::given(reference.registry(), args.creds.as_deref())?;
    let client = context.client(given)?;
    let tags = client
        .tags(&reference)
        .with_context(|| format!("tags of {name:?}"))?;
    let text = match args.format {
        Format::Json => {
            let answer = Answer {
                repository: &name,
                tags: &tags,
            };
            report::json(&answer)?
        }
        Format::Text => tags.iter().map(|tag| format!("{tag}\n")).collect(),
    };
    Ok(report::print(&text)?)
}
