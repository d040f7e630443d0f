//! The mounts that a process sees, as `/proc/PID/mountinfo` tells them.
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//! id parent dev root point options optional... - type source super-options
//! ```

use std::fs;
use std::path::PathBuf;

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is mounted.
    pub root: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Options of this mount: `ro`, `nosuid`, ...
    pub options: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`.
    pub propagation: Vec<String>,
    /// File system type.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options of the file system.
    pub super_options: Vec<String>,
}

impl Mount {
    /// Whether the mount itself has this option.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }

    /// Whether the file system has this option.
    #[must_use]
    pub fn file_system_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|own| own == option)
    }
}

/// The mounts of this thread's mount namespace.
///
/// # Panics
/// When /proc cannot be read.
#[must_use]
pub fn current() -> Vec<Mount> {
    parse(&fs::read_to_string("/proc/thread-self/mountinfo").expect("read mountinfo"))
}

/// Reads the text of a mountinfo file; lines of another form are left out.
#[must_use]
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<&str> = before.split(' ').collect();
    let after: Vec<&str> = after.split(' ').collect();
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Mount {
        root: (*before.get(3)?).to_owned(),
        point: PathBuf::from(before.get(4)?.replace("\\040", " ")),
        options: list(before.get(5)?),
        propagation: before[6..].iter().map(|&word| word.to_owned()).collect(),
        kind: (*after.first()?).to_owned(),
        source: (*after.get(1)?).to_owned(),
        super_options: list(after.get(2)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let mounts = parse(
            "36 35 98:0 /a /b\\040c rw,noatime shared:3 master:1 - ext3 /dev/root rw,x=y\nnoise\n",
        );
        assert_eq!(mounts.len(), 1);
        let mount = &mounts[0];
        assert_eq!(mount.point, PathBuf::from("/b c"));
        assert_eq!(mount.propagation, ["shared:3", "master:1"]);
        assert_eq!((mount.kind.as_str(), mount.root.as_str()), ("ext3", "/a"));
        assert!(mount.has("noatime") && mount.file_system_has("x=y") && !mount.has("x=y"));
    }
}
