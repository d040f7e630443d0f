//! `state` and `list`: what is known of one container, and of all.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::{State, status};
use crate::container::state_dir;
use crate::container::status::Status;

/// A container and where it stands.
pub(crate) struct Entry {
    /// What `state.json` says.
    pub(crate) state: State,
    /// Where it stands.
    pub(crate) status: Status,
}

/// Container `id`.
///
/// # Errors
/// There is none, or its files cannot be read.
pub(crate) fn one(root: &Path, id: &str) -> anyhow::Result<Entry> {
    let dir = state_dir::existing(root, id)?;
    let state = state_dir::read_state(&dir)?
        .context("container does not exist: its creation was cut short; delete it with --force")?;
    let status = status::seen_from_outside(&dir, &state)?;
    Ok(Entry { state, status })
}

/// All containers under `root`, by name. Those that cannot be read come with the reason.
///
/// # Errors
/// `root` cannot be listed.
pub(crate) fn all(root: &Path) -> anyhow::Result<(Vec<Entry>, Vec<String>)> {
    let dirs = match fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((vec![], vec![])),
        listed => listed.with_context(|| format!("list {root:?}"))?,
    };
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for dir in dirs {
        let dir = dir.with_context(|| format!("list {root:?}"))?;
        let name = dir.file_name().to_string_lossy().into_owned();
        if !dir.path().is_dir() {
            continue;
        }
        match one(root, &name) {
            Ok(entry) => entries.push(entry),
            // Deleted since it was listed.
            Err(_) if !dir.path().exists() => {}
            Err(error) => problems.push(format!("{name}: {}", crate::errors::one_line(&error))),
        }
    }
    entries.sort_unstable_by(|a, b| a.state.id.cmp(&b.state.id));
    Ok((entries, problems))
}

/// The name of user `uid`, as `list` shows it: `#UID` where there is none.
pub(crate) fn user_name(uid: u32) -> String {
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    fs::read_to_string("/etc/passwd")
        .ok()
        .and_then(|text| text.lines().find_map(line))
        .unwrap_or_else(|| format!("#{uid}"))
}
