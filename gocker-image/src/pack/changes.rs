//! The comparison of two trees: one walk through both, name by name, in order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, btree_set};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::links::Links;
use super::node::{Aspect, Kind, Node, Place};
use super::{MAX_TREE_DEPTH, PackError, shown};
use crate::descent::{Descent, open_dir};
use crate::errno::CallError;
use crate::unpack::{names, stat_at};

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

/// Paths with a NUL, which no name has, for each slash, so that a directory comes right before
/// what is in it.
type Key = Vec<u8>;

struct Walk {
    kinship: Kinship,
    changes: BTreeMap<Key, Change>,
    /// Directories and files of several names that are as they were.
    unchanged: BTreeMap<Key, Node>,
    old_links: Links,
    new_links: Links,
}

/// The way down in both trees, as far as each of them goes.
struct Pair {
    old: Option<Descent>,
    new: Option<Descent>,
    levels: Vec<Level>,
}

/// A directory to go into.
struct Inner {
    old: Option<OwnedFd>,
    new: Option<OwnedFd>,
}

/// A directory in one of the trees or both.
struct Level {
    in_old: bool,
    in_new: bool,
    /// What is still to be compared in it.
    names: btree_set::IntoIter<OsString>,
    /// How much of the key is its own path.
    key_bytes: usize,
}

impl Pair {
    /// The directory in hand, in the trees that have it.
    fn here(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        let (in_old, in_new) = match self.levels.last() {
            Some(level) => (level.in_old, level.in_new),
            None => (true, true),
        };
        let (old, new) = (self.old.as_ref(), self.new.as_ref());
        (
            old.filter(|_| in_old).map(AsFd::as_fd),
            new.filter(|_| in_new).map(AsFd::as_fd),
        )
    }

    /// Goes into a directory that one of the trees has, or both.
    fn enter(&mut self, inner: Inner, key_bytes: usize) -> Result<(), PackError> {
        let Inner { old, new } = inner;
        let (in_old, in_new) = (old.is_some(), new.is_some());
        for (descent, directory) in [(&mut self.old, old), (&mut self.new, new)] {
            if let (Some(descent), Some(directory)) = (descent, directory) {
                descent.enter(directory)?;
            }
        }
        self.list(in_old, in_new, key_bytes)
    }

    fn list(&mut self, in_old: bool, in_new: bool, key_bytes: usize) -> Result<(), PackError> {
        let mut all = BTreeSet::new();
        for (descent, has) in [(&self.old, in_old), (&self.new, in_new)] {
            if let Some(descent) = descent.as_ref().filter(|_| has) {
                all.extend(names(descent.as_fd())?);
            }
        }
        self.levels.push(Level {
            in_old,
            in_new,
            names: all.into_iter(),
            key_bytes,
        });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), CallError> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        for (descent, has) in [(&mut self.old, level.in_old), (&mut self.new, level.in_new)] {
            if let Some(descent) = descent.as_mut().filter(|_| has) {
                descent.leave()?;
            }
        }
        Ok(())
    }
}

impl Walk {
    fn root(&mut self, old: Option<BorrowedFd<'_>>, new: BorrowedFd<'_>) -> Result<(), PackError> {
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
        let mut pair = Pair {
            old: old.map(Descent::at).transpose()?,
            new: Some(Descent::at(new)?),
            levels: Vec::new(),
        };
        pair.list(old.is_some(), true, 0)?;
        self.beneath(&mut pair)
    }

    /// Compares everything beneath the directory in hand.
    fn beneath(&mut self, pair: &mut Pair) -> Result<(), PackError> {
        let mut key = Key::new();
        while let Some(level) = pair.levels.last_mut() {
            key.truncate(level.key_bytes);
            let Some(name) = level.names.next() else {
                pair.leave()?;
                continue;
            };
            if !key.is_empty() {
                key.push(0);
            }
            key.extend_from_slice(name.as_bytes());
            if pair.levels.len() > MAX_TREE_DEPTH {
                return Err(PackError::TooDeep {
                    path: shown(&path_of(&key)),
                    most: MAX_TREE_DEPTH,
                });
            }
            if let Some(inner) = self.name(pair, &name, &key)? {
                pair.enter(inner, key.len())?;
            }
        }
        Ok(())
    }

    /// Compares a name; returns the directories of the two trees to go into.
    fn name(&mut self, pair: &Pair, name: &OsStr, key: &[u8]) -> Result<Option<Inner>, PackError> {
        let (old_dir, new_dir) = pair.here();
        let path = path_of(key);
        let node = |dir: Option<BorrowedFd<'_>>| -> Result<Option<Node>, CallError> {
            let Some(dir) = dir else { return Ok(None) };
            Ok(stat_at(dir, name)?.map(|stat| Node::of(&stat)))
        };
        let (old, mut new) = (node(old_dir)?, node(new_dir)?);
        let inner = Inner {
            old: enter(old_dir, name, old.as_ref())?,
            new: enter(new_dir, name, new.as_ref())?,
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
            (None, None) => return Ok(None),
            (Some(old), None) => self.note(key, Action::Deleted, *old, Vec::new()),
            (None, Some(new)) => self.note(key, Action::Added, *new, Vec::new()),
            (Some(old), Some(new)) => {
                let (Some(old_dir), Some(new_dir)) = (old_dir, new_dir) else {
                    return Ok(None);
                };
                let in_dir = |parent| Place { parent, name };
                let places = (in_dir(old_dir), in_dir(new_dir));
                let differs = self.differs(places, (old, new))?;
                if !differs.is_empty() {
                    self.note(key, Action::Changed, *new, differs);
                } else if new.kind == Kind::Directory || new.names > 1 || old.names > 1 {
                    self.unchanged.insert(key.to_vec(), *new);
                }
            }
        }
        Ok(inner.new.is_some().then_some(inner))
    }

    fn note(&mut self, key: &[u8], action: Action, node: Node, differs: Vec<Aspect>) {
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
            let ends = key.iter().enumerate().filter(|(_, byte)| **byte == 0);
            for (end, _) in ends {
                self.change_too(&key[..end], Vec::new());
            }
        }
        self.link();
        self.changes.into_values().collect()
    }

    /// Notes what is as it was as a change nonetheless.
    fn change_too(&mut self, key: &[u8], differs: Vec<Aspect>) {
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
    dir: Option<BorrowedFd<'_>>,
    name: &OsStr,
    node: Option<&Node>,
) -> Result<Option<OwnedFd>, CallError> {
    let Some(dir) = dir else { return Ok(None) };
    if node.is_none_or(|node| node.kind != Kind::Directory) {
        return Ok(None);
    }
    match open_dir(dir, name) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(CallError::new("openat", name, errno)),
    }
}

fn path_of(key: &[u8]) -> Vec<u8> {
    key.iter()
        .map(|byte| if *byte == 0 { b'/' } else { *byte })
        .collect()
}

fn key_of(path: &[u8]) -> Key {
    path.iter()
        .map(|byte| if *byte == b'/' { 0 } else { *byte })
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
