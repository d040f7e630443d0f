//! Layers over layers: what goes, what stays, what is merged.
//!
//! Spec: image-spec layer.md#whiteouts, layer.md#applying-changesets.

use conformance::images::{Entry, Image};
use conformance::{Registry, StoreRoot, tree};

use super::{image_of, rootfs};

/// A row: what is shown, the layers bottom first, what must be there at the end.
type Row = (&'static str, Image, &'static [&'static str]);

fn dir(path: &str) -> Entry {
    Entry::dir(path)
}

/// A file that says which layer it is from.
fn file(path: &str, content: &str) -> Entry {
    Entry::file(path, content)
}

#[track_caller]
fn check(rows: Vec<Row>) {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let mut wrong = Vec::new();
    for (number, (name, image, want)) in rows.into_iter().enumerate() {
        let id = format!("row{number}");
        let reference = registry.push(&image, &id, "latest").unwrap();
        let outline = tree::outline(&rootfs(&store, &reference, &id)).unwrap();
        if outline != want {
            wrong.push(format!("{name}:\n     got {outline:?}\n    want {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_whiteout_removes_what_the_lower_layers_have_and_only_that() {
    check(vec![
        (
            "a file, a directory and a symlink",
            image_of([
                vec![
                    file("f", "1"),
                    dir("d"),
                    dir("d/e"),
                    file("d/e/g", "1"),
                    Entry::symlink("l", "f"),
                    file("k", "1"),
                ],
                vec![
                    Entry::whiteout("f"),
                    Entry::whiteout("d"),
                    Entry::whiteout("l"),
                ],
            ]),
            &["k=1"],
        ),
        (
            "in a directory below",
            image_of([
                vec![dir("d"), file("d/f", "1"), file("d/k", "1")],
                vec![dir("d"), Entry::whiteout("d/f")],
            ]),
            &["d/", "d/k=1"],
        ),
        (
            "the mark comes after the new file of its name",
            image_of([
                vec![file("x", "1")],
                vec![file("x", "2"), Entry::whiteout("x")],
            ]),
            &["x=2"],
        ),
        (
            "the mark comes before the new file of its name",
            image_of([
                vec![file("x", "1")],
                vec![Entry::whiteout("x"), file("x", "2")],
            ]),
            &["x=2"],
        ),
        (
            "nothing of that name is below",
            image_of([
                vec![file("k", "1")],
                vec![
                    Entry::whiteout("never"),
                    dir("d"),
                    Entry::whiteout("d/never"),
                ],
            ]),
            &["d/", "k=1"],
        ),
        (
            "the file comes back in a third layer",
            image_of([
                vec![file("x", "1")],
                vec![Entry::whiteout("x")],
                vec![file("x", "3")],
            ]),
            &["x=3"],
        ),
        (
            "a symlink to a directory goes, the directory stays",
            image_of([
                vec![dir("d"), file("d/f", "1"), Entry::symlink("l", "d")],
                vec![Entry::whiteout("l")],
            ]),
            &["d/", "d/f=1"],
        ),
    ]);
}

#[test]
fn a_whited_out_directory_that_comes_back_is_fresh_in_any_order() {
    let lower = || {
        vec![
            dir("d").mode(0o700),
            file("d/old", "1"),
            dir("d/sub"),
            file("d/sub/old", "1"),
            file("k", "1"),
        ]
    };
    let want: &[&str] = &["d/", "d/new=2", "k=1"];
    check(vec![
        (
            "mark, directory, file",
            image_of([
                lower(),
                vec![Entry::whiteout("d"), dir("d"), file("d/new", "2")],
            ]),
            want,
        ),
        (
            "directory, mark, file",
            image_of([
                lower(),
                vec![dir("d"), Entry::whiteout("d"), file("d/new", "2")],
            ]),
            want,
        ),
        (
            "directory, file, mark",
            image_of([
                lower(),
                vec![dir("d"), file("d/new", "2"), Entry::whiteout("d")],
            ]),
            want,
        ),
        (
            "mark and file, no directory",
            image_of([lower(), vec![Entry::whiteout("d"), file("d/new", "2")]]),
            want,
        ),
        (
            "file and mark, no directory",
            image_of([lower(), vec![file("d/new", "2"), Entry::whiteout("d")]]),
            want,
        ),
        (
            "deep below, the mark last",
            image_of([
                lower(),
                vec![
                    dir("d"),
                    dir("d/sub"),
                    dir("d/sub/deep"),
                    file("d/sub/deep/new", "2"),
                    Entry::whiteout("d"),
                ],
            ]),
            &["d/", "d/sub/", "d/sub/deep/", "d/sub/deep/new=2", "k=1"],
        ),
    ]);
}

#[test]
fn an_opaque_mark_hides_the_lower_layers_before_and_after_its_siblings() {
    let lower = || {
        vec![
            dir("d"),
            file("d/old", "1"),
            dir("d/sub"),
            file("d/sub/old", "1"),
            file("k", "1"),
        ]
    };
    let want: &[&str] = &["d/", "d/new=2", "d/sub/", "d/sub/new=2", "k=1"];
    let siblings = || vec![file("d/new", "2"), dir("d/sub"), file("d/sub/new", "2")];
    let with = |at: usize| {
        let mut upper = siblings();
        upper.insert(at, Entry::opaque("d"));
        upper.insert(0, dir("d"));
        image_of([lower(), upper])
    };
    check(vec![
        ("before all", with(0), want),
        ("in the middle", with(1), want),
        ("after all", with(3), want),
        (
            "the directory's own entry comes last",
            image_of([
                lower(),
                vec![file("d/new", "2"), Entry::opaque("d"), dir("d")],
            ]),
            &["d/", "d/new=2", "k=1"],
        ),
        (
            "twice in one layer",
            image_of([
                lower(),
                vec![Entry::opaque("d"), file("d/new", "2"), Entry::opaque("d")],
            ]),
            &["d/", "d/new=2", "k=1"],
        ),
        (
            "a file of the lower layer that comes again stays",
            image_of([
                lower(),
                vec![dir("d"), file("d/old", "2"), Entry::opaque("d")],
            ]),
            &["d/", "d/old=2", "k=1"],
        ),
        (
            "in a directory that is new",
            image_of([
                lower(),
                vec![dir("n"), Entry::opaque("n"), file("n/f", "2")],
            ]),
            &[
                "d/",
                "d/old=1",
                "d/sub/",
                "d/sub/old=1",
                "k=1",
                "n/",
                "n/f=2",
            ],
        ),
        (
            "in a nested directory only",
            image_of([
                lower(),
                vec![
                    dir("d"),
                    dir("d/sub"),
                    file("d/sub/new", "2"),
                    Entry::opaque("d/sub"),
                ],
            ]),
            &["d/", "d/old=1", "d/sub/", "d/sub/new=2", "k=1"],
        ),
    ]);
}

#[test]
fn an_opaque_mark_at_the_root_hides_all_layers_below() {
    let root_mark = || Entry::file(".wh..wh..opq", "");
    check(vec![(
        "at the root",
        image_of([
            vec![file("f", "1"), dir("d"), file("d/f", "1")],
            vec![file("new", "2"), root_mark()],
        ]),
        &["new=2"],
    )]);
}

#[test]
fn reserved_names_of_other_whiteout_kinds_are_never_made() {
    check(vec![(
        "aufs's own files",
        image_of([
            vec![file("k", "1")],
            vec![
                dir(".wh..wh.plnk"),
                file(".wh..wh.plnk/1.2", ""),
                file(".wh..wh.aufs", ""),
                file("n", "2"),
            ],
        ]),
        &["k=1", "n=2"],
    )]);
}

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
