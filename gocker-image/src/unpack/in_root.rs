//! Path safety: every name in a layer is resolved beneath the root's
//! descriptor by the kernel, and every operation acts on the descriptor of
//! the parent directory and one component.
//!
//! ```text
//! "usr/lib/x"  ->  openat2(root, "usr/lib", IN_ROOT|NO_MAGICLINKS|NO_XDEV)  ->  fd, "x"
//! ```
//!
//! A directory that is missing on the way is made, a file on the way is
//! replaced by one, and a symlink on the way is followed inside the root.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;

use super::xattr;
use crate::descent::{Descent, open_dir};
use crate::errno::CallError;

/// How many symlinks one path may lead through, as in the kernel.
const MAX_SYMLINKS: usize = 40;
/// The longest path that the kernel takes; the NUL at its end is left out.
const MAX_PATH_BYTES: usize = 4095;
/// How many directories are kept open.
const MAX_CACHED: usize = 128;

/// Why a name in a layer is refused.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// It begins with a slash.
    #[error("is absolute")]
    Absolute,
    /// It has a `..` that leads out of the root.
    #[error("climbs out of the root")]
    Climbs,
    /// It holds a NUL byte.
    #[error("holds a NUL byte")]
    Nul,
    /// It has more components than the budget allows.
    #[error("has more than {0} components")]
    TooDeep(usize),
    /// It is longer than the kernel takes a path.
    #[error("has more than {MAX_PATH_BYTES} bytes")]
    TooLong,
}

/// Makes `raw` a plain relative path: no empty component, no `.`, no `..`.
/// The root itself is empty.
pub(super) fn normalise(raw: &[u8], max_depth: usize) -> Result<Vec<u8>, PathError> {
    if raw.starts_with(b"/") {
        return Err(PathError::Absolute);
    }
    if raw.contains(&0) {
        return Err(PathError::Nul);
    }
    let mut components: Vec<&[u8]> = Vec::new();
    for component in raw.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop().ok_or(PathError::Climbs)?),
            name => components.push(name),
        }
    }
    if components.len() > max_depth {
        return Err(PathError::TooDeep(max_depth));
    }
    let path = components.join(&b'/');
    if path.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    Ok(path)
}

/// The parent and the last component of a normalised path that is not empty.
pub(crate) fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], OsStr::from_bytes(&path[slash + 1..])),
        None => (b"", OsStr::from_bytes(path)),
    }
}

/// An open directory of the tree, and what new entries take over from it.
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    pub(super) inode: u64,
    /// New entries do not get the group and mode that they were made with:
    /// set-group-id or a default access control list is in the way.
    pub(super) bequeaths: bool,
}

/// What a directory's times are set to at the end, found again by `path`.
struct DirTimes {
    path: Box<[u8]>,
    atime: TimeSpec,
    mtime: TimeSpec,
}

/// A root file system in the making.
pub(super) struct Tree {
    root: Rc<Dir>,
    last: Option<(Box<[u8]>, Rc<Dir>)>,
    cache: HashMap<Box<[u8]>, Rc<Dir>>,
    times: HashMap<u64, DirTimes>,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Result<Self, CallError> {
        let mut times = HashMap::new();
        let root = Rc::new(describe(root, b"", &mut times)?);
        Ok(Self {
            root,
            last: None,
            cache: HashMap::new(),
            times,
        })
    }

    pub(super) fn root(&self) -> Rc<Dir> {
        Rc::clone(&self.root)
    }

    /// The directory at `path`; None if there is none.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Rc<Dir>>, CallError> {
        if path.is_empty() {
            return Ok(Some(self.root()));
        }
        if let Some((key, dir)) = &self.last
            && **key == *path
        {
            return Ok(Some(Rc::clone(dir)));
        }
        if let Some(dir) = self.cache.get(path) {
            let dir = Rc::clone(dir);
            self.last = Some((path.into(), Rc::clone(&dir)));
            return Ok(Some(dir));
        }
        match self.open(path) {
            Ok(fd) => {
                let dir = Rc::new(describe(fd, path, &mut self.times)?);
                self.remember(path, Rc::clone(&dir));
                Ok(Some(dir))
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(call("openat2", path, errno)),
        }
    }

    /// The directory at `path`, made with all that is missing on the way.
    pub(super) fn make(&mut self, path: &[u8]) -> Result<Rc<Dir>, CallError> {
        if let Some(dir) = self.find(path)? {
            return Ok(dir);
        }
        let dir = Rc::new(self.walk(path)?);
        self.forget();
        self.remember(path, Rc::clone(&dir));
        Ok(dir)
    }

    /// Takes in a directory that was just made or merged at `path`.
    pub(super) fn adopt(&mut self, path: &[u8], fd: OwnedFd) -> Result<Rc<Dir>, CallError> {
        let dir = Rc::new(describe(fd, path, &mut self.times)?);
        if dir.bequeaths {
            self.forget(); // it may be known by other names, as it was before
        }
        self.remember(path, Rc::clone(&dir));
        Ok(dir)
    }

    /// Forgets all open directories: a directory or a symlink went away.
    pub(super) fn forget(&mut self) {
        self.last = None;
        self.cache.clear();
    }

    fn remember(&mut self, path: &[u8], dir: Rc<Dir>) {
        if path.is_empty() {
            self.root = dir;
            return;
        }
        if self.cache.len() >= MAX_CACHED {
            self.cache.clear();
        }
        self.cache.insert(path.into(), Rc::clone(&dir));
        self.last = Some((path.into(), dir));
    }

    fn open(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(
            ResolveFlag::RESOLVE_IN_ROOT
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        loop {
            // EAGAIN: something was renamed elsewhere while `..` was resolved.
            match openat2(&self.root.fd, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// Walks `path` component by component, as the kernel resolves it, and
    /// makes what is missing.
    fn walk(&mut self, path: &[u8]) -> Result<Dir, CallError> {
        // The directories that were really entered, for `..` in symlinks.
        let mut descent = Descent::at(self.root.fd.as_fd())?;
        let mut real: Vec<u8> = Vec::new();
        let mut todo: Vec<Vec<u8>> = path.rsplit(|b| *b == b'/').map(<[u8]>::to_vec).collect();
        let mut symlinks = 0;
        while let Some(component) = todo.pop() {
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    descent.leave()?;
                    real.truncate(split(&real).0.len());
                    continue;
                }
                _ => {}
            }
            let parent_bytes = real.len();
            let name = OsStr::from_bytes(&component);
            if !real.is_empty() {
                real.push(b'/');
            }
            real.extend_from_slice(&component);
            if is_symlink(descent.as_fd(), name)? {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(call("openat2", path, Errno::ELOOP));
                }
                let target =
                    readlinkat(&descent, name).map_err(|e| call("readlinkat", &real, e))?;
                let target = target.as_bytes();
                real.truncate(parent_bytes);
                if target.starts_with(b"/") {
                    descent = Descent::at(self.root.fd.as_fd())?;
                    real.clear();
                }
                todo.extend(target.rsplit(|b| *b == b'/').map(<[u8]>::to_vec));
                continue;
            }
            let fd = enter(descent.as_fd(), name).map_err(|e| call("mkdirat", &real, e))?;
            let dir = describe(fd, &real, &mut self.times)?;
            descent.enter(dir.fd)?;
        }
        describe(descent.into(), &real, &mut self.times)
    }

    /// Sets what the times of the directory `inode` at `path` shall be.
    pub(super) fn set_times(&mut self, inode: u64, path: &[u8], atime: TimeSpec, mtime: TimeSpec) {
        let times = DirTimes {
            path: path.into(),
            atime,
            mtime,
        };
        self.times.insert(inode, times);
    }

    /// Gives all directories that were touched the times of their entries, or
    /// those that they had before.
    pub(super) fn restore_times(&mut self) -> Result<(), CallError> {
        let times = std::mem::take(&mut self.times);
        for (inode, times) in times {
            let cached = self.cache.get(&times.path).filter(|dir| dir.inode == inode);
            if let Some(dir) = cached {
                futimens(&dir.fd, &times.atime, &times.mtime)
                    .map_err(|e| call("futimens", &times.path, e))?;
                continue;
            }
            let path: &[u8] = if times.path.is_empty() {
                b"."
            } else {
                &times.path
            };
            let fd = match self.open(path) {
                Ok(fd) => fd,
                // It went away, or its name leads elsewhere by now.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                Err(errno) => return Err(call("openat2", path, errno)),
            };
            let stat = fstat(&fd).map_err(|e| call("fstat", path, e))?;
            if stat.st_ino == inode {
                futimens(&fd, &times.atime, &times.mtime).map_err(|e| call("futimens", path, e))?;
            }
        }
        Ok(())
    }
}

pub(super) fn call(name: &'static str, path: &[u8], errno: Errno) -> CallError {
    CallError::new(name, OsStr::from_bytes(path), errno)
}

/// Reads what matters of an open directory, and notes its times if they are
/// not known yet.
fn describe(
    fd: OwnedFd,
    path: &[u8],
    times: &mut HashMap<u64, DirTimes>,
) -> Result<Dir, CallError> {
    let stat = fstat(&fd).map_err(|errno| call("fstat", path, errno))?;
    times.entry(stat.st_ino).or_insert_with(|| DirTimes {
        path: path.into(),
        atime: TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        mtime: TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    });
    let bequeaths = stat.st_mode & libc::S_ISGID != 0
        || xattr::has(fd.as_fd(), c"system.posix_acl_default")
            .map_err(|errno| CallError::new("fgetxattr", OsStr::from_bytes(path), errno))?;
    Ok(Dir {
        fd,
        inode: stat.st_ino,
        bequeaths,
    })
}

fn is_symlink(parent: BorrowedFd<'_>, name: &OsStr) -> Result<bool, CallError> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits()),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(CallError::new("fstatat", name, errno)),
    }
}

/// Opens the directory `name`, made if it is missing or no directory.
fn enter(parent: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    loop {
        match open_dir(parent, name) {
            Err(Errno::ENOENT) => {}
            Err(Errno::ENOTDIR) => {
                nix::unistd::unlinkat(parent, name, nix::unistd::UnlinkatFlags::NoRemoveDir)?;
            }
            result => return result,
        }
        mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree(root: &std::path::Path) -> Tree {
        Tree::new(fs::File::open(root).unwrap().into()).unwrap()
    }

    #[test]
    fn names_are_made_plain_or_refused() {
        let good = [
            ("a", "a"),
            ("./a//b/./c/", "a/b/c"),
            ("a/../b", "b"),
            (".", ""),
            ("./", ""),
            ("", ""),
            ("a/..", ""),
            ("..a/b..", "..a/b.."),
        ];
        for (raw, plain) in good {
            assert_eq!(normalise(raw.as_bytes(), 8).unwrap(), plain.as_bytes());
        }
        for bad in [
            "/",
            "/a",
            "..",
            "../a",
            "a/../..",
            "a/../../a",
            "a\0b",
            "a/b/c/d/e/f/g/h/i",
        ] {
            assert!(normalise(bad.as_bytes(), 8).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn missing_directories_are_made_inside_the_root() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("usr/deep")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let links = [
            ("lib64", "usr/lib64"),
            ("abs", "/run/abs"),
            ("climb", "../../../outside"),
            ("usr/deep/up", "../../new"),
            ("usr/hop", "deep"),
        ];
        for (name, target) in links {
            symlink(target, root.join(name)).unwrap();
        }
        let table = [
            ("lib64/x", "usr/lib64/x"),
            ("abs/y", "run/abs/y"),
            ("climb/z", "outside/z"),
            ("usr/hop/up/n", "new/n"),
            ("file/sub", "file/sub"),
            ("p/q/r", "p/q/r"),
        ];
        let mut tree = tree(&root);
        for (path, real) in table {
            tree.make(path.as_bytes()).unwrap();
            assert!(root.join(real).is_dir(), "{path} did not make {real}");
        }
        let names: Vec<_> = fs::read_dir(outer.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "something was made outside of the root");
    }

    #[test]
    fn symlink_loops_are_errors() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        let error = tree(root.path()).make(b"a/x").err().unwrap();
        assert_eq!(error.errno(), Some(Errno::ELOOP));
    }

    #[test]
    fn touched_directories_get_their_times_back() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d");
        fs::create_dir(&dir).unwrap();
        let old = TimeSpec::new(1000, 5);
        futimens(fs::File::open(&dir).unwrap(), &old, &old).unwrap();
        let mut tree = tree(root.path());
        tree.make(b"d/sub").unwrap();
        tree.restore_times().unwrap();
        let stat = nix::sys::stat::stat(&dir).unwrap();
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (1000, 5));
    }
}
