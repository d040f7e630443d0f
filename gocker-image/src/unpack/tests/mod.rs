//! Whole layers, built in memory, applied to a directory.

mod archives;
mod hostile;
mod metadata;
mod whiteouts;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::layer::{Applied, LayerError};
use super::{Budgets, layer, without_umask};

/// One entry of an archive to build.
#[derive(Clone)]
struct Made {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    ids: (u64, u64),
    mtime: u64,
    device: (u32, u32),
    content: Vec<u8>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

fn made(kind: u8, name: &str) -> Made {
    Made {
        kind,
        name: name.as_bytes().to_vec(),
        link: Vec::new(),
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        ids: (
            u64::from(nix::unistd::geteuid().as_raw()),
            u64::from(nix::unistd::getegid().as_raw()),
        ),
        mtime: 1_000_000,
        device: (0, 0),
        content: Vec::new(),
        pax: Vec::new(),
    }
}

fn file(name: &str, content: &str) -> Made {
    let content = content.as_bytes().to_vec();
    Made {
        content,
        ..made(b'0', name)
    }
}

fn dir(name: &str) -> Made {
    made(b'5', name)
}

fn symlink(name: &str, target: &str) -> Made {
    let link = target.as_bytes().to_vec();
    Made {
        link,
        ..made(b'2', name)
    }
}

fn hard_link(name: &str, target: &str) -> Made {
    let link = target.as_bytes().to_vec();
    Made {
        link,
        ..made(b'1', name)
    }
}

impl Made {
    fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    fn mtime(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }

    fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.pax.push((key.as_bytes().to_vec(), value.to_vec()));
        self
    }
}

/// The archive of `entries`, with an end.
fn archive(entries: &[Made]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        append(&mut bytes, entry);
    }
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

fn append(bytes: &mut Vec<u8>, entry: &Made) {
    if !entry.pax.is_empty() {
        let records: Vec<u8> = entry
            .pax
            .iter()
            .flat_map(|(key, value)| pax_record(key, value))
            .collect();
        append(
            bytes,
            &Made {
                content: records,
                ..made(b'x', "pax")
            },
        );
    }
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..entry.name.len()].copy_from_slice(&entry.name);
    header.as_old_mut().linkname[..entry.link.len()].copy_from_slice(&entry.link);
    header.as_old_mut().linkflag = [entry.kind];
    header.set_mode(entry.mode);
    header.set_uid(entry.ids.0);
    header.set_gid(entry.ids.1);
    header.set_mtime(entry.mtime);
    header.set_size(entry.content.len() as u64);
    header.set_device_major(entry.device.0).unwrap();
    header.set_device_minor(entry.device.1).unwrap();
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&entry.content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut len = body;
    while len != body + len.to_string().len() {
        len = body + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// An empty root in a directory of its own.
struct Root {
    _outer: tempfile::TempDir,
    path: PathBuf,
}

impl Root {
    fn new() -> Self {
        let outer = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = outer.path().join("root");
        fs::create_dir(&path).unwrap();
        Self {
            _outer: outer,
            path,
        }
    }

    /// A root with the layers of `layers`.
    fn with(layers: &[&[Made]]) -> Self {
        let root = Self::new();
        for layer in layers {
            root.apply(&archive(layer)).unwrap();
        }
        root
    }

    fn apply(&self, archive: &[u8]) -> Result<Applied, LayerError> {
        self.apply_within(archive, &Budgets::default())
    }

    fn apply_within(&self, archive: &[u8], budgets: &Budgets) -> Result<Applied, LayerError> {
        without_umask().unwrap();
        let fd: OwnedFd = fs::File::open(&self.path).unwrap().into();
        layer::apply(fd, archive, budgets, &mut |_| {})
    }

    /// What lies in the root: paths, with a slash behind directories, an arrow
    /// and the target behind symlinks, content behind files.
    fn list(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.path, "", &mut lines);
        lines
    }

    fn metadata(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path.join(path)).unwrap()
    }

    /// Whether nothing was made beside the root.
    fn is_alone(&self) -> bool {
        fs::read_dir(self._outer.path()).unwrap().count() == 1
    }
}

fn list(directory: &Path, prefix: &str, lines: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            lines.push(format!("{name}/"));
            list(&path, &format!("{name}/"), lines);
        } else if kind.is_symlink() {
            lines.push(format!(
                "{name} -> {}",
                fs::read_link(&path).unwrap().display()
            ));
        } else if kind.is_file() {
            lines.push(
                format!("{name} {}", fs::read_to_string(&path).unwrap())
                    .trim()
                    .to_owned(),
            );
        } else if kind.is_fifo() {
            lines.push(format!("{name}|"));
        } else {
            let device = fs::symlink_metadata(&path).unwrap().rdev();
            lines.push(format!("{name} {}:{}", device >> 8, device & 0xff));
        }
    }
}

/// An error and its causes on one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("skipped: needs root");
    }
    is_root
}
