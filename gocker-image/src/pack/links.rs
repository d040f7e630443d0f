//! Hard links: which names of a tree are one file, and where that has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::node::{Kind, Node};

/// The names of a tree's files that have more than one.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_inode: HashMap<u64, BTreeSet<Vec<u8>>>,
    by_path: BTreeMap<Vec<u8>, u64>,
}

impl Links {
    /// Notes that `path` is a name of `node`.
    pub(super) fn note(&mut self, path: &[u8], node: &Node) {
        if node.names < 2 || node.kind == Kind::Directory {
            return;
        }
        self.by_path.insert(path.to_vec(), node.inode);
        let names = self.by_inode.entry(node.inode).or_default();
        names.insert(path.to_vec());
    }

    /// All names of the file at `path`, itself too; None if it has but one.
    pub(super) fn group(&self, path: &[u8]) -> Option<&BTreeSet<Vec<u8>>> {
        let group = self.by_inode.get(self.by_path.get(path)?)?;
        (group.len() > 1).then_some(group)
    }

    /// The same, of one name itself alone.
    fn names_with(&self, path: &[u8]) -> BTreeSet<Vec<u8>> {
        let group = self.group(path).cloned();
        group.unwrap_or_else(|| BTreeSet::from([path.to_vec()]))
    }

    /// The names, in both trees, that are linked otherwise than in the `old` one. `is_kept` says
    /// of an old name whether the new tree has it. A name that is gone changes nothing for those
    /// that stay.
    pub(super) fn regrouped(
        &self,
        old: &Self,
        is_kept: impl Fn(&[u8]) -> bool,
    ) -> BTreeSet<Vec<u8>> {
        let mut regrouped = BTreeSet::new();
        for names in self.by_inode.values() {
            let before = names.first().map(|name| old.names_with(name));
            let stayed = before.iter().flatten().filter(|name| is_kept(name));
            if !stayed.eq(names) {
                regrouped.extend(names.iter().cloned());
            }
        }
        for names in old.by_inode.values() {
            let stayed = || names.iter().filter(|name| is_kept(name));
            let now = stayed().next().map(|name| self.names_with(name));
            if !stayed().eq(now.iter().flatten()) {
                regrouped.extend(stayed().cloned());
            }
        }
        regrouped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(groups: &[&[&str]]) -> Links {
        let mut links = Links::default();
        for (inode, group) in groups.iter().enumerate() {
            for name in *group {
                let inode = inode as u64;
                links.by_path.insert(name.as_bytes().to_vec(), inode);
                let names = links.by_inode.entry(inode).or_default();
                names.insert(name.as_bytes().to_vec());
            }
        }
        links
    }

    #[test]
    fn only_what_is_linked_otherwise_is_regrouped() {
        type Groups = &'static [&'static [&'static str]];
        // old groups, new groups, all names of the new tree, what is regrouped
        let table: [(Groups, Groups, &str, &str); 6] = [
            (&[&["a", "b"]], &[&["a", "b"]], "ab", ""),
            (&[&["a", "b", "c"]], &[&["a", "b"]], "ab", ""),
            (&[&["a", "b"]], &[], "a", ""),
            (&[&["a", "b"]], &[], "ab", "ab"),
            (&[], &[&["a", "b"]], "ab", "ab"),
            (
                &[&["a", "b"], &["c", "d"]],
                &[&["a", "d"], &["b", "c"]],
                "abcd",
                "abcd",
            ),
        ];
        for (old, new, kept, expected) in table {
            let is_kept = |name: &[u8]| kept.as_bytes().contains(&name[0]);
            let got = links(new).regrouped(&links(old), is_kept);
            let got: Vec<u8> = got.into_iter().flatten().collect();
            assert_eq!(got, expected.as_bytes(), "{old:?} {new:?}");
        }
    }
}
