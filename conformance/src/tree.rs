//! Walks a file tree into records that can be compared one by one.
//!
//! Everything that a layer can carry is in a record; what a file system adds
//! of its own (inode numbers, directory sizes, change times) is not.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::stat::{major, minor};
use rustix::fs::{lgetxattr, llistxattr};
use sha2::{Digest, Sha256};

/// A tree: its root is the empty path.
pub type Tree = BTreeMap<Vec<u8>, Record>;

/// What one file is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// SHA-256 of its content.
        content: [u8; 32],
    },
    /// A symbolic link and what it says.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device: major, minor.
    CharDevice(u64, u64),
    /// A block device: major, minor.
    BlockDevice(u64, u64),
}

/// All that is compared of one file.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Type and content.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, of the files that are hard links of one
    /// another; None for a file with one name.
    pub link_group: Option<Vec<u8>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::File { size, content } => {
                let sum: String = content[..4]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                write!(f, "file of {size} bytes ({sum})")?;
            }
            Kind::Symlink(target) => write!(f, "symlink to {}", target.escape_ascii())?,
            kind => write!(f, "{kind:?}")?,
        }
        let (seconds, nanoseconds) = self.mtime;
        write!(
            f,
            " mode {:o} owner {}:{} mtime {seconds}.{nanoseconds:09}",
            self.mode, self.uid, self.gid
        )?;
        for (name, value) in &self.xattrs {
            write!(f, " {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        match &self.link_group {
            Some(first) => write!(f, " linked with {}", first.escape_ascii()),
            None => Ok(()),
        }
    }
}

/// Reads the whole tree at `root`.
///
/// # Errors
/// When something in it cannot be read.
pub fn read_tree(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut first_names = HashMap::new();
    read_below(root, root, &mut tree, &mut first_names)?;
    // Only a second name makes a group of the first.
    for first in first_names
        .into_values()
        .filter_map(|(first, names)| (names > 1).then_some(first))
    {
        if let Some(record) = tree.get_mut(&first) {
            record.link_group = Some(first.clone());
        }
    }
    Ok(tree)
}

/// By device and inode: the first path, and how many there are.
type FirstNames = HashMap<(u64, u64), (Vec<u8>, u32)>;

fn read_below(
    root: &Path,
    path: &Path,
    tree: &mut Tree,
    first_names: &mut FirstNames,
) -> Result<()> {
    let key = path.strip_prefix(root)?.as_os_str().as_bytes().to_vec();
    let metadata = path
        .symlink_metadata()
        .with_context(|| format!("read {path:?}"))?;
    let mut link_group = None;
    if metadata.nlink() > 1 && !metadata.is_dir() {
        let inode = (metadata.dev(), metadata.ino());
        let (first, names) = first_names.entry(inode).or_insert_with(|| (key.clone(), 0));
        *names += 1;
        link_group = (*names > 1).then(|| first.clone());
    }
    let mut record = match link_group.as_ref().and_then(|first| tree.get(first)) {
        // The same inode: its content was read already.
        Some(first) => first.clone(),
        None => read_record(path, &metadata).with_context(|| format!("read {path:?}"))?,
    };
    record.link_group = link_group;
    tree.insert(key, record);
    if metadata.is_dir() {
        let mut names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort();
        for name in names {
            read_below(root, &path.join(name), tree, first_names)?;
        }
    }
    Ok(())
}

fn read_record(path: &Path, metadata: &Metadata) -> Result<Record> {
    let file_type = metadata.file_type();
    let device = (major(metadata.rdev()), minor(metadata.rdev()));
    let kind = if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink(fs::read_link(path)?.into_os_string().into_vec())
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else if file_type.is_char_device() {
        Kind::CharDevice(device.0, device.1)
    } else if file_type.is_block_device() {
        Kind::BlockDevice(device.0, device.1)
    } else {
        Kind::File {
            size: metadata.len(),
            content: hash(path)?,
        }
    };
    Ok(Record {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        xattrs: read_xattrs(path)?,
        link_group: None,
    })
}

fn hash(path: &Path) -> Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&buffer[..count]);
    }
}

fn read_xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0_u8; 64 * 1024];
    let length = llistxattr(path, &mut names[..])?;
    let mut found = BTreeMap::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0_u8; 64 * 1024];
        let size = lgetxattr(path, OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(size);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

/// Says where two trees differ, one line a path; empty when they are alike.
#[must_use]
pub fn differences(left: (&str, &Tree), right: (&str, &Tree)) -> Vec<String> {
    let ((left_name, left), (right_name, right)) = (left, right);
    let mut lines = Vec::new();
    for (path, record) in left {
        let name = path.escape_ascii();
        match right.get(path) {
            None => lines.push(format!("{name}: only in {left_name}: {record:?}")),
            Some(other) if other != record => {
                lines.push(format!(
                    "{name}: {left_name}: {record:?}\n    {right_name}: {other:?}"
                ));
            }
            Some(_) => {}
        }
    }
    for (path, record) in right.iter().filter(|(path, _)| !left.contains_key(*path)) {
        lines.push(format!(
            "{}: only in {right_name}: {record:?}",
            path.escape_ascii()
        ));
    }
    lines
}

/// Each path with what a reader of a test wants to see: `d/`, `f=content`,
/// `l->target`, in order, the root left out.
///
/// # Errors
/// When something in it cannot be read.
pub fn outline(root: &Path) -> Result<Vec<String>> {
    let tree = read_tree(root)?;
    let rows = tree
        .iter()
        .filter(|(path, _)| !path.is_empty())
        .map(|(path, record)| {
            let name = path.escape_ascii();
            Ok(match &record.kind {
                Kind::Directory => format!("{name}/"),
                Kind::File { .. } => {
                    let content = fs::read(root.join(OsStr::from_bytes(path)))?;
                    format!("{name}={}", content.escape_ascii())
                }
                Kind::Symlink(target) => format!("{name}->{}", target.escape_ascii()),
                kind => format!("{name} {kind:?}"),
            })
        });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn trees_differ_where_content_links_or_times_do() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [one.path(), two.path()] {
            fs::create_dir(root.join("d")).unwrap();
            fs::write(root.join("d/f"), "same").unwrap();
            symlink("f", root.join("d/l")).unwrap();
        }
        // Both may have been made in one tick of the clock.
        let file = File::options()
            .write(true)
            .open(two.path().join("d/f"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let same_times =
            |tree: &mut Tree| tree.values_mut().for_each(|record| record.mtime = (0, 0));
        let (mut left, mut right) = (
            read_tree(one.path()).unwrap(),
            read_tree(two.path()).unwrap(),
        );
        assert_ne!(left, right, "the times differ");
        same_times(&mut left);
        same_times(&mut right);
        assert_eq!(
            differences(("left", &left), ("right", &right)),
            Vec::<String>::new()
        );

        fs::hard_link(two.path().join("d/f"), two.path().join("d/g")).unwrap();
        fs::write(two.path().join("d/f"), "else").unwrap();
        let mut right = read_tree(two.path()).unwrap();
        same_times(&mut right);
        let lines = differences(("left", &left), ("right", &right));
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[1].contains("linked with d/f"), "{lines:#?}");
        assert_eq!(outline(one.path()).unwrap(), ["d/", "d/f=same", "d/l->f"]);
    }
}
