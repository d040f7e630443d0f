//! The files of a saved image, read in any order: a directory, or a tar archive. An archive that
//! is compressed, or comes by a stream, is written aside first, to a file without a name.
//!
//! Nothing of it is unpacked, and no name of it is ever one on this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::errno::CallError;
use crate::registry::DOCUMENT_LIMIT;
use crate::store::Store;
use crate::unpack::{self, Budgets, Compression, Member, MemberKind};

/// Below this much the growth of a compressed archive is not looked at.
const RATIO_FLOOR_BYTES: u64 = 1 << 30;

/// Where images are loaded from.
pub enum LoadFrom {
    /// A file or a directory.
    Path(PathBuf),
    /// A stream.
    Stream(Box<dyn Read + Send>),
}

/// The files of a saved image.
pub(super) enum ImageSource {
    Archive(Arc<File>, BTreeMap<String, MemberKind>),
    Directory(File),
}

/// A file of a saved image.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    file: Arc<File>,
    offset: u64,
    pub(super) size: u64,
}

impl ImageSource {
    pub(super) fn open(store: &Store, from: LoadFrom, budgets: &Budgets) -> anyhow::Result<Self> {
        let path = match from {
            LoadFrom::Stream(stream) => return Self::aside(store, stream, budgets),
            LoadFrom::Path(path) => path,
        };
        let opened = File::open(&path);
        let file = opened.map_err(|error| CallError::new("open", &path, error))?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| CallError::new("stat", &path, error))?;
        if metadata.is_dir() {
            return Ok(Self::Directory(file));
        }
        let mut start = [0; 8];
        let is_plain = metadata.is_file()
            && file.read_at(&mut start, 0).is_ok()
            && Compression::of(&start) == Compression::None
            && unpack::other_program(&start).is_none();
        if is_plain {
            return Self::archive(file);
        }
        Self::aside(store, Box::new(file), budgets)
    }

    /// Writes an archive to a file without a name, decompressed.
    fn aside(
        store: &Store,
        stream: Box<dyn Read + Send>,
        budgets: &Budgets,
    ) -> anyhow::Result<Self> {
        let mut file = store.scratch()?;
        let input = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            reader: stream,
            count: Arc::clone(&input),
        };
        let decoder = unpack::decoder(BufReader::with_capacity(256 << 10, counted));
        let (compression, mut decoder) = decoder.context("read the archive")?;
        let mut buffer = vec![0; 256 << 10];
        let mut output = 0;
        loop {
            let context = || format!("read the archive ({})", compression.name());
            let count = decoder.read(&mut buffer).with_context(context)?;
            if count == 0 {
                break;
            }
            output += count as u64;
            let input = input.load(Ordering::Relaxed);
            if output > input.saturating_mul(budgets.ratio).max(RATIO_FLOOR_BYTES) {
                bail!(
                    "the archive grows to more than {} times its size",
                    budgets.ratio
                );
            }
            let written = file.write_all(&buffer[..count]);
            written.map_err(|error| CallError::new("write", store.path(), error))?;
        }
        drop(decoder);
        Self::archive(file)
    }

    fn archive(file: File) -> anyhow::Result<Self> {
        let clone = file.try_clone();
        let clone = clone.map_err(|error| CallError::new("dup", "", error))?;
        let members = unpack::members(clone).context("the archive")?;
        let mut files = BTreeMap::new();
        for Member { name, kind } in members {
            let shown = String::from_utf8_lossy(&name).into_owned();
            let context = || format!("the archive's {shown:?}");
            let name = joined("", &name).with_context(context)?;
            let kind = match kind {
                MemberKind::Directory => continue,
                MemberKind::Other => bail!("the archive's {shown:?} is no file that an image has"),
                // checked here, followed only if it is asked for
                MemberKind::Symlink(target) => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let target = joined(parent, &target).with_context(context)?;
                    MemberKind::HardLink(target.into_bytes())
                }
                MemberKind::HardLink(target) => {
                    let target = joined("", &target).with_context(context)?;
                    MemberKind::HardLink(target.into_bytes())
                }
                file @ MemberKind::File { .. } => file,
            };
            if files.insert(name, kind).is_some() {
                bail!("the archive's {shown:?} stands twice");
            }
        }
        Ok(Self::Archive(Arc::new(file), files))
    }

    /// The file `name`; None if there is none.
    pub(super) fn find(&self, name: &str) -> anyhow::Result<Option<Piece>> {
        match self {
            Self::Archive(file, members) => {
                let mut found = members.get(name);
                if let Some(MemberKind::HardLink(target)) = found {
                    found = members.get(&*String::from_utf8_lossy(target));
                }
                match found {
                    None => Ok(None),
                    Some(&MemberKind::File { offset, size }) => Ok(Some(Piece {
                        file: Arc::clone(file),
                        offset,
                        size,
                    })),
                    Some(_) => bail!("the archive's {name:?} is a link to another link"),
                }
            }
            Self::Directory(directory) => find_beneath(directory, name),
        }
    }

    /// The file `name`, which must be there.
    pub(super) fn get(&self, name: &str) -> anyhow::Result<Piece> {
        let found = self.find(name)?;
        found.with_context(|| format!("{name:?} is missing"))
    }

    /// What the transport of this kind of source is called, given that of an archive.
    pub(super) fn is_archive(&self) -> bool {
        matches!(self, Self::Archive(..))
    }
}

/// Opens a file of a directory, which no link leads out of.
fn find_beneath(directory: &File, name: &str) -> anyhow::Result<Option<Piece>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(errno) => {
            return Err(CallError::new("openat2", Path::new(name), io::Error::from(errno)).into());
        }
    };
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| CallError::new("stat", name, error))?;
    if !metadata.is_file() {
        bail!("{name:?} is not a regular file");
    }
    Ok(Some(Piece {
        file: Arc::new(file),
        offset: 0,
        size: metadata.len(),
    }))
}

/// A name of an archive from its root, where it is written in `directory`.
fn joined(directory: &str, name: &[u8]) -> anyhow::Result<String> {
    let name = std::str::from_utf8(name)
        .ok()
        .context("its name is not UTF-8")?;
    if name.starts_with('/') {
        bail!("its name or target {name:?} is absolute");
    }
    let mut parts: Vec<&str> = directory
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let may_climb = !directory.is_empty();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." if may_climb && parts.pop().is_some() => {}
            ".." => bail!("its name or target {name:?} leads out of the archive"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

impl Piece {
    /// Reads it from its beginning.
    pub(super) fn reader(&self) -> impl Read + Send + 'static {
        PieceReader {
            piece: self.clone(),
            position: 0,
        }
    }

    /// Reads a document whole.
    pub(super) fn document(&self) -> anyhow::Result<Vec<u8>> {
        if self.size > DOCUMENT_LIMIT {
            bail!(
                "it has {} bytes, and a document at most {DOCUMENT_LIMIT}",
                self.size
            );
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

struct PieceReader {
    piece: Piece,
    position: u64,
}

impl Read for PieceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.piece.size - self.position;
        let most = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let offset = self.piece.offset + self.position;
        let count = self.piece.file.read_at(&mut buf[..most], offset)?;
        self.position += count as u64;
        Ok(count)
    }
}

struct Counted {
    reader: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buf)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_archive() {
        let cases = [
            ("", "a/b", Some("a/b")),
            ("", "./a//b/.", Some("a/b")),
            ("", "/a", None),
            ("", "../a", None),
            ("", "a/../../b", None),
            ("", "a/../b", None),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x", "layer.tar", Some("x/layer.tar")),
            ("x", "../../y", None),
            ("x", "/etc/passwd", None),
        ];
        for (directory, name, expected) in cases {
            let found = joined(directory, name.as_bytes()).ok();
            assert_eq!(found.as_deref(), expected, "{name:?} in {directory:?}");
        }
        assert!(joined("", b"\xff").is_err());
    }
}
