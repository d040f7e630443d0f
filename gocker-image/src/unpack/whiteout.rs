//! Whiteouts: what a layer takes away from the layers below it.
//!
//! The order of entries in a layer does not matter: what the layer itself made
//! stays, whether its whiteout comes before or after. Lower files are not
//! destroyed at once but moved aside, because a hard link further on may still
//! name them.
//!
//! ```text
//! <root>/.gocker-<random>/0, 1, 2 …   moved aside; gone when the layer ends
//! ```
//!
//! Spec: image-spec layer.md#whiteouts

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, linkat, unlinkat};

use super::in_root::{Dir, Tree, split};
use super::xattr;
use crate::descent::{Descent, open_dir};
use crate::errno::CallError;

/// What a name says about the layers below.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// Nothing: an ordinary entry.
    None,
    /// `.wh.x`: the lower `x` goes.
    Whiteout(&'a OsStr),
    /// `.wh..wh..opq`: everything lower in this directory goes.
    Opaque,
    /// Any other `.wh..wh.*`: bookkeeping of AUFS.
    Reserved,
    /// `.wh.` before nothing, `.` or `..`.
    Invalid,
}

/// Reads a single component as a marker.
pub(crate) fn marker(name: &OsStr) -> Marker<'_> {
    let Some(target) = name.as_bytes().strip_prefix(b".wh.") else {
        return Marker::None;
    };
    match target {
        b"" | b"." | b".." => Marker::Invalid,
        b".wh..opq" => Marker::Opaque,
        _ if target.starts_with(b".wh.") => Marker::Reserved,
        _ => Marker::Whiteout(OsStr::from_bytes(target)),
    }
}

/// What becomes of a lower name.
enum Fate {
    Stays,
    Goes,
    /// The directory stays for what this layer made in it.
    Within,
}

/// A directory's inode and a name in it.
type Place = (u64, OsString);

/// What this layer made and moved aside so far.
#[derive(Default)]
pub(super) struct Changes {
    made: HashSet<Place>,
    aside: HashMap<Place, String>,
    attic: Option<(OsString, OwnedFd)>,
}

impl Changes {
    /// Notes that this layer made `name` in `dir`.
    pub(super) fn note_made(&mut self, dir: &Dir, name: &OsStr) {
        self.made.insert((dir.inode, name.to_owned()));
    }

    /// Takes away the lower `name` of `dir`.
    pub(super) fn whiteout(
        &mut self,
        tree: &mut Tree,
        dir: &Dir,
        name: &OsStr,
    ) -> Result<(), CallError> {
        let Some(stat) = stat_at(dir.fd.as_fd(), name)? else {
            return Ok(());
        };
        let place = (dir.fd.as_fd(), dir.inode);
        if is_dir(&stat) {
            let child = open(dir.fd.as_fd(), name)?;
            let holding = self.holding((child.as_fd(), stat.st_ino))?;
            match self.fate(dir.inode, name, &stat, &holding) {
                Fate::Stays => {}
                Fate::Goes => self.move_aside(tree, place, name)?,
                Fate::Within => {
                    self.clear(tree, (child.as_fd(), stat.st_ino), &holding)?;
                    self.freshen(dir.inode, name, child.as_fd())?;
                }
            }
        } else if self.is_made(dir.inode, name) {
            return Ok(());
        } else {
            self.move_aside(tree, place, name)?;
        }
        tree.forget();
        Ok(())
    }

    /// Takes away everything lower in `dir`.
    pub(super) fn opaque(&mut self, tree: &mut Tree, dir: &Dir) -> Result<(), CallError> {
        let place = (dir.fd.as_fd(), dir.inode);
        let holding = self.holding(place)?;
        self.clear(tree, place, &holding)?;
        tree.forget();
        Ok(())
    }

    fn is_made(&self, dir: u64, name: &OsStr) -> bool {
        !self.made.is_empty() && self.made.contains(&(dir, name.to_owned()))
    }

    /// What becomes of `name` in the directory of number `dir`; `holding` has those of all
    /// directories in which this layer made anything.
    fn fate(&self, dir: u64, name: &OsStr, stat: &FileStat, holding: &HashSet<u64>) -> Fate {
        match (self.is_made(dir, name), is_dir(stat)) {
            (true, false) => Fate::Stays,
            (false, false) => Fate::Goes,
            (false, true) if !holding.contains(&stat.st_ino) => Fate::Goes,
            (_, true) => Fate::Within,
        }
    }

    /// Moves everything lower in a directory aside, but what this layer made and the directories
    /// on the way to it.
    fn clear(
        &mut self,
        tree: &Tree,
        (top, inode): (BorrowedFd<'_>, u64),
        holding: &HashSet<u64>,
    ) -> Result<(), CallError> {
        let mut descent = Descent::at(top)?;
        let mut levels = vec![(OsString::new(), inode, names(top)?.into_iter())];
        while let Some((_, inode, entries)) = levels.last_mut() {
            let inode = *inode;
            let Some(name) = entries.next() else {
                let done = levels.pop();
                if let (Some((name, ..)), Some((_, parent, _))) = (done, levels.last()) {
                    self.freshen(*parent, &name, descent.as_fd())?;
                    descent.leave()?;
                }
                continue;
            };
            let Some(stat) = stat_at(descent.as_fd(), &name)? else {
                continue;
            };
            if self.is_attic(&name) {
                continue;
            }
            match self.fate(inode, &name, &stat, holding) {
                Fate::Stays => {}
                Fate::Goes => self.move_aside(tree, (descent.as_fd(), inode), &name)?,
                Fate::Within => {
                    let child = open(descent.as_fd(), &name)?;
                    levels.push((name, stat.st_ino, names(child.as_fd())?.into_iter()));
                    descent.enter(child)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the directory `name`, in the one of number `parent`, as fresh as one that no entry
    /// describes, unless this layer made it: the lower one itself goes too.
    fn freshen(
        &self,
        parent: u64,
        name: &OsStr,
        directory: BorrowedFd<'_>,
    ) -> Result<(), CallError> {
        if self.is_made(parent, name) {
            return Ok(());
        }
        let fresh = |e| CallError::new("make fresh", name, e);
        fchown(directory, Some(0.into()), Some(0.into())).map_err(fresh)?;
        fchmod(directory, Mode::from_bits_truncate(0o755)).map_err(fresh)?;
        xattr::remove_others(directory, &[])
            .map_err(|error| CallError::new("fremovexattr", name, std::io::Error::other(error)))
    }

    /// The numbers of the directories, from `top` down, in or beneath which this layer made
    /// anything.
    fn holding(&self, (top, inode): (BorrowedFd<'_>, u64)) -> Result<HashSet<u64>, CallError> {
        let mut holding = HashSet::new();
        if self.made.is_empty() {
            return Ok(holding);
        }
        let mut descent = Descent::at(top)?;
        let mut levels = vec![(inode, names(top)?.into_iter())];
        while let Some((inode, entries)) = levels.last_mut() {
            let inode = *inode;
            let Some(name) = entries.next() else {
                levels.pop();
                descent.leave()?;
                continue;
            };
            if self.is_made(inode, &name) {
                let way = levels.iter().rev();
                // what is above one that is known is known too
                way.take_while(|(inode, _)| holding.insert(*inode))
                    .for_each(drop);
            }
            let stat = stat_at(descent.as_fd(), &name)?;
            if let Some(stat) = stat.filter(is_dir) {
                let child = open(descent.as_fd(), &name)?;
                levels.push((stat.st_ino, names(child.as_fd())?.into_iter()));
                descent.enter(child)?;
            }
        }
        Ok(holding)
    }

    fn is_attic(&self, name: &OsStr) -> bool {
        self.attic.as_ref().is_some_and(|(attic, _)| attic == name)
    }

    fn move_aside(
        &mut self,
        tree: &Tree,
        (dir, inode): (BorrowedFd<'_>, u64),
        name: &OsStr,
    ) -> Result<(), CallError> {
        let number = self.aside.len().to_string();
        let attic = self.attic(tree)?;
        renameat(dir, name, attic, number.as_str())
            .map_err(|errno| CallError::new("renameat", name, errno))?;
        self.aside.insert((inode, name.to_owned()), number);
        Ok(())
    }

    /// The directory for what is moved aside, made when it is first needed.
    fn attic(&mut self, tree: &Tree) -> Result<&OwnedFd, CallError> {
        if self.attic.is_none() {
            // No entry of the layer can guess the name.
            let random = || RandomState::new().build_hasher().finish();
            let name = OsString::from(format!(".gocker-{:016x}{:016x}", random(), random()));
            let root = tree.root();
            mkdirat(&root.fd, name.as_os_str(), Mode::S_IRWXU)
                .map_err(|errno| CallError::new("mkdirat", &name, errno))?;
            let fd = open(root.fd.as_fd(), &name)?;
            self.attic = Some((name, fd));
        }
        match &self.attic {
            Some((_, fd)) => Ok(fd),
            None => Err(CallError::new("openat", "", Errno::ENOENT)),
        }
    }

    /// Links `path`, which was moved aside, to `name` in `dir`. False: nothing
    /// of that name was.
    pub(super) fn link_moved(
        &self,
        tree: &mut Tree,
        path: &[u8],
        (dir, name): (&Dir, &OsStr),
    ) -> Result<bool, CallError> {
        let Some((_, attic)) = &self.attic else {
            return Ok(false);
        };
        let mut moved = path;
        loop {
            let (parent, component) = split(moved);
            if let Some(parent) = tree.find(parent)?
                && let Some(number) = self.aside.get(&(parent.inode, component.to_owned()))
            {
                let rest = path.get(moved.len() + 1..).unwrap_or_default();
                return link_beneath(attic.as_fd(), number, rest, (dir, name));
            }
            if parent.is_empty() {
                return Ok(false);
            }
            moved = parent;
        }
    }

    /// Destroys what was moved aside.
    pub(super) fn finish(self, tree: &Tree) -> Result<(), CallError> {
        match self.attic {
            Some((name, _)) => remove(tree.root().fd.as_fd(), &name),
            None => Ok(()),
        }
    }
}

/// Links `rest` beneath the moved file or directory `number`.
fn link_beneath(
    attic: BorrowedFd<'_>,
    number: &str,
    rest: &[u8],
    (dir, name): (&Dir, &OsStr),
) -> Result<bool, CallError> {
    let source = [number.as_bytes(), b"/", rest].concat();
    let source = source.strip_suffix(b"/").unwrap_or(&source);
    let (parent, last) = split(source);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let parent: &[u8] = if parent.is_empty() { b"." } else { parent };
    let parent = match openat2(attic, parent, how) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(false),
        Err(errno) => return Err(CallError::new("openat2", OsStr::from_bytes(source), errno)),
    };
    match linkat(&parent, last, &dir.fd, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(CallError::new("linkat", name, errno)),
    }
}

/// Removes `name` from `dir`, with all that is in it. It need not exist.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), CallError> {
    if unlink(dir, name)? {
        return Ok(());
    }
    let mut descent = Descent::at(dir)?;
    let mut levels = Vec::new();
    let mut next = Some(name.to_owned());
    loop {
        if let Some(name) = next {
            let child = open(descent.as_fd(), &name)?;
            levels.push((name, names(child.as_fd())?.into_iter()));
            descent.enter(child)?;
        }
        let Some((_, entries)) = levels.last_mut() else {
            return Ok(());
        };
        next = match entries.next() {
            Some(entry) if unlink(descent.as_fd(), &entry)? => None,
            Some(entry) => Some(entry),
            None => {
                descent.leave()?;
                let (name, _) = levels.pop().unwrap_or_default();
                unlinkat(&descent, name.as_os_str(), UnlinkatFlags::RemoveDir)
                    .map_err(|errno| CallError::new("unlinkat", name, errno))?;
                None
            }
        };
    }
}

/// Removes a name that need not exist. False: it is a directory's.
fn unlink(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, CallError> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR | Errno::EPERM) => Ok(false),
        Err(errno) => Err(CallError::new("unlinkat", name, errno)),
    }
}

fn open(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, CallError> {
    open_dir(dir, name).map_err(|errno| CallError::new("openat", name, errno))
}

/// The names in `dir`, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>, CallError> {
    let error = |errno| CallError::new("getdents64", "", errno);
    // A descriptor of its own, whose position is at the start.
    let fd = open_dir(dir, OsStr::new(".")).map_err(error)?;
    let mut dir = nix::dir::Dir::from_fd(fd).map_err(error)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry.map_err(error)?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(OsString::from_vec(name.to_vec())),
        }
    }
    Ok(names)
}

/// The state of `name` itself; None if it does not exist.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileStat>, CallError> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(CallError::new("fstatat", name, errno)),
    }
}

pub(super) fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_markers() {
        let table = [
            ("x", Marker::None),
            (".whx", Marker::None),
            (".wh.x", Marker::Whiteout(OsStr::new("x"))),
            (".wh..x", Marker::Whiteout(OsStr::new(".x"))),
            (".wh.", Marker::Invalid),
            (".wh..", Marker::Invalid),
            (".wh...", Marker::Invalid),
            (".wh..wh..opq", Marker::Opaque),
            (".wh..wh.plnk", Marker::Reserved),
            (".wh..wh.", Marker::Reserved),
        ];
        for (name, expected) in table {
            assert_eq!(marker(OsStr::new(name)), expected, "{name}");
        }
    }
}
