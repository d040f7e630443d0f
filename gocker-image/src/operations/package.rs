//! Where a saved image goes: the files of an archive or a directory, which come into being whole
//! or not at all, and are the same bytes every time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, renameat2};
use nix::unistd::linkat;

use crate::errno::CallError;

/// The size that tar archives are blown up to multiples of.
const BLOCK: usize = 512;
/// Held while an unfinished package gets something with a name, and while it is discarded.
static NAMES: Mutex<()> = Mutex::new(());

/// A package in the making. What is not finished leaves nothing behind.
pub(super) enum Package {
    Archive(Archive),
    Directory(Directory),
}

/// A tar archive.
pub(super) struct Archive {
    writer: BufWriter<Box<dyn Write>>,
    /// None: it is a stream.
    file: Option<NewFile>,
    name: PathBuf,
}

/// A file that takes the place of the file `path` when it is whole. Dropping it before leaves
/// nothing behind.
struct NewFile {
    file: File,
    path: PathBuf,
    /// Whether it has a name beside `path`.
    is_named: bool,
}

/// A directory under another name than its own.
pub(super) struct Directory {
    unfinished: PathBuf,
    path: PathBuf,
    /// Those in it.
    inner: Vec<PathBuf>,
}

impl Package {
    /// An archive that is written to a stream.
    pub(super) fn stream(writer: Box<dyn Write>) -> Self {
        Self::Archive(Archive::new(writer, Path::new("standard output")))
    }

    /// An archive that takes the place of the file `path` when it is finished. Pipes and devices
    /// are written to as they are.
    pub(super) fn file(path: &Path) -> anyhow::Result<Self> {
        let is_plain = fs::metadata(path).map_or(true, |metadata| metadata.is_file());
        let (file, new) = if is_plain {
            let new = NewFile::at(path)?;
            let file = new.file.try_clone();
            (
                file.map_err(|error| CallError::new("dup", "", error))?,
                Some(new),
            )
        } else {
            let file = OpenOptions::new().write(true).open(path);
            (
                file.map_err(|error| CallError::new("open", path, error))?,
                None,
            )
        };
        let archive = Archive::new(Box::new(file), path);
        Ok(Self::Archive(Archive {
            file: new,
            ..archive
        }))
    }

    /// A directory that must not exist, or be empty.
    pub(super) fn directory(path: &Path) -> anyhow::Result<Self> {
        if let Ok(mut entries) = fs::read_dir(path)
            && entries.next().is_some()
        {
            bail!("{path:?} exists and is not empty");
        }
        let unfinished = unfinished(path);
        make_dir(&unfinished)?;
        Ok(Self::Directory(Directory {
            unfinished,
            path: path.to_owned(),
            inner: Vec::new(),
        }))
    }

    /// Adds a directory.
    pub(super) fn add_directory(&mut self, name: &str) -> anyhow::Result<()> {
        match self {
            Self::Archive(archive) => {
                let header = header(&format!("{name}/"), 0, tar::EntryType::Directory, 0o755)?;
                archive.write(header.as_bytes())
            }
            Self::Directory(directory) => {
                let path = directory.unfinished.join(name);
                make_dir(&path)?;
                directory.inner.push(path);
                Ok(())
            }
        }
    }

    /// Adds a file with all that `content` holds, which is `size` bytes.
    pub(super) fn add(
        &mut self,
        name: &str,
        size: u64,
        content: &mut dyn Read,
    ) -> anyhow::Result<()> {
        match self {
            Self::Archive(archive) => {
                let header = header(name, size, tar::EntryType::Regular, 0o644)?;
                archive.write(header.as_bytes())?;
                copy(content, size, |piece| archive.write(piece))?;
                let padding = size.wrapping_neg() % BLOCK as u64;
                archive.write(&[0; BLOCK][..usize::try_from(padding)?])
            }
            Self::Directory(directory) => {
                let path = directory.unfinished.join(name);
                let error = |call| {
                    let path = path.clone();
                    move |error: io::Error| CallError::new(call, path, error)
                };
                let file = {
                    let _names = names();
                    File::create_new(&path)
                };
                let mut file = file.map_err(error("open"))?;
                copy(content, size, |piece| {
                    Ok(file.write_all(piece).map_err(error("write"))?)
                })?;
                Ok(file.sync_all().map_err(error("fsync"))?)
            }
        }
    }

    /// Ends the package, which is seen from now on.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Archive(mut archive) => {
                archive.write(&[0; 2 * BLOCK])?;
                let flushed = archive.writer.flush();
                flushed.map_err(|error| CallError::new("write", &archive.name, error))?;
                archive.file.map_or(Ok(()), NewFile::finish)
            }
            Self::Directory(directory) => directory.finish(),
        }
    }
}

impl Directory {
    fn finish(self) -> anyhow::Result<()> {
        let (from, to) = (self.unfinished.as_path(), self.path.as_path());
        for path in self.inner.iter().map(PathBuf::as_path).chain([from]) {
            sync_directory(path)?;
        }
        let names = names();
        // an empty one makes room; whatever else has come meanwhile is left alone
        if to.is_dir() {
            fs::remove_dir(to).map_err(|error| CallError::new("rmdir", to, error))?;
        }
        let rename = |flags| renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
        let renamed = match rename(RenameFlags::RENAME_NOREPLACE) {
            // not on NFS; nothing but an empty directory gives way to a directory
            Err(Errno::EINVAL) => rename(RenameFlags::empty()),
            renamed => renamed,
        };
        drop(names);
        renamed.map_err(|errno| CallError::new("rename", to, errno))?;
        sync_directory(parent(to))
    }
}

impl Archive {
    fn new(writer: Box<dyn Write>, name: &Path) -> Self {
        Self {
            writer: BufWriter::with_capacity(256 << 10, writer),
            file: None,
            name: name.to_owned(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.writer.write_all(bytes);
        Ok(written.map_err(|error| CallError::new("write", &self.name, error))?)
    }
}

impl NewFile {
    /// A file without a name, or, where the file system has no such files, under a hidden one.
    fn at(path: &Path) -> anyhow::Result<Self> {
        let place = parent(path);
        let mut options = OpenOptions::new();
        options.write(true).mode(0o644);
        let (opened, is_named) = match options.clone().custom_flags(libc::O_TMPFILE).open(place) {
            // on NFS, and on many file systems in user space
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let _names = names();
                discard(path);
                (options.create_new(true).open(unfinished(path)), true)
            }
            opened => (opened, false),
        };
        Ok(Self {
            file: opened.map_err(|error| CallError::new("open", place, error))?,
            path: path.to_owned(),
            is_named,
        })
    }

    /// Gives it the name that it is for, in the place of what has it.
    fn finish(mut self) -> anyhow::Result<()> {
        let synced = self.file.sync_all();
        synced.map_err(|error| CallError::new("fsync", &self.path, error))?;
        let unfinished = unfinished(&self.path);
        let names = names();
        if !self.is_named {
            let link = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            let linked = linkat(AT_FDCWD, &link, AT_FDCWD, &unfinished, follow);
            linked.map_err(|errno| CallError::new("linkat", &self.path, errno))?;
            self.is_named = true;
        }
        fs::rename(&unfinished, &self.path)
            .map_err(|error| CallError::new("rename", &self.path, error))?;
        self.is_named = false;
        drop(names);
        sync_directory(parent(&self.path))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.is_named {
            let _names = names();
            discard(&self.path);
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _names = names();
        discard(&self.path);
    }
}

/// Discards unfinished packages at these paths because the process ends: none gets anything with
/// a name any more.
pub(super) fn discard_for_good(paths: &[PathBuf]) {
    let names = names();
    paths.iter().for_each(|path| discard(path));
    std::mem::forget(names);
}

/// Removes what an unfinished package at `path` has of a name. The caller holds the names.
fn discard(path: &Path) {
    let unfinished = unfinished(path);
    if let Ok(metadata) = fs::symlink_metadata(&unfinished) {
        let removed = if metadata.is_dir() {
            fs::remove_dir_all(&unfinished)
        } else {
            fs::remove_file(&unfinished)
        };
        // the error that led here says more than another one would
        drop(removed);
    }
}

fn names() -> MutexGuard<'static, ()> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name beside `path` that only this process uses.
fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.gocker-{}", std::process::id()))
}

fn parent(path: &Path) -> &Path {
    let parent = path.parent().unwrap_or(Path::new("/"));
    if parent == Path::new("") {
        Path::new(".")
    } else {
        parent
    }
}

/// Has the names in a directory on disk.
fn sync_directory(path: &Path) -> anyhow::Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    match synced {
        // some file systems have nothing to sync in a directory
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        synced => Ok(synced.map_err(|error| CallError::new("fsync", path, error))?),
    }
}

fn make_dir(path: &Path) -> anyhow::Result<()> {
    let _names = names();
    let made = DirBuilder::new().mode(0o755).create(path);
    Ok(made.map_err(|error| CallError::new("mkdir", path, error))?)
}

/// A header without anything that differs between two machines or two moments.
fn header(name: &str, size: u64, kind: tar::EntryType, mode: u32) -> anyhow::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
        .set_path(name)
        .with_context(|| format!("the name {name:?}"))?;
    header.set_cksum();
    Ok(header)
}

/// Copies all of `content`, which must be `size` bytes.
fn copy(
    content: &mut dyn Read,
    size: u64,
    mut write: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut copied = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) if copied == size => return Ok(()),
            Ok(0) => bail!("it ended after {copied} of {size} bytes"),
            Ok(count) => {
                copied += count as u64;
                if copied > size {
                    bail!("it has more than {size} bytes");
                }
                write(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
