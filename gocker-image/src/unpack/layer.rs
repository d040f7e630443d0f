//! One layer: applies the entries of a tar stream to a root, in their order.
//!
//! ```text
//! per entry  normalise its name -> find or make the parent -> whiteout?
//!            -> make it (O_EXCL; what is in the way goes first)
//!            -> content -> chown -> chmod -> xattrs -> times
//! at the end destroy what was whited out -> times of directories
//! ```
//!
//! Spec: image-spec layer.md

use std::ffi::OsStr;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{SFlag, makedev, mkdirat, mknodat};
use nix::unistd::{Whence, ftruncate, linkat, lseek, symlinkat};

use super::Budgets;
use super::in_root::{Dir, PathError, Tree, normalise, split};
use super::ownership::{self, Born, HasMode};
use super::tar_stream::{Entry, Kind, TarError, TarStream};
use super::whiteout::{self, Changes, Marker};
use super::xattr::{self, XattrError};
use crate::descent::open_dir;
use crate::errno::CallError;

/// Why a layer was not applied.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive is wrong outside of an entry.
    #[error("after entry {after:?}")]
    Archive {
        /// The last entry that was whole; empty at the start.
        after: String,
        /// What is wrong.
        source: TarError,
    },
    /// The archive is wrong before its first entry.
    #[error(transparent)]
    Start(TarError),
    /// An entry cannot be made.
    #[error("entry {path:?}")]
    Entry {
        /// Its name in the archive.
        path: String,
        /// Why.
        source: EntryError,
    },
    /// The work after the last entry failed.
    #[error("finish the layer")]
    Finish(#[source] CallError),
}

impl LayerError {
    /// Whether the file system is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Entry {
                source: EntryError::Call(error),
                ..
            }
            | Self::Finish(error) => error.is_full(),
            _ => false,
        }
    }

    /// Whether the stream that the layer came from failed, so that its own
    /// error tells more.
    pub(super) fn is_of_the_stream(&self) -> bool {
        matches!(
            self,
            Self::Archive {
                source: TarError::Read(_),
                ..
            } | Self::Start(TarError::Read(_))
                | Self::Entry {
                    source: EntryError::Tar(TarError::Read(_)),
                    ..
                }
        )
    }
}

/// Why one entry cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Its name is refused.
    #[error("its name {0}")]
    Name(PathError),
    /// The name that it links to is refused.
    #[error("its link target {0:?} {1}")]
    Target(String, PathError),
    /// It links to nothing.
    #[error("it is a hard link to {0:?}, which does not exist")]
    NoTarget(String),
    /// It is the root and no directory.
    #[error("the root can only be a directory")]
    Root,
    /// It is a whiteout of nothing, of `.` or of `..`.
    #[error("it is not a valid whiteout")]
    Whiteout,
    /// More than a budget allows.
    #[error("it exceeds the limit of {limit} {what}")]
    Budget {
        /// What there is too much of.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
    },
    /// Its headers or content are wrong.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An extended attribute was not set.
    #[error(transparent)]
    Xattr(#[from] XattrError),
    /// The kernel refused.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What a layer brought.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// Applies the archive in `reader` to the directory `root`. The caller's umask
/// is 0. `warn` is told what is skipped.
pub(super) fn apply(
    root: OwnedFd,
    reader: impl BufRead,
    budgets: &Budgets,
    warn: &mut dyn FnMut(String),
) -> Result<Applied, LayerError> {
    let mut stream = TarStream::new(reader);
    let mut layer = Layer {
        tree: Tree::new(root).map_err(LayerError::Finish)?,
        changes: Changes::default(),
        budgets,
        applied: Applied::default(),
        warn,
    };
    let mut last = String::new();
    loop {
        let entry = match stream.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(source) => return Err(archive_error(last, source)),
        };
        last = String::from_utf8_lossy(&entry.path).into_owned();
        if let Err(source) = layer.apply(&entry, &mut stream) {
            return Err(LayerError::Entry { path: last, source });
        }
    }
    (stream.finish()).map_err(|source| archive_error(last, source))?;
    if stream.ignored_globals {
        (layer.warn)("global extended headers (PAX) are ignored".to_owned());
    }
    let applied = layer.applied;
    layer.finish().map_err(LayerError::Finish)?;
    Ok(applied)
}

fn archive_error(after: String, source: TarError) -> LayerError {
    if after.is_empty() {
        LayerError::Start(source)
    } else {
        LayerError::Archive { after, source }
    }
}

struct Layer<'a> {
    tree: Tree,
    changes: Changes,
    budgets: &'a Budgets,
    applied: Applied,
    warn: &'a mut dyn FnMut(String),
}

impl Layer<'_> {
    fn apply(
        &mut self,
        entry: &Entry,
        stream: &mut TarStream<impl BufRead>,
    ) -> Result<(), EntryError> {
        self.charge(entry)?;
        let path = normalise(&entry.path, self.budgets.path_depth).map_err(EntryError::Name)?;
        if path.is_empty() {
            return self.root(entry);
        }
        let (parent, name) = split(&path);
        if is_reserved(&path) {
            (self.warn)(format!("entry {:?} is skipped", OsStr::from_bytes(&path)));
            return Ok(());
        }
        match whiteout::marker(name) {
            Marker::None => {}
            Marker::Invalid => return Err(EntryError::Whiteout),
            Marker::Reserved => return Ok(()),
            Marker::Whiteout(target) => {
                if let Some(dir) = self.tree.find(parent)? {
                    self.changes.whiteout(&mut self.tree, &dir, target)?;
                }
                return Ok(());
            }
            Marker::Opaque => {
                if let Some(dir) = self.tree.find(parent)? {
                    self.changes.opaque(&mut self.tree, &dir)?;
                }
                return Ok(());
            }
        }
        let dir = self.tree.make(parent)?;
        match entry.kind {
            Kind::Regular => self.file(&dir, name, entry, stream)?,
            Kind::Directory => self.directory(&dir, &path, entry)?,
            Kind::HardLink => self.hard_link(&dir, name, entry)?,
            Kind::Symlink => self.symlink(&dir, name, entry)?,
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.node(&dir, name, entry)?,
        }
        self.changes.note_made(&dir, name);
        Ok(())
    }

    /// Counts `entry` against the budgets.
    fn charge(&mut self, entry: &Entry) -> Result<(), EntryError> {
        let over = |what, limit, used: u64| match used > limit {
            true => Err(EntryError::Budget { what, limit }),
            false => Ok(()),
        };
        let stored = match &entry.extents {
            Some(extents) => extents.iter().map(|extent| extent.len).sum(),
            None => entry.size,
        };
        self.applied.entries += 1;
        self.applied.bytes = self.applied.bytes.saturating_add(stored);
        let xattrs = entry.xattrs.iter();
        let xattr_bytes = xattrs
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
        let budgets = self.budgets;
        over("entries", budgets.entries, self.applied.entries)?;
        over("bytes in one layer", budgets.bytes, self.applied.bytes)?;
        over("bytes in one file", budgets.file_bytes, entry.size)?;
        over(
            "bytes of extended attributes",
            budgets.xattr_bytes,
            xattr_bytes as u64,
        )
    }

    fn root(&mut self, entry: &Entry) -> Result<(), EntryError> {
        if entry.kind != Kind::Directory {
            return Err(EntryError::Root);
        }
        let root = self.tree.root();
        let fd = open_dir(root.fd.as_fd(), OsStr::new("."))
            .map_err(|errno| CallError::new("openat", ".", errno))?;
        self.merge(&fd, entry)?;
        let (atime, mtime) = ownership::times(entry);
        self.tree.set_times(root.inode, b"", atime, mtime);
        self.tree.adopt(b"", fd)?;
        Ok(())
    }

    fn file(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        entry: &Entry,
        stream: &mut TarStream<impl BufRead>,
    ) -> Result<(), EntryError> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = ownership::creation_mode(entry);
        let fd = self.in_place("openat", dir, name, || openat(&dir.fd, name, flags, mode))?;
        let file = std::fs::File::from(fd);
        match &entry.extents {
            None => copy(&file, stream, entry.size)?,
            Some(extents) => {
                for extent in extents {
                    let offset = extent.offset.cast_signed();
                    lseek(&file, offset, Whence::SeekSet)
                        .map_err(|errno| CallError::new("lseek", name, errno))?;
                    copy(&file, stream, extent.len)?;
                }
                ftruncate(&file, entry.size.cast_signed())
                    .map_err(|errno| CallError::new("ftruncate", name, errno))?;
            }
        }
        if dir.bequeaths {
            xattr::remove_others(file.as_fd(), &[])?;
        }
        ownership::own(file.as_fd(), entry, born(dir))?;
        if !entry.xattrs.is_empty() {
            let skipped = xattr::set(file.as_fd(), &entry.xattrs)?;
            self.warn_skipped(entry, skipped);
        }
        Ok(ownership::date(file.as_fd(), entry)?)
    }

    fn directory(&mut self, dir: &Dir, path: &[u8], entry: &Entry) -> Result<(), EntryError> {
        let (_, name) = split(path);
        let mode = ownership::creation_mode(entry);
        let fd = match mkdirat(&dir.fd, name, mode) {
            Ok(()) => {
                let fd = open_dir(dir.fd.as_fd(), name)
                    .map_err(|errno| CallError::new("openat", name, errno))?;
                if dir.bequeaths {
                    self.merge(&fd, entry)?;
                } else {
                    ownership::own(fd.as_fd(), entry, Born::Plain)?;
                    let skipped = xattr::set(fd.as_fd(), &entry.xattrs)?;
                    self.warn_skipped(entry, skipped);
                }
                fd
            }
            Err(Errno::EEXIST) => {
                if let Ok(fd) = open_dir(dir.fd.as_fd(), name) {
                    self.merge(&fd, entry)?;
                    fd
                } else {
                    self.make_room(dir, name)?;
                    return self.directory(dir, path, entry);
                }
            }
            Err(errno) => return Err(CallError::new("mkdirat", name, errno).into()),
        };
        let dir = self.tree.adopt(path, fd)?;
        let (atime, mtime) = ownership::times(entry);
        self.tree.set_times(dir.inode, path, atime, mtime);
        Ok(())
    }

    /// Replaces all metadata of a directory that exists by that of `entry`.
    fn merge(&mut self, fd: &OwnedFd, entry: &Entry) -> Result<(), EntryError> {
        xattr::remove_others(fd.as_fd(), &entry.xattrs)?;
        ownership::own(fd.as_fd(), entry, Born::Unknown)?;
        let skipped = xattr::set(fd.as_fd(), &entry.xattrs)?;
        self.warn_skipped(entry, skipped);
        Ok(())
    }

    fn hard_link(&mut self, dir: &Dir, name: &OsStr, entry: &Entry) -> Result<(), EntryError> {
        let link = || String::from_utf8_lossy(&entry.link).into_owned();
        let target = normalise(&entry.link, self.budgets.path_depth)
            .map_err(|reason| EntryError::Target(link(), reason))?;
        let missing = || EntryError::NoTarget(link());
        if target.is_empty() {
            return Err(missing());
        }
        let (target_parent, target_name) = split(&target);
        let source = match self.tree.find(target_parent)? {
            Some(parent) => {
                let stat = whiteout::stat_at(parent.fd.as_fd(), target_name)?;
                stat.map(|stat| (parent, stat))
            }
            None => None,
        };
        let Some((parent, stat)) = source else {
            self.make_room(dir, name)?;
            let moved = (self.changes).link_moved(&mut self.tree, &target, (dir, name))?;
            return if moved { Ok(()) } else { Err(missing()) };
        };
        let existing = whiteout::stat_at(dir.fd.as_fd(), name)?;
        if existing.is_some_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(()); // it is that file already
        }
        self.in_place("linkat", dir, name, || {
            linkat(&parent.fd, target_name, &dir.fd, name, AtFlags::empty())
        })
    }

    fn symlink(&mut self, dir: &Dir, name: &OsStr, entry: &Entry) -> Result<(), EntryError> {
        let target = OsStr::from_bytes(&entry.link);
        self.in_place("symlinkat", dir, name, || symlinkat(target, &dir.fd, name))?;
        self.finish_at(dir, name, entry, HasMode::No)
    }

    fn node(&mut self, dir: &Dir, name: &OsStr, entry: &Entry) -> Result<(), EntryError> {
        let kind = match entry.kind {
            Kind::CharDevice => SFlag::S_IFCHR,
            Kind::BlockDevice => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        let (major, minor) = entry.device;
        let device = makedev(u64::from(major), u64::from(minor));
        let mode = ownership::creation_mode(entry);
        self.in_place("mknodat", dir, name, || {
            mknodat(&dir.fd, name, kind, mode, device)
        })?;
        self.finish_at(dir, name, entry, HasMode::Yes)
    }

    /// Sets the metadata of what is no file and no directory.
    fn finish_at(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        entry: &Entry,
        has_mode: HasMode,
    ) -> Result<(), EntryError> {
        let parent = dir.fd.as_fd();
        ownership::own_at(parent, name, entry, born(dir), has_mode)?;
        if !entry.xattrs.is_empty() {
            let skipped = xattr::set_at(parent, name, &entry.xattrs)?;
            self.warn_skipped(entry, skipped);
        }
        Ok(ownership::date_at(parent, name, entry)?)
    }

    /// Makes something that must not exist yet; what is in its place goes.
    fn in_place<T>(
        &mut self,
        call: &'static str,
        dir: &Dir,
        name: &OsStr,
        make: impl Fn() -> nix::Result<T>,
    ) -> Result<T, EntryError> {
        let result = match make() {
            Err(Errno::EEXIST) => {
                self.make_room(dir, name)?;
                make()
            }
            result => result,
        };
        Ok(result.map_err(|errno| CallError::new(call, name, errno))?)
    }

    fn make_room(&mut self, dir: &Dir, name: &OsStr) -> Result<(), CallError> {
        whiteout::remove(dir.fd.as_fd(), name)?;
        self.tree.forget();
        Ok(())
    }

    fn warn_skipped(&mut self, entry: &Entry, skipped: xattr::NotSupported) {
        for name in skipped.0 {
            let path = OsStr::from_bytes(&entry.path);
            (self.warn)(format!(
                "entry {path:?}: attribute {name:?} is not supported here"
            ));
        }
    }

    fn finish(mut self) -> Result<(), CallError> {
        self.changes.finish(&self.tree)?;
        self.tree.restore_times()
    }
}

/// Whether a component of `path` is bookkeeping of AUFS.
fn is_reserved(path: &[u8]) -> bool {
    let mut components = path.split(|byte| *byte == b'/').map(OsStr::from_bytes);
    components.any(|name| whiteout::marker(name) == Marker::Reserved)
}

fn born(dir: &Dir) -> Born {
    if dir.bequeaths {
        Born::Unknown
    } else {
        Born::Plain
    }
}

/// Writes `len` bytes of content, from the pieces that they come in.
fn copy(
    mut file: &std::fs::File,
    stream: &mut TarStream<impl BufRead>,
    len: u64,
) -> Result<(), EntryError> {
    let mut left = len;
    while left > 0 {
        let piece = stream.content()?;
        if piece.is_empty() {
            return Err(TarError::Sparse.into()); // the map names more than is stored
        }
        let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let written = file.write(&piece[..count]);
        let written = match written {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(CallError::new("write", "", error).into()),
        };
        stream.consume(written);
        left -= written as u64;
    }
    Ok(())
}
