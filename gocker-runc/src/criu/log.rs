//! CRIU's log: what went wrong, in its own words.
//!
//! ```text
//! (00.012345) Error (criu/mount.c:1079): mnt: Mount 12 ./a (master_id: 0 ...) has no root
//! (00.012350)      1: Error (criu/cr-restore.c:2397): ...
//! (00.012400) Error (criu/cr-dump.c:1781): Dumping FAILED.
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// How much of the log's end is read, in bytes.
const TAIL: u64 = 1 << 20;

/// How many errors are repeated.
const MOST: usize = 3;

/// The longest that one error is repeated, in characters.
const MAX_LENGTH: usize = 400;

/// The last errors in the log at `path`, in one line; empty where it has none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn last_errors(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(errors_in(&String::from_utf8_lossy(&tail)))
}

fn errors_in(text: &str) -> String {
    let errors: Vec<&str> = text
        .lines()
        .filter_map(|line| line.find("Error (").map(|start| &line[start..]))
        .collect();
    // The verdict says nothing about the reason, unless it is all there is.
    let is_verdict = |error: &&&str| error.trim_end().ends_with("FAILED.");
    let mut reasons: Vec<&str> = errors
        .iter()
        .filter(|error| !is_verdict(error))
        .copied()
        .collect();
    if reasons.is_empty() {
        reasons = errors;
    }
    let first = reasons.len().saturating_sub(MOST);
    let shown: Vec<String> = reasons[first..]
        .iter()
        .map(|text| printable(text))
        .collect();
    shown.join("; ")
}

/// Paths of the container's are in the text.
fn printable(text: &str) -> String {
    let text = text.trim_end().chars().take(MAX_LENGTH);
    text.map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reasons_are_told() {
        let table = [
            ("", ""),
            ("(00.1) Warn  (criu/a.c:1): b\n", ""),
            (
                "(00.1) Error (criu/a.c:1): one\n(00.2) Error (criu/b.c:2): Dumping FAILED.\n",
                "Error (criu/a.c:1): one",
            ),
            (
                "(00.2) Error (criu/b.c:2): Dumping FAILED.\n",
                "Error (criu/b.c:2): Dumping FAILED.",
            ),
            (
                "Error (1): a\nError (2): b\n(0)  7: Error (3): c\u{1b}\nError (4): d\n",
                "Error (2): b; Error (3): c?; Error (4): d",
            ),
        ];
        for (log, expected) in table {
            assert_eq!(errors_in(log), expected, "{log}");
        }
    }
}
