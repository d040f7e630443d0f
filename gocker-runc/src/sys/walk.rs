//! A path beneath a root, by components: what openat2(2) does not do (it makes nothing), and
//! what stands in for it where a kernel or a seccomp filter is too old to have it.
//!
//! No name that the kernel gets holds a slash or is `..`, and none is followed: every component
//! is opened as O_PATH with O_NOFOLLOW in the directory that was opened before. A symlink is
//! read from its descriptor and taken apart here; `..` returns to the descriptor it came from,
//! and an absolute symlink to the root's. So no rename or link, whenever it happens, leads out.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::CallError;
use super::in_root::{Missing, file_type};

/// What becomes of a symlink on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symlinks {
    /// It is followed inside the root.
    Follow,
    /// It is an error, ELOOP.
    Refuse,
}

/// Where a walk ended without reaching its end.
#[derive(Debug)]
pub(crate) struct Stop {
    /// The call.
    call: &'static str,
    /// The component.
    name: OsString,
    /// The kernel's answer.
    errno: Errno,
}

impl Stop {
    /// The error for a walk through `path`.
    pub(crate) fn naming(self, path: &Path) -> CallError {
        CallError {
            call: format!("{}({:?}) for {path:?}", self.call, self.name),
            errno: self.errno,
        }
    }
}

/// path_resolution(7): as many symlinks as the kernel follows in one path.
const MAX_SYMLINKS: usize = 40;

/// How often what was looked at is replaced before it is opened, at most.
const MAX_RACES: usize = 128;

/// Opens `path` beneath `root` with `flags`.
///
/// # Errors
/// openat(2)'s; ELOOP for too many symlinks, or for any where they are refused.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    symlinks: Symlinks,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_CLOEXEC;
    for _ in 0..MAX_RACES {
        let found = Walk::new(root, symlinks, None)
            .through(path)
            .map_err(|stop| stop.errno)?;
        match found.open(root, flags) {
            // Somebody replaced it in between; what is there now may be a symlink.
            Err(Errno::ESTALE) => {}
            Err(Errno::ELOOP) if symlinks == Symlinks::Follow => {}
            done => return done,
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens `path` beneath `root` as O_PATH and makes what is missing on the way.
///
/// # Errors
/// The component at which it stopped.
pub(crate) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
) -> Result<OwnedFd, Stop> {
    let found = Walk::new(root, Symlinks::Follow, Some(missing)).through(path)?;
    found
        .open(root, OFlag::O_PATH | OFlag::O_CLOEXEC)
        .map_err(stopped("openat", OsStr::new(".")))
}

/// Where a walk is: the directories behind it, and what it has found.
struct Walk<'fd> {
    root: BorrowedFd<'fd>,
    symlinks: Symlinks,
    missing: Option<Missing>,
    above: Vec<(OwnedFd, OsString)>,
}

impl<'fd> Walk<'fd> {
    fn new(root: BorrowedFd<'fd>, symlinks: Symlinks, missing: Option<Missing>) -> Self {
        Self {
            root,
            symlinks,
            missing,
            above: Vec::new(),
        }
    }

    fn through(mut self, path: &Path) -> Result<Found, Stop> {
        let mut pending: VecDeque<OsString> = components(path).collect();
        let mut followed = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                self.above.pop();
                continue;
            }
            let Some(next) = self.step(&name, pending.is_empty())? else {
                // It was made, and is looked at again.
                pending.push_front(name);
                continue;
            };
            let kind = file_type(&next).map_err(stopped("fstat", &name))?;
            if kind != SFlag::S_IFLNK {
                if !pending.is_empty() && kind != SFlag::S_IFDIR {
                    return Err(stopped("openat", &name)(Errno::ENOTDIR));
                }
                self.above.push((next, name));
                continue;
            }
            followed += 1;
            if self.symlinks == Symlinks::Refuse || followed > MAX_SYMLINKS {
                return Err(stopped("openat", &name)(Errno::ELOOP));
            }
            let target = readlinkat(&next, "").map_err(stopped("readlinkat", &name))?;
            let target = Path::new(&target);
            if target.is_absolute() {
                self.above.clear();
            }
            for name in components(target).collect::<Vec<_>>().into_iter().rev() {
                pending.push_front(name);
            }
        }
        let last = self.above.pop();
        Ok(Found {
            last,
            parent: self.above.pop().map(|(fd, _)| fd),
        })
    }

    /// Opens one component; None where it had to be made first.
    fn step(&self, name: &OsStr, is_last: bool) -> Result<Option<OwnedFd>, Stop> {
        let here = self.above.last().map_or(self.root, |(fd, _)| fd.as_fd());
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match (openat(here, name, flags, Mode::empty()), self.missing) {
            (Err(Errno::ENOENT), Some(Missing::File)) if is_last => {
                make_file(here, name).map_err(stopped("openat", name))?;
                Ok(None)
            }
            (Err(Errno::ENOENT), Some(_)) => {
                make_dir(here, name).map_err(stopped("mkdirat", name))?;
                Ok(None)
            }
            (done, _) => done.map(Some).map_err(stopped("openat", name)),
        }
    }
}

/// What a walk came to: nothing but the root, or the last component and its directory.
struct Found {
    last: Option<(OwnedFd, OsString)>,
    parent: Option<OwnedFd>,
}

impl Found {
    /// Opens it with `flags`, provided that it still is what was found.
    fn open(self, root: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
        let Some((found, name)) = self.last else {
            return openat(root, ".", flags, Mode::empty());
        };
        if flags.contains(OFlag::O_PATH) {
            if flags.contains(OFlag::O_DIRECTORY) && file_type(&found)? != SFlag::S_IFDIR {
                return Err(Errno::ENOTDIR);
            }
            return Ok(found);
        }
        let parent = self.parent.as_ref().map_or(root, AsFd::as_fd);
        let opened = openat(
            parent,
            name.as_os_str(),
            flags | OFlag::O_NOFOLLOW,
            Mode::empty(),
        )?;
        let (before, after) = (fstat(&found)?, fstat(&opened)?);
        if (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino) {
            Ok(opened)
        } else {
            Err(Errno::ESTALE)
        }
    }
}

fn stopped(call: &'static str, name: &OsStr) -> impl FnOnce(Errno) -> Stop {
    move |errno| Stop {
        call,
        name: name.to_owned(),
        errno,
    }
}

fn components(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// A directory that somebody else makes meanwhile is as good.
fn make_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match mkdirat(dir, name, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => Ok(()),
        done => done,
    }
}

fn make_file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(
        dir,
        name,
        flags | OFlag::O_WRONLY,
        Mode::from_bits_truncate(0o644),
    ) {
        Err(Errno::EEXIST) => Ok(()),
        done => done.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::unix::fs::symlink;

    /// A root with a file in it, and links to it and out of it.
    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc/sub")).expect("made");
        fs::write(root.join("etc/file"), "inside").expect("written");
        fs::write(dir.path().join("file"), "outside").expect("written");
        for (link, target) in [
            ("abs", "/etc/file"),
            ("up", "../../../etc/sub/../file"),
            ("dir", "etc"),
            ("loop", "loop"),
            ("out", "../file"),
        ] {
            symlink(target, root.join(link)).expect("linked");
        }
        dir
    }

    #[test]
    fn a_walk_reads_what_is_inside() {
        let dir = root();
        let fd = File::open(dir.path().join("root")).expect("opened");
        let open =
            |path: &str, symlinks| open(fd.as_fd(), Path::new(path), OFlag::O_RDONLY, symlinks);
        for path in [
            "/etc/file",
            "abs",
            "/up",
            "dir/file",
            "etc/../../dir/./file",
        ] {
            let mut text = String::new();
            let opened = open(path, Symlinks::Follow).expect(path);
            File::from(opened).read_to_string(&mut text).expect(path);
            assert_eq!(text, "inside", "{path}");
        }
        for path in ["/", "..", "etc/../..", "dir/sub/.."] {
            assert_eq!(open(path, Symlinks::Follow).map(drop), Ok(()), "{path}");
        }
        for (path, symlinks, errno) in [
            ("out", Symlinks::Follow, Errno::ENOENT),
            ("loop/x", Symlinks::Follow, Errno::ELOOP),
            ("etc/file/x", Symlinks::Follow, Errno::ENOTDIR),
            ("dir/file", Symlinks::Refuse, Errno::ELOOP),
            ("abs", Symlinks::Refuse, Errno::ELOOP),
        ] {
            assert_eq!(open(path, symlinks).map(drop), Err(errno), "{path}");
        }
    }

    #[test]
    fn a_walk_tells_directories_from_files() {
        let dir = root();
        let fd = File::open(dir.path().join("root")).expect("opened");
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let open = |path: &str| open(fd.as_fd(), Path::new(path), flags, Symlinks::Follow);
        assert_eq!(open("dir").map(drop), Ok(()));
        assert_eq!(open("abs").map(drop), Err(Errno::ENOTDIR));
    }
}
