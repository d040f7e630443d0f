//! Changes as a layer: an archive in the order of paths, with a whiteout for each name that is
//! gone.
//!
//! What stays as it was has no entry, directories on the way to a change neither. Directories
//! that lost everything get a whiteout for each name rather than an opaque one, because every
//! reader takes the two alike only then. All names of a file with hard links stand in one layer,
//! the first with its content, because layers that are unpacked apart cannot link to each other.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use tar::EntryType;

use super::archive::{Archive, Entry};
use super::changes::{Action, Change};
use super::node::{Kind, Node, Place, Xattrs};
use super::{MAX_DEPTH, PackError, shown};
use crate::descent::open_dir;
use crate::errno::CallError;
use crate::unpack::{Marker, marker, split};

/// How much of a file is read at a time.
const CHUNK: usize = 128 << 10;

/// How a layer is written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LayerOptions {
    /// No file is of a later time than this, in seconds since 1970.
    pub latest: Option<i64>,
}

/// What a layer holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Entries, whiteouts too.
    pub entries: u64,
}

/// Writes the `changes` that [`compare`](super::compare()) has found in the tree `root` as an
/// archive. `warn` is told what is left out.
///
/// # Errors
/// When something cannot be read or written, has changed since, or cannot be in a layer.
pub fn write_layer<W: Write>(
    root: BorrowedFd<'_>,
    changes: &[Change],
    options: LayerOptions,
    out: W,
    warn: &mut dyn FnMut(String),
) -> Result<(W, Packed), PackError> {
    let mut layer = Layer {
        root,
        options,
        archive: Archive::new(out),
        parent: None,
        packed: Packed::default(),
        warn,
    };
    for change in changes {
        layer.change(change)?;
    }
    let out = layer.archive.finish().map_err(PackError::Write)?;
    Ok((out, layer.packed))
}

struct Layer<'a, W> {
    root: BorrowedFd<'a>,
    options: LayerOptions,
    archive: Archive<W>,
    /// The directory that was opened last.
    parent: Option<(Vec<u8>, OwnedFd)>,
    packed: Packed,
    warn: &'a mut dyn FnMut(String),
}

impl<W: Write> Layer<'_, W> {
    fn change(&mut self, change: &Change) -> Result<(), PackError> {
        let (parent, name) = split(&change.path);
        if marker(name) != Marker::None {
            return Err(PackError::Marker(shown(&change.path)));
        }
        if change.action == Action::Changed && change.differs.is_empty() {
            return Ok(());
        }
        if change.path.split(|byte| *byte == b'/').count() > MAX_DEPTH {
            return Err(PackError::TooDeep {
                path: shown(&change.path),
                most: MAX_DEPTH,
            });
        }
        if change.action == Action::Deleted {
            return self.whiteout(parent, name);
        }
        if change.kind == Kind::Socket {
            (self.warn)(format!(
                "{:?} is left out: it is a socket",
                shown(&change.path)
            ));
            return match change.action {
                // what was there before it is gone
                Action::Changed => self.whiteout(parent, name),
                _ => Ok(()),
            };
        }
        self.packed.entries += 1;
        self.open_parent(parent)?;
        match &self.parent {
            Some((_, parent)) => {
                let place = Place {
                    parent: parent.as_fd(),
                    name: if name.is_empty() {
                        OsStr::new(".")
                    } else {
                        name
                    },
                };
                let node = self.options.dated(&change.node);
                put(&mut self.archive, place, change, &node)
            }
            None => Ok(()),
        }
    }

    fn whiteout(&mut self, parent: &[u8], name: &OsStr) -> Result<(), PackError> {
        self.packed.entries += 1;
        let mut path = parent.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(b".wh.");
        path.extend_from_slice(name.as_bytes());
        let entry = Entry {
            kind: EntryType::Regular,
            path: &path,
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: &Xattrs::new(),
        };
        self.archive.entry(&entry).map_err(PackError::Write)
    }

    fn open_parent(&mut self, path: &[u8]) -> Result<(), CallError> {
        if self.parent.as_ref().is_some_and(|(open, _)| open == path) {
            return Ok(());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        let fd = match path {
            b"" => open_dir(self.root, OsStr::new(".")),
            path => openat2(self.root, path, how),
        };
        let fd = fd.map_err(|errno| CallError::new("openat2", OsStr::from_bytes(path), errno))?;
        self.parent = Some((path.to_vec(), fd));
        Ok(())
    }
}

impl LayerOptions {
    fn dated(self, node: &Node) -> Node {
        let mut node = *node;
        if let Some(latest) = self.latest
            && node.mtime > (latest, 0)
        {
            node.mtime = (latest, 0);
        }
        node
    }
}

/// Writes what lies at `place`.
fn put<W: Write>(
    archive: &mut Archive<W>,
    place: Place<'_>,
    change: &Change,
    node: &Node,
) -> Result<(), PackError> {
    let mut path = change.path.clone();
    let (kind, link) = match (&change.link, node.kind) {
        (Some(first), _) => (EntryType::Link, first.clone()),
        (None, Kind::Directory) => {
            path.splice(
                0..0,
                if path.is_empty() { &b"."[..] } else { b"" }
                    .iter()
                    .copied(),
            );
            path.push(b'/');
            (EntryType::Directory, Vec::new())
        }
        (None, Kind::Symlink) => (EntryType::Symlink, place.target()?),
        (None, Kind::CharDevice) => (EntryType::Char, Vec::new()),
        (None, Kind::BlockDevice) => (EntryType::Block, Vec::new()),
        (None, Kind::Fifo) => (EntryType::Fifo, Vec::new()),
        (None, Kind::File | Kind::Socket) => (EntryType::Regular, Vec::new()),
    };
    let xattrs = match kind {
        EntryType::Link => Xattrs::new(),
        _ => place.xattrs()?,
    };
    let is_file = kind == EntryType::Regular;
    let entry = Entry {
        kind,
        path: &path,
        link: &link,
        mode: if kind == EntryType::Symlink {
            0o777
        } else {
            node.mode
        },
        uid: node.uid,
        gid: node.gid,
        size: if is_file { node.size } else { 0 },
        mtime: node.mtime,
        device: node.device,
        xattrs: &xattrs,
    };
    if !is_file {
        return archive.entry(&entry).map_err(PackError::Write);
    }
    let moved = || PackError::Moved(shown(&change.path));
    let fd = place.open_file()?;
    let stat = fstat(&fd).map_err(|errno| CallError::new("fstat", place.name, errno))?;
    let opened = Node::of(&stat);
    if (opened.kind, opened.inode) != (Kind::File, change.node.inode) {
        return Err(moved());
    }
    archive.entry(&entry).map_err(PackError::Write)?;
    let copied = copy(archive, File::from(fd), place.name, entry.size)?;
    if copied < entry.size {
        return Err(moved());
    }
    Ok(())
}

/// Writes at most `size` bytes of a file; says how many there were.
fn copy<W: Write>(
    archive: &mut Archive<W>,
    mut file: File,
    name: &OsStr,
    size: u64,
) -> Result<u64, PackError> {
    let mut buffer = vec![0; CHUNK];
    let mut copied = 0;
    while copied < size {
        let most = usize::try_from(size - copied).map_or(CHUNK, |left| left.min(CHUNK));
        match file.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(count) => {
                let part = &buffer[..count];
                archive.content(part).map_err(PackError::Write)?;
                copied += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CallError::new("read", name, error).into()),
        }
    }
    archive.end_content(copied).map_err(PackError::Write)?;
    Ok(copied)
}
