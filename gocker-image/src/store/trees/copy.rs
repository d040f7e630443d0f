//! Copying a tree file by file: bytes or blocks, holes, hard links, devices, owners, modes,
//! extended attributes and times.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};
use rustix::fs::{SeekFrom, XattrFlags, copy_file_range, getxattr, listxattr, seek, setxattr};

use super::super::StoreError;
use super::Trees;
use super::walk::{Step, Walk};
use crate::descent::{Descent, open_dir};
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

/// Copies the tree `source`, which nobody writes to, to `name` in `dir`.
pub(super) fn copy_tree(
    source: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    blocks: Blocks,
) -> Result<OwnedFd, CallError> {
    let (root, _) = copy_with_marks(source, (dir, name), blocks).map_err(|(_, error)| error)?;
    Ok(root)
}

/// Copies the tree `source`, which others may write to, to `name` in `dir`, if it holds still
/// meanwhile. Whatever was as it is when it was copied was so all the time in between.
pub(super) fn copy_still_tree(
    source: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    blocks: Blocks,
) -> Result<OwnedFd, StoreError> {
    match copy_with_marks(source, (dir, name), blocks) {
        Ok((root, marks)) => match first_change(source, &marks)? {
            None => Ok(root),
            Some(path) => Err(StoreError::Moved(path)),
        },
        Err((path, error)) if has_moved(&error) => Err(StoreError::Moved(path)),
        Err((_, error)) => Err(error.into()),
    }
}

/// The number of a file, and when it was last changed: nobody can set that back. Linux before 6.13
/// counts that time in ticks of some milliseconds, so two changes in one of them look like one.
type Mark = (u64, i64, i64);

fn mark(stat: &FileStat) -> Mark {
    (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec)
}

/// Copies a tree; returns what it was made of, in the order of a [`Walk`]. An error comes with
/// the path in the tree.
fn copy_with_marks(
    source: BorrowedFd<'_>,
    (dir, name): (BorrowedFd<'_>, &OsStr),
    blocks: Blocks,
) -> Result<(OwnedFd, Vec<Mark>), (PathBuf, CallError)> {
    let at_root = |error| (PathBuf::new(), error);
    let root = Trees::Copies.create(dir, name).map_err(at_root)?;
    let stat = stat_root(source).map_err(at_root)?;
    let mut copying = Copying {
        blocks,
        root: root.as_fd(),
        to: Descent::at(root.as_fd()).map_err(at_root)?,
        directories: Vec::new(),
        links: HashMap::new(),
        marks: vec![mark(&stat)],
    };
    let mut walk = Walk::of(source).map_err(at_root)?;
    copying
        .contents(&mut walk)
        .map_err(|error| (walk.path().to_owned(), error))?;
    let marks = copying.marks;
    let pair = Pair {
        from: source,
        to: root.as_fd(),
        name: OsStr::new("."),
    };
    copy_metadata(pair, &stat).map_err(at_root)?;
    Ok((root, marks))
}

/// The first path of a tree that is not as it was marked.
fn first_change(source: BorrowedFd<'_>, marks: &[Mark]) -> Result<Option<PathBuf>, CallError> {
    let mut marks = marks.iter();
    if marks.next() != Some(&mark(&stat_root(source)?)) {
        return Ok(Some(PathBuf::new()));
    }
    let mut walk = Walk::of(source)?;
    while let Some(step) = walk.step()? {
        let Step::Entry(name, _) = step else { continue };
        let stat = fstatat(&walk, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok();
        let is_same = stat.as_ref().map(mark).as_ref() == marks.next();
        if !is_same || (stat.is_some_and(|stat| is_directory(&stat)) && walk.enter().is_err()) {
            return Ok(Some(walk.path().to_owned()));
        }
    }
    // what is missing at the end of a directory has changed the directory
    Ok(None)
}

fn stat_root(root: BorrowedFd<'_>) -> Result<FileStat, CallError> {
    nix::sys::stat::fstat(root).map_err(|errno| CallError::new("fstat", "", errno))
}

/// Whether a copy failed because its source is not what it was a moment before.
fn has_moved(error: &CallError) -> bool {
    use Errno::{EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, ESTALE};
    let errno = error.errno();
    errno.is_some_and(|errno| [EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, ESTALE].contains(&errno))
}

fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

struct Copying<'a> {
    blocks: Blocks,
    root: BorrowedFd<'a>,
    /// Where the walk is, in the copy.
    to: Descent,
    /// What the source says of each directory from the root to there.
    directories: Vec<FileStat>,
    /// Where the first name of a file with several lies in the copy.
    links: HashMap<u64, PathBuf>,
    marks: Vec<Mark>,
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
    /// Copies what `walk` comes by.
    fn contents(&mut self, walk: &mut Walk) -> Result<(), CallError> {
        while let Some(step) = walk.step()? {
            match step {
                Step::Entry(name, _) => self.entry(walk, &name)?,
                Step::Left(name) => {
                    self.to.leave()?;
                    if let Some(stat) = self.directories.pop() {
                        let (from, to) = (walk.as_fd(), self.to.as_fd());
                        let name = &name;
                        copy_metadata(Pair { from, to, name }, &stat)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, walk: &mut Walk, name: &OsStr) -> Result<(), CallError> {
        let (from, to) = (walk.as_fd(), self.to.as_fd());
        let pair = Pair { from, to, name };
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let stat = stat.map_err(pair.error("fstatat"))?;
        self.marks.push(mark(&stat));
        if is_directory(&stat) {
            mkdirat(to, name, Mode::S_IRWXU).map_err(pair.error("mkdirat"))?;
            let copy = open_dir(to, name).map_err(pair.error("openat"))?;
            self.to.enter(copy)?;
            self.directories.push(stat);
            return walk.enter();
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                return link(self.root, first, pair);
            }
            self.links.insert(stat.st_ino, walk.path().to_owned());
        }
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => copy_file(pair, &stat, self.blocks)?,
            SFlag::S_IFLNK => {
                let target = readlinkat(from, name).map_err(pair.error("readlinkat"))?;
                symlinkat(target.as_os_str(), to, name).map_err(pair.error("symlinkat"))?;
            }
            kind => mknodat(to, name, kind, Mode::S_IRUSR, stat.st_rdev)
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
        let inner = open_dir(parent.as_fd(), component);
        parent = inner.map_err(|errno| CallError::new("openat", first, errno))?;
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
                // it ends before the size that it had
                return Err(rustix::io::Errno::STALE);
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

#[cfg(test)]
mod tests {
    use super::*;

    type Touch = fn(&Path);

    /// Everything that a container may do while its root is copied.
    const TOUCHES: [(&str, &str, Touch); 7] = [
        ("a write", "d/e/file", |root| {
            fs::write(root.join("d/e/file"), "2").unwrap();
        }),
        ("a new name", "d/e", |root| {
            fs::write(root.join("d/e/new"), "").unwrap();
        }),
        ("a name less", "d/e", |root| {
            fs::remove_file(root.join("d/e/file")).unwrap();
        }),
        ("another mode", "d/e", |root| {
            fs::set_permissions(root.join("d/e"), fs::Permissions::from_mode(0o700)).unwrap();
        }),
        ("another file of that name", "d/e", |root| {
            let other = root.with_file_name("other");
            fs::write(&other, "1").unwrap();
            fs::rename(other, root.join("d/e/file")).unwrap();
        }),
        ("the root's own mode", "", |root| {
            fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
        }),
        ("a file for a directory", "", |root| {
            fs::remove_dir_all(root.join("d")).unwrap();
            fs::write(root.join("d"), "").unwrap();
        }),
    ];

    /// Until files that are written now are seen to be younger than `file`.
    fn wait_for_a_later_tick(file: &Path, probe: &Path) {
        let changed = |path: &Path| {
            let stat = nix::sys::stat::stat(path).unwrap();
            (stat.st_ctime, stat.st_ctime_nsec)
        };
        let before = changed(file);
        loop {
            fs::write(probe, "x").unwrap();
            if changed(probe) > before {
                return;
            }
        }
    }

    #[test]
    fn a_tree_that_does_not_hold_still_is_noticed() {
        for (what, expected, touch) in TOUCHES {
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().join("root");
            fs::create_dir_all(root.join("d/e")).unwrap();
            fs::write(root.join("d/e/file"), "1").unwrap();
            let dir = File::open(outer.path()).unwrap();
            let source = File::open(&root).unwrap();
            let place = (dir.as_fd(), OsStr::new("copy"));
            let copied = copy_with_marks(source.as_fd(), place, Blocks::Own);
            let (_, marks) = copied.map_err(|(_, error)| error).unwrap();
            let unchanged = first_change(source.as_fd(), &marks).unwrap();
            assert_eq!(unchanged, None, "before {what}");
            wait_for_a_later_tick(&root.join("d/e/file"), &outer.path().join("probe"));
            touch(&root);
            let found = first_change(source.as_fd(), &marks).unwrap();
            assert_eq!(found.as_deref(), Some(Path::new(expected)), "{what}");
        }
    }
}
