//! Copying a tree file by file: bytes or blocks, holes, hard links, devices, owners, modes,
//! extended attributes and times. Only trees that nobody writes to are copied.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstatat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};
use rustix::fs::{SeekFrom, XattrFlags, copy_file_range, getxattr, listxattr, seek, setxattr};

use super::remove::list;
use super::{Trees, open_directory};
use crate::errno::CallError;

/// The longest list of names, and the longest value, that the kernel has.
const XATTR_MAX: usize = 64 << 10;
/// How many bytes are copied by one call.
const CHUNK_BYTES: usize = 16 << 20;

/// What files have of their copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocks {
    /// The blocks that the source has, until one of them is written to.
    Shared,
    /// Their own.
    Own,
}

/// Copies the tree `source` to `name` in `dir`.
pub(super) fn copy_tree(
    source: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    blocks: Blocks,
) -> Result<OwnedFd, CallError> {
    let root = Trees::Copies.create(dir, name)?;
    let mut copying = Copying {
        blocks,
        root: root.as_fd(),
        links: HashMap::new(),
    };
    copying.directory(source, root.as_fd(), Path::new(""))?;
    let stat =
        nix::sys::stat::fstat(source).map_err(|errno| CallError::new("fstat", name, errno))?;
    copy_metadata(
        Pair {
            from: source,
            to: root.as_fd(),
            name: OsStr::new("."),
        },
        &stat,
    )?;
    Ok(root)
}

struct Copying<'a> {
    blocks: Blocks,
    root: BorrowedFd<'a>,
    /// Where the first name of a file with several lies in the copy.
    links: HashMap<u64, PathBuf>,
}

/// One name in a directory and in its copy.
#[derive(Clone, Copy)]
struct Pair<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a OsStr,
}

impl Pair<'_> {
    fn error(self, call: &'static str) -> impl Fn(Errno) -> CallError {
        move |errno| CallError::new(call, self.name, errno)
    }
}

impl Copying<'_> {
    /// Copies what is in a directory. `path` is where it lies in the tree.
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<(), CallError> {
        for (name, _) in list(from)? {
            let name = OsStr::from_bytes(name.as_bytes());
            self.entry(Pair { from, to, name }, &path.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, pair: Pair<'_>, path: &Path) -> Result<(), CallError> {
        let stat = fstatat(pair.from, pair.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let stat = stat.map_err(pair.error("fstatat"))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFDIR {
            nix::sys::stat::mkdirat(pair.to, pair.name, Mode::S_IRWXU)
                .map_err(pair.error("mkdirat"))?;
            let from = open_directory(pair.from, pair.name)?;
            let to = open_directory(pair.to, pair.name)?;
            self.directory(from.as_fd(), to.as_fd(), path)?;
            return copy_metadata(pair, &stat);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                return link(self.root, first, pair);
            }
            self.links.insert(stat.st_ino, path.to_owned());
        }
        match kind {
            SFlag::S_IFREG => copy_file(pair, &stat, self.blocks)?,
            SFlag::S_IFLNK => {
                let target = readlinkat(pair.from, pair.name).map_err(pair.error("readlinkat"))?;
                symlinkat(target.as_os_str(), pair.to, pair.name)
                    .map_err(pair.error("symlinkat"))?;
            }
            kind => mknodat(pair.to, pair.name, kind, Mode::S_IRUSR, stat.st_rdev)
                .map_err(pair.error("mknodat"))?,
        }
        copy_metadata(pair, &stat)
    }
}

/// Makes another name of what was copied to `first` already. A path may be longer than one call
/// takes, so it is walked.
fn link(root: BorrowedFd<'_>, first: &Path, pair: Pair<'_>) -> Result<(), CallError> {
    let mut parent = root
        .try_clone_to_owned()
        .map_err(|error| CallError::new("dup", first, error))?;
    for component in first.parent().into_iter().flatten() {
        parent = open_directory(parent.as_fd(), component)?;
    }
    let name = first.file_name().unwrap_or_default();
    linkat(&parent, name, pair.to, pair.name, AtFlags::empty()).map_err(pair.error("linkat"))
}

fn copy_file(pair: Pair<'_>, stat: &FileStat, blocks: Blocks) -> Result<(), CallError> {
    let open = |dir: BorrowedFd<'_>, flags: OFlag| {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(dir, pair.name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        opened.map(File::from).map_err(pair.error("openat"))
    };
    let from = open(pair.from, OFlag::O_RDONLY | OFlag::O_NOATIME)?;
    let to = open(pair.to, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
    if stat.st_size == 0 {
        return Ok(());
    }
    // a file that the file system cannot share, such as one too small for a block, is copied
    if blocks == Blocks::Shared && rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let error = |error: io::Error| CallError::new("copy", pair.name, error);
    let size = stat.st_size.cast_unsigned();
    to.set_len(size).map_err(error)?;
    let copied = copy_data(&from, &to, size);
    copied.map_err(|errno| pair.error("copy")(Errno::from_raw(errno.raw_os_error())))
}

/// Copies what is not a hole.
fn copy_data(from: &File, to: &File, size: u64) -> rustix::io::Result<()> {
    let mut end = 0;
    while end < size {
        let start = match seek(from, SeekFrom::Data(end)) {
            // nothing but a hole is left
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            start => start?,
        };
        end = seek(from, SeekFrom::Hole(start))?;
        let (mut read, mut written) = (start, start);
        while read < end {
            let length = usize::try_from(end - read).unwrap_or(CHUNK_BYTES);
            let length = length.min(CHUNK_BYTES);
            if copy_file_range(from, Some(&mut read), to, Some(&mut written), length)? == 0 {
                // it ends before the size that it had: nobody was to write to it
                return Err(rustix::io::Errno::IO);
            }
        }
    }
    Ok(())
}

/// Owner, then mode, which a change of owner cuts, then attributes, which it clears, then times.
fn copy_metadata(pair: Pair<'_>, stat: &FileStat) -> Result<(), CallError> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(pair.to, pair.name, Some(uid), Some(gid), nofollow).map_err(pair.error("fchownat"))?;
    let (source, target) = (
        open_path(pair.from, pair.name)?,
        open_path(pair.to, pair.name)?,
    );
    let (from, to) = (magic_link(&source), magic_link(&target));
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
        let mode = fs::Permissions::from_mode(stat.st_mode & 0o7777);
        fs::set_permissions(&to, mode)
            .map_err(|error| CallError::new("chmod", pair.name, error))?;
    }
    copy_xattrs(&from, &to).map_err(|errno| {
        CallError::new(
            "copy attributes",
            pair.name,
            Errno::from_raw(errno.raw_os_error()),
        )
    })?;
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(
        pair.to,
        pair.name,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )
    .map_err(pair.error("utimensat"))
}

/// Opens a file of whatever type without touching it.
fn open_path(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, CallError> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty()).map_err(|errno| CallError::new("openat", name, errno))
}

/// Leads to exactly the file that a descriptor by `O_PATH` was opened on, a symlink itself too.
fn magic_link(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn copy_xattrs(source: &Path, target: &Path) -> rustix::io::Result<()> {
    let mut value = Vec::new();
    for name in xattr_names(source)? {
        value.resize(256, 0);
        let size = match getxattr(source, &name, value.as_mut_slice()) {
            Err(rustix::io::Errno::RANGE) => {
                value.resize(XATTR_MAX, 0);
                getxattr(source, &name, value.as_mut_slice())?
            }
            size => size?,
        };
        setxattr(target, &name, &value[..size], XattrFlags::empty())?;
    }
    Ok(())
}

fn xattr_names(path: &Path) -> rustix::io::Result<Vec<CString>> {
    let mut names = vec![0; 256];
    let size = match listxattr(path, names.as_mut_slice()) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(rustix::io::Errno::RANGE) => {
            names.resize(XATTR_MAX, 0);
            listxattr(path, names.as_mut_slice())?
        }
        size => size?,
    };
    let names = names[..size].split_inclusive(|byte| *byte == 0);
    let names = names.filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    Ok(names.map(CStr::to_owned).collect())
}
