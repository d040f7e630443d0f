//! Layers over layers: what a whiteout takes away, and what it leaves.
//!
//! Spec: image-spec layer.md#whiteouts.

use conformance::images::{Entry, Image};
use conformance::{Registry, StoreRoot, tree};

use super::{image_of, rootfs};

/// A row: what is shown, the layers bottom first, what must be there at the end.
pub(super) type Row = (&'static str, Image, &'static [&'static str]);

pub(super) fn dir(path: &str) -> Entry {
    Entry::dir(path)
}

/// A file that says which layer it is from.
pub(super) fn file(path: &str, content: &str) -> Entry {
    Entry::file(path, content)
}

#[track_caller]
pub(super) fn check(rows: Vec<Row>) {
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
#[expect(clippy::too_many_lines, reason = "a table")]
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
#[expect(clippy::too_many_lines, reason = "a table")]
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
