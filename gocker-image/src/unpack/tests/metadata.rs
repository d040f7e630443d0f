//! Owners, modes, times, attributes, links, devices and merging.

use super::*;

#[test]
fn modes_and_times_are_those_of_the_archive() {
    let root = Root::with(&[&[
        dir("d").mode(0o1777).mtime(5000),
        file("d/setuid", "x").mode(0o6755).mtime(7),
        file("d/fine", "x").pax("mtime", b"1234567890.123456789"),
        file("d/old", "x").pax("mtime", b"-5.25"),
        symlink("d/link", "fine").mtime(99),
    ]]);
    let mode = |path| root.metadata(path).mode() & 0o7777;
    let time = |path| {
        (
            root.metadata(path).mtime(),
            root.metadata(path).mtime_nsec(),
        )
    };
    assert_eq!((mode("d"), mode("d/setuid")), (0o1777, 0o6755));
    assert_eq!(time("d"), (5000, 0));
    assert_eq!(time("d/setuid"), (7, 0));
    assert_eq!(time("d/fine"), (1_234_567_890, 123_456_789));
    assert_eq!(time("d/old"), (-6, 750_000_000));
    assert_eq!(time("d/link"), (99, 0));
}

#[test]
fn directories_keep_their_times_when_files_come_and_go() {
    let lower = [dir("d").mtime(5000), file("d/a", ""), file("d/b", "")];
    let root = Root::with(&[&lower, &[file("d/c", ""), file("d/.wh.a", "")]]);
    assert_eq!(root.metadata("d").mtime(), 5000);
}

#[test]
fn a_parent_does_not_bequeath() {
    if !is_root() {
        return;
    }
    let shared = Made {
        ids: (0, 50),
        ..dir("d").mode(0o2775)
    };
    let root = Root::with(&[&[
        shared.clone(),
        dir("d/sub"),
        file("d/f", ""),
        symlink("d/l", "f"),
    ]]);
    assert_eq!(root.metadata("d").mode() & 0o7777, 0o2775);
    for path in ["d/sub", "d/f", "d/l"] {
        assert_eq!(root.metadata(path).gid(), 0, "{path}");
    }
    assert_eq!(root.metadata("d/sub").mode() & 0o7777, 0o755);
}

#[test]
fn owners_are_numbers_of_any_size() {
    if !is_root() {
        return;
    }
    let big = Made {
        ids: (4_000_000_000, 3_000_000),
        ..file("big", "x")
    };
    let pax = file("pax", "x").pax("uid", b"4294967294").pax("gid", b"7");
    let link = Made {
        ids: (5, 6),
        ..symlink("link", "big")
    };
    let root = Root::with(&[&[big.mode(0o4755), pax, link]]);
    let ids = |path| (root.metadata(path).uid(), root.metadata(path).gid());
    assert_eq!(ids("big"), (4_000_000_000, 3_000_000));
    assert_eq!(
        root.metadata("big").mode() & 0o7777,
        0o4755,
        "chown cleared the bit"
    );
    assert_eq!(ids("pax"), (4_294_967_294, 7));
    assert_eq!(ids("link"), (5, 6));
}

#[test]
fn devices_and_fifos_are_made() {
    if !is_root() {
        return;
    }
    let node = |kind, name, device| Made {
        device,
        ..made(kind, name).mode(0o620)
    };
    let root = Root::with(&[&[
        node(b'3', "null", (1, 3)),
        node(b'4', "loop", (7, 1)),
        node(b'6', "pipe", (0, 0)),
    ]]);
    assert_eq!(root.list(), ["loop 7:1", "null 1:3", "pipe|"]);
    assert_eq!(root.metadata("null").mode() & 0o7777, 0o620);
}

#[test]
fn types_replace_each_other_and_directories_merge() {
    let lower = [
        dir("d").mode(0o700),
        file("d/a", "old"),
        file("f", "old"),
        symlink("s", "d"),
    ];
    let table: [(&[Made], &[&str]); 6] = [
        (
            &[dir("d").mode(0o755)],
            &["d/", "d/a old", "f old", "s -> d"],
        ),
        (&[file("d", "x")], &["d x", "f old", "s -> d"]),
        (
            &[dir("f"), file("f/x", "1")],
            &["d/", "d/a old", "f/", "f/x 1", "s -> d"],
        ),
        (
            &[file("f/x", "1")],
            &["d/", "d/a old", "f/", "f/x 1", "s -> d"],
        ),
        (
            &[file("s/x", "1")],
            &["d/", "d/a old", "d/x 1", "f old", "s -> d"],
        ),
        (
            &[dir("s"), file("s/x", "1")],
            &["d/", "d/a old", "f old", "s/", "s/x 1"],
        ),
    ];
    for (upper, expected) in table {
        assert_eq!(Root::with(&[&lower, upper]).list(), expected);
    }
    let merged = Root::with(&[&lower, &[dir("d").mode(0o755)]]);
    assert_eq!(merged.metadata("d").mode() & 0o7777, 0o755);
}

#[test]
fn hard_links_share_an_inode_across_layers() {
    let root = Root::with(&[
        &[file("a", "1"), dir("d"), hard_link("d/b", "a")],
        &[
            hard_link("c", "d/b"),
            hard_link("a", "a"),
            hard_link("d/b", "./c"),
        ],
    ]);
    let inode = |path| root.metadata(path).ino();
    assert_eq!((inode("a"), inode("d/b")), (inode("c"), inode("c")));
    assert_eq!(root.metadata("a").nlink(), 3);
}

#[test]
fn attributes_are_set_and_replaced() {
    let attribute = |path: &Path| {
        let mut value = [0; 64];
        let len = rustix::fs::getxattr(path, c"user.a", &mut value[..]).ok()?;
        Some(value[..len].to_vec())
    };
    let with = |name, value: &[u8]| dir(name).pax("SCHILY.xattr.user.a", value);
    let root = Root::with(&[&[with("d", b"a\n=b\0c")]]);
    if attribute(&root.path.join("d")).is_none() {
        println!("skipped: no extended attributes on this file system");
        return;
    }
    assert_eq!(attribute(&root.path.join("d")).unwrap(), b"a\n=b\0c");
    root.apply(&archive(&[dir("d")])).unwrap();
    assert_eq!(
        attribute(&root.path.join("d")),
        None,
        "a stale attribute stayed"
    );
}
