//! The kernel's tables of mounts: where something is mounted.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::record::entries;
use crate::errno::CallError;

/// The table of this process.
const OWN: &str = "/proc/self/mountinfo";

/// The table of this process's mount namespace.
pub(super) fn own() -> Result<Vec<u8>, CallError> {
    fs::read(OWN).map_err(|error| CallError::new("read", OWN, error))
}

/// Where something is mounted, in any mount namespace that a process is in.
pub(super) fn points_everywhere() -> Result<HashSet<PathBuf>, CallError> {
    let (mut seen, mut found) = (HashSet::new(), HashSet::new());
    for (name, process) in entries(Path::new("/proc"))? {
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // it may end at any time
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else {
            continue;
        };
        if !seen.contains(&namespace)
            && let Ok(table) = fs::read(process.join("mountinfo"))
        {
            seen.insert(namespace);
            found.extend(points(&table));
        }
    }
    Ok(found)
}

/// The mount points of a table, in its order.
pub(super) fn points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(unescape)
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}
