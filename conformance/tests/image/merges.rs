//! Layers over layers: links across them, parents that are something else,
//! entries over entries, directories merged.
//!
//! Spec: image-spec layer.md#applying-changesets.

use conformance::images::Entry;
use conformance::{Registry, StoreRoot, tree};

use super::whiteouts::{check, dir, file};
use super::{image_of, rootfs};

#[test]
fn a_hard_link_reaches_a_lower_file_that_its_layer_removes() {
    let lower = || vec![dir("d"), file("d/target", "1")];
    let link = || Entry::hard_link("d/across", "d/target");
    check(vec![
        (
            "across layers",
            image_of([lower(), vec![link()]]),
            &["d/", "d/across=1", "d/target=1"],
        ),
        (
            "the link before the mark",
            image_of([lower(), vec![dir("d"), link(), Entry::whiteout("d/target")]]),
            &["d/", "d/across=1"],
        ),
        (
            "to a name that this layer has made anew",
            image_of([lower(), vec![dir("d"), file("d/target", "2"), link()]]),
            &["d/", "d/across=2", "d/target=2"],
        ),
        (
            "over a file of its own name",
            image_of([
                vec![dir("d"), file("d/target", "1"), file("d/across", "old")],
                vec![link()],
            ]),
            &["d/", "d/across=1", "d/target=1"],
        ),
        (
            "to itself through another name",
            image_of([lower(), vec![link()], vec![link()]]),
            &["d/", "d/across=1", "d/target=1"],
        ),
        (
            "to a symlink, which is what gets the second name",
            image_of([
                vec![dir("d"), Entry::symlink("d/target", "nowhere")],
                vec![link()],
            ]),
            &["d/", "d/across->nowhere", "d/target->nowhere"],
        ),
    ]);
}

#[test]
fn a_hard_link_reaches_a_lower_file_whose_mark_came_before_it() {
    check(vec![(
        "the mark before the link",
        image_of([
            vec![dir("d"), file("d/target", "1")],
            vec![
                dir("d"),
                Entry::whiteout("d/target"),
                Entry::hard_link("d/across", "d/target"),
            ],
        ]),
        &["d/", "d/across=1"],
    )]);
}

#[test]
fn a_parent_that_is_a_file_becomes_a_directory() {
    check(vec![(
        "a file below",
        image_of([vec![file("p", "1")], vec![file("p/f", "2")]]),
        &["p/", "p/f=2"],
    )]);
}

#[test]
fn a_parent_that_is_a_symlink_is_written_through_inside_the_root() {
    check(vec![
        (
            "relative",
            image_of([
                vec![
                    dir("usr"),
                    dir("usr/lib64"),
                    Entry::symlink("lib64", "usr/lib64"),
                ],
                vec![file("lib64/x", "2")],
            ]),
            &["lib64->usr/lib64", "usr/", "usr/lib64/", "usr/lib64/x=2"],
        ),
        (
            "absolute",
            image_of([
                vec![dir("run"), dir("var"), Entry::symlink("var/run", "/run")],
                vec![file("var/run/x", "2")],
            ]),
            &["run/", "run/x=2", "var/", "var/run->/run"],
        ),
        (
            "a mark through a symlink",
            image_of([
                vec![
                    dir("usr"),
                    dir("usr/lib64"),
                    file("usr/lib64/x", "1"),
                    Entry::symlink("lib64", "usr/lib64"),
                ],
                vec![Entry::whiteout("lib64/x")],
            ]),
            &["lib64->usr/lib64", "usr/", "usr/lib64/"],
        ),
        (
            "more dots than directories",
            image_of([
                vec![dir("d"), Entry::symlink("out", "../../../d")],
                vec![file("out/x", "2")],
            ]),
            &["d/", "d/x=2", "out->../../../d"],
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn entries_over_entries_of_another_type_replace_them() {
    check(vec![
        (
            "a file over a directory",
            image_of([vec![dir("x"), file("x/in", "1")], vec![file("x", "2")]]),
            &["x=2"],
        ),
        (
            "a directory over a file",
            image_of([vec![file("x", "1")], vec![dir("x"), file("x/in", "2")]]),
            &["x/", "x/in=2"],
        ),
        (
            "a file over a symlink, not through it",
            image_of([
                vec![file("t", "1"), Entry::symlink("x", "t")],
                vec![file("x", "2")],
            ]),
            &["t=1", "x=2"],
        ),
        (
            "a directory over a symlink to a directory",
            image_of([
                vec![dir("t"), file("t/in", "1"), Entry::symlink("x", "t")],
                vec![dir("x"), file("x/new", "2")],
            ]),
            &["t/", "t/in=1", "x/", "x/new=2"],
        ),
        (
            "a symlink over a directory",
            image_of([
                vec![dir("x"), file("x/in", "1")],
                vec![Entry::symlink("x", "gone")],
            ]),
            &["x->gone"],
        ),
        (
            "a file over a file that has a second name",
            image_of([
                vec![file("x", "1"), Entry::hard_link("y", "x")],
                vec![file("x", "2")],
            ]),
            &["x=2", "y=1"],
        ),
        (
            "the last of three entries of one name",
            image_of([vec![
                file("x", "a"),
                Entry::symlink("x", "b"),
                file("x", "c"),
            ]]),
            &["x=c"],
        ),
        (
            "a directory over a directory",
            image_of([
                vec![dir("x"), file("x/in", "1")],
                vec![dir("x").mode(0o700)],
            ]),
            &["x/", "x/in=1"],
        ),
    ]);
}

#[test]
fn a_directory_over_a_directory_takes_the_upper_ones_metadata_and_attributes() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let lower = dir("d")
        .mode(0o711)
        .owner(1, 2)
        .xattr("user.lower", "1")
        .xattr("user.both", "1");
    let upper = dir("d")
        .mode(0o750)
        .owner(3, 4)
        .mtime(1_111_111_111, 7)
        .xattr("user.both", "2");
    let image = image_of([vec![lower, file("d/f", "1")], vec![upper]]);
    let reference = registry.push(&image, "merged", "latest").unwrap();
    let tree = tree::read_tree(&rootfs(&store, &reference, "merged")).unwrap();
    let record = &tree[b"d".as_slice()];
    assert_eq!(
        (record.mode, record.uid, record.gid),
        (0o750, 3, 4),
        "{record:?}"
    );
    assert_eq!(record.mtime, (1_111_111_111, 7), "{record:?}");
    let attributes: Vec<_> = record
        .xattrs
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    assert_eq!(
        attributes,
        [(&b"user.both"[..], &b"2"[..])],
        "attributes of the lower layer go"
    );
    assert!(tree.contains_key(b"d/f".as_slice()), "what is in it stays");
}

#[test]
fn the_root_entry_sets_the_root_directorys_metadata() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let root = dir(".")
        .mode(0o751)
        .owner(11, 12)
        .mtime(1_000_000_000, 5)
        .xattr("user.root", "yes");
    let reference = registry
        .push(&image_of([vec![root, file("f", "1")]]), "root", "latest")
        .unwrap();
    let tree = tree::read_tree(&rootfs(&store, &reference, "root")).unwrap();
    let record = &tree[b"".as_slice()];
    assert_eq!(
        (record.mode, record.uid, record.gid),
        (0o751, 11, 12),
        "{record:?}"
    );
    assert_eq!(record.mtime, (1_000_000_000, 5), "{record:?}");
    assert_eq!(
        record
            .xattrs
            .get(b"user.root".as_slice())
            .map(Vec::as_slice),
        Some(&b"yes"[..])
    );
}

#[test]
fn without_a_root_entry_the_root_directory_is_roots_and_0755() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let reference = registry
        .push(&image_of([vec![file("f", "1")]]), "root", "latest")
        .unwrap();
    let tree = tree::read_tree(&rootfs(&store, &reference, "root")).unwrap();
    let record = &tree[b"".as_slice()];
    assert_eq!(
        (record.mode, record.uid, record.gid),
        (0o755, 0, 0),
        "{record:?}"
    );
}
