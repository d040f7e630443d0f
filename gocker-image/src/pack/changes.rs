//! The comparison of two trees: one walk through both, name by name, in order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::links::Links;
use super::node::{Aspect, Kind, Node, Place};
use super::{MAX_DEPTH, PackError, shown};
use crate::errno::CallError;
use crate::unpack::{names, open_dir, stat_at};

/// How much of two files is compared at a time.
const CHUNK: usize = 64 << 10;

/// What has happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Added,
    /// It is another file, the same one with other content or metadata, or a directory with
    /// changes in it.
    Changed,
    /// It is gone, with all that was in it.
    Deleted,
}

/// One name that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// From the root, without a slash before it; the root itself is empty.
    pub path: Vec<u8>,
    /// What has happened.
    pub action: Action,
    /// What is there; of a deleted name, what was there.
    pub kind: Kind,
    /// In what a changed file differs; nothing of a directory that is itself as it was.
    pub differs: Vec<Aspect>,
    /// What the kernel says of what is there, or was.
    pub(super) node: Node,
    /// The first name of the file, if it has others before this one.
    pub(super) link: Option<Vec<u8>>,
}

/// How two trees are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// The new one was made as a copy of the old one. A file with the same number and the same
    /// change time in both is then the same file.
    Copy,
    /// Nothing is known: files that look alike are read.
    None,
}

/// What has to be done to the tree `old` to make it the tree `new`, in the order of paths. No
/// `old` is an empty tree. Trees may change meanwhile: what goes away is gone.
///
/// # Errors
/// When something cannot be read, or is too deep.
pub fn compare(
    old: Option<BorrowedFd<'_>>,
    new: BorrowedFd<'_>,
    kinship: Kinship,
) -> Result<Vec<Change>, PackError> {
    let mut walk = Walk {
        kinship,
        changes: BTreeMap::new(),
        unchanged: BTreeMap::new(),
        old_links: Links::default(),
        new_links: Links::default(),
    };
    walk.root(old, new)?;
    Ok(walk.finish())
}

/// Paths as components, so that a directory comes right before what is in it.
type Key = Vec<OsString>;

struct Walk {
    kinship: Kinship,
    changes: BTreeMap<Key, Change>,
    /// Directories and files of several names that are as they were.
    unchanged: BTreeMap<Key, Node>,
    old_links: Links,
    new_links: Links,
}

/// A directory in one of the trees or both.
struct Pair {
    old: Option<OwnedFd>,
    new: Option<OwnedFd>,
}

impl Walk {
    fn root(&mut self, old: Option<BorrowedFd<'_>>, new: BorrowedFd<'_>) -> Result<(), PackError> {
        let dot = |fd| open_dir(fd, OsStr::new(".")).map_err(|e| CallError::new("openat", ".", e));
        let stat = |fd| fstat(fd).map_err(|errno| CallError::new("fstat", "", errno));
        let new_node = Node::of(&stat(new)?);
        let place = |parent| Place {
            parent,
            name: OsStr::new("."),
        };
        match old {
            Some(old) => {
                let old_node = Node::of(&stat(old)?);
                let places = (place(old), place(new));
                let differs = self.differs(places, (&old_node, &new_node))?;
                if !differs.is_empty() {
                    self.note(&[], Action::Changed, new_node, differs);
                }
            }
            None => self.note(&[], Action::Added, new_node, Vec::new()),
        }
        let pair = Pair {
            old: old.map(dot).transpose()?,
            new: Some(dot(new)?),
        };
        self.directory(&pair, &mut Vec::new())
    }

    /// Compares what is in a directory. `key` is its path, and is again when this returns.
    fn directory(&mut self, pair: &Pair, key: &mut Key) -> Result<(), PackError> {
        let list = |fd: &Option<OwnedFd>| match fd {
            Some(fd) => names(fd.as_fd()),
            None => Ok(Vec::new()),
        };
        let all: BTreeSet<OsString> = list(&pair.old)?
            .into_iter()
            .chain(list(&pair.new)?)
            .collect();
        for name in all {
            key.push(name);
            if key.len() > MAX_DEPTH {
                return Err(PackError::TooDeep(shown(&path_of(key))));
            }
            self.name(pair, key)?;
            key.pop();
        }
        Ok(())
    }

    fn name(&mut self, pair: &Pair, key: &mut Key) -> Result<(), PackError> {
        let name = key.last().cloned().unwrap_or_default();
        let path = path_of(key);
        let node = |dir: &Option<OwnedFd>| -> Result<Option<Node>, CallError> {
            let Some(dir) = dir else { return Ok(None) };
            Ok(stat_at(dir.as_fd(), &name)?.map(|stat| Node::of(&stat)))
        };
        let (old, mut new) = (node(&pair.old)?, node(&pair.new)?);
        let inner = Pair {
            old: enter(&pair.old, &name, old.as_ref())?,
            new: enter(&pair.new, &name, new.as_ref())?,
        };
        if inner.new.is_none() {
            // a directory that went away in this moment
            new = new.filter(|node| node.kind != Kind::Directory);
        }
        if let Some(old) = &old {
            self.old_links.note(&path, old);
        }
        if let Some(new) = &new {
            self.new_links.note(&path, new);
        }
        match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(old), None) => self.note(key, Action::Deleted, *old, Vec::new()),
            (None, Some(new)) => self.note(key, Action::Added, *new, Vec::new()),
            (Some(old), Some(new)) => {
                let (Some(old_dir), Some(new_dir)) = (&pair.old, &pair.new) else {
                    return Ok(());
                };
                let in_dir = |parent| Place {
                    parent,
                    name: &name,
                };
                let places = (in_dir(old_dir.as_fd()), in_dir(new_dir.as_fd()));
                let differs = self.differs(places, (old, new))?;
                if !differs.is_empty() {
                    self.note(key, Action::Changed, *new, differs);
                } else if new.kind == Kind::Directory || new.names > 1 || old.names > 1 {
                    self.unchanged.insert(key.clone(), *new);
                }
            }
        }
        match inner.new {
            Some(_) => self.directory(&inner, key),
            None => Ok(()),
        }
    }

    fn note(&mut self, key: &[OsString], action: Action, node: Node, differs: Vec<Aspect>) {
        let change = Change {
            path: path_of(key),
            action,
            kind: node.kind,
            differs,
            node,
            link: None,
        };
        self.changes.insert(key.to_vec(), change);
    }

    fn differs(
        &self,
        (old_place, new_place): (Place<'_>, Place<'_>),
        (old, new): (&Node, &Node),
    ) -> Result<Vec<Aspect>, PackError> {
        if self.kinship == Kinship::Copy && new.is_untouched(old) {
            return Ok(Vec::new());
        }
        let mut differs = new.differs(old);
        if differs.contains(&Aspect::Type) {
            return Ok(differs);
        }
        if new_place.xattrs()? != old_place.xattrs()? {
            differs.push(Aspect::Xattrs);
        }
        if new.kind == Kind::Symlink && new_place.target()? != old_place.target()? {
            differs.push(Aspect::Target);
        }
        if new.kind == Kind::File
            && !differs.contains(&Aspect::Content)
            && !is_same_content(old_place, new_place)?
        {
            differs.push(Aspect::Content);
        }
        Ok(differs)
    }

    /// Adds what is linked otherwise, and the directories on the way to a change.
    fn finish(mut self) -> Vec<Change> {
        let is_there = |path: &[u8]| {
            let key = key_of(path);
            let noted = self.changes.get(&key);
            noted.map_or_else(
                || self.unchanged.contains_key(&key),
                |change| change.action != Action::Deleted,
            )
        };
        for path in self.new_links.regrouped(&self.old_links, is_there) {
            self.change_too(&key_of(&path), vec![Aspect::Links]);
        }
        let keys: Vec<Key> = self.changes.keys().cloned().collect();
        for key in keys {
            for depth in 1..key.len() {
                self.change_too(&key[..depth], Vec::new());
            }
        }
        self.link();
        self.changes.into_values().collect()
    }

    /// Notes what is as it was as a change nonetheless.
    fn change_too(&mut self, key: &[OsString], differs: Vec<Aspect>) {
        if let Some(node) = self.unchanged.remove(key) {
            self.note(key, Action::Changed, node, differs);
        } else if let Some(change) = self.changes.get_mut(key)
            && change.action == Action::Changed
            && !change.differs.contains(&Aspect::Type)
        {
            change.differs.extend(differs);
        }
    }

    /// Says of each name but the first of a file which one the first is.
    fn link(&mut self) {
        let mut first: HashMap<u64, Vec<u8>> = HashMap::new();
        for change in self.changes.values_mut() {
            let is_linked = self.new_links.group(&change.path).is_some();
            if change.action == Action::Deleted || !is_linked {
                continue;
            }
            match first.entry(change.node.inode) {
                Entry::Occupied(first) => change.link = Some(first.get().clone()),
                Entry::Vacant(first) => drop(first.insert(change.path.clone())),
            }
        }
    }
}

/// Opens `name` in `dir` if `node` says that it is a directory; None if it is none by now.
fn enter(
    dir: &Option<OwnedFd>,
    name: &OsStr,
    node: Option<&Node>,
) -> Result<Option<OwnedFd>, CallError> {
    let Some(dir) = dir else { return Ok(None) };
    if node.is_none_or(|node| node.kind != Kind::Directory) {
        return Ok(None);
    }
    match open_dir(dir.as_fd(), name) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(CallError::new("openat", name, errno)),
    }
}

fn path_of(key: &[OsString]) -> Vec<u8> {
    let components: Vec<&[u8]> = key.iter().map(|name| name.as_bytes()).collect();
    components.join(&b'/')
}

fn key_of(path: &[u8]) -> Key {
    let components = path.split(|byte| *byte == b'/');
    components
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

/// Whether two files of one size have the same bytes.
fn is_same_content(old: Place<'_>, new: Place<'_>) -> Result<bool, CallError> {
    let (old_file, new_file) = (File::from(old.open_file()?), File::from(new.open_file()?));
    let mut chunks = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    loop {
        read_chunk(&old_file, &mut chunks.0, old.name)?;
        read_chunk(&new_file, &mut chunks.1, new.name)?;
        if chunks.0 != chunks.1 {
            return Ok(false);
        }
        if chunks.0.is_empty() {
            return Ok(true);
        }
    }
}

fn read_chunk(file: &File, chunk: &mut Vec<u8>, name: &OsStr) -> Result<(), CallError> {
    chunk.clear();
    let read = file.take(CHUNK as u64).read_to_end(chunk);
    read.map(drop)
        .map_err(|error| CallError::new("read", name, error))
}
