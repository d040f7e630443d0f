//! Trees of thousands of levels: deeper than there are descriptors, and deeper than any path that
//! the kernel takes.

use std::fs;
use std::process::Command;

use conformance::command::Output;
use conformance::images::Entry;
use conformance::{StoreRoot, run_command};

use super::backing::TMPFS;
use super::backing_commands::bundles_on;
use super::bundle::Bundles;
use super::{image_of, small_image};

/// How many descriptors the tool may have.
const DESCRIPTORS: usize = 256;
/// With 250 directories each, deeper than the longest path.
const HOPS: usize = 8;

/// Directories in one another.
fn directories(count: usize) -> String {
    vec!["d"; count].join("/")
}

/// Directories far deeper than the budget has it, made by entries that each keep to it: they go on
/// from a symlink to the last of those before.
fn deep_by_symlinks() -> Vec<Entry> {
    let mut entries = vec![Entry::dir("."), Entry::symlink("l0", directories(250))];
    entries.push(Entry::dir(directories(250)));
    for hop in 0..HOPS {
        let inner = |depth| format!("l{hop}/{}", directories(depth));
        entries.extend((1..=250).map(|depth| Entry::dir(inner(depth))));
        entries.push(Entry::symlink(format!("l{}", hop + 1), inner(250)));
    }
    entries.push(Entry::file(format!("l{HOPS}/file"), "at the bottom"));
    entries
}

#[track_caller]
fn run(store: &StoreRoot, args: &[&str]) -> Output {
    let inner = store.command(args);
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={DESCRIPTORS}"));
    command.arg(inner.get_program()).args(inner.get_args());
    run_command(&mut command)
}

/// A store on btrfs and one of copies, each with one small image.
fn stores() -> [Bundles; 2] {
    let mut on_btrfs = Bundles::new();
    on_btrfs.pull(&small_image("first"));
    [on_btrfs, bundles_on(&TMPFS)]
}

/// Runs every command that walks through trees on an image, which it pulls and takes away.
#[track_caller]
fn walk_everywhere(store: &StoreRoot, pull: &[&str], reference: &str) {
    let empty = store.inventory().unwrap();
    run(store, &[pull, &[reference]].concat()).success();
    let whole = store.inventory().unwrap();
    let args = ["bundle", reference, "--name", "deep", "--", "/bin/x"];
    run(store, &args).success();
    assert_eq!(run(store, &["diff", "deep"]).success(), "");
    let root = store.directory().join("bundles/deep/rootfs");
    fs::write(root.join("new"), "").unwrap();
    assert_eq!(run(store, &["diff", "deep"]).success(), "A /new\n");
    run(
        store,
        &["commit", "--quiet", "deep", "localhost/committed:1"],
    )
    .success();
    assert_eq!(
        run(store, &["diff", "localhost/committed:1"]).success(),
        "A /new\n"
    );

    // what is deeper than a layer may have it is seen, and not committed
    let bottom = root.join(directories(300)).join("new");
    fs::write(&bottom, "").unwrap();
    let diff = run(store, &["diff", "deep"]).success().to_owned();
    let expected = format!("A /{}/new", directories(300));
    assert!(diff.lines().any(|line| line == expected), "{diff}");
    let refused = run(store, &["commit", "deep", "localhost/refused:1"]);
    let line = refused.one_line_failure();
    assert!(line.contains("more than 256 components"), "{line}");

    run(store, &["df"]).success();
    run(store, &["fsck", "--deep"]).success();
    run(store, &["unbundle", "deep"]).success();
    run(store, &["rm", "localhost/committed:1"]).success();
    run(store, &["prune"]).success();
    assert_eq!(store.inventory().unwrap(), whole);
    run(store, &["rm", reference]).success();
    run(store, &["prune"]).success();
    assert_eq!(store.inventory().unwrap(), empty);
}

#[test]
fn a_tree_as_deep_as_the_longest_path_is_walked_where_the_user_allows_it() {
    let file = format!("{}/file", directories(2000));
    let image = image_of([vec![Entry::dir("."), Entry::file(file, "at the bottom")]]);
    for bundles in stores() {
        let store = &bundles.store;
        let reference = bundles.server.serve(&image, "deep", "latest");
        let refused = run(store, &["pull", "--quiet", &reference]);
        let line = refused.one_line_failure();
        assert!(line.contains("more than 256 components"), "{line}");
        let pull = ["pull", "--quiet", "--max-path-depth", "2001"];
        walk_everywhere(store, &pull, &reference);
    }
}

#[test]
fn a_tree_deeper_than_any_path_is_walked_by_every_command() {
    let deep = image_of([deep_by_symlinks()]);
    // its second layer takes the tree away but what it makes in it itself
    let above = vec![Entry::file("d/d/new", ""), Entry::whiteout("d")];
    let cut = image_of([deep_by_symlinks(), above]);
    for bundles in stores() {
        let store = &bundles.store;
        let reference = bundles.server.serve(&deep, "deep", "latest");
        walk_everywhere(store, &["pull", "--quiet"], &reference);
        let reference = bundles.server.serve(&cut, "cut", "latest");
        run(store, &["pull", "--quiet", &reference]).success();
        let root = store.bundle(&reference, "cut").join("rootfs");
        let inner = fs::read_dir(root.join("d/d")).unwrap();
        let names: Vec<_> = inner.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["new"]);
    }
}

#[test]
fn a_path_that_the_kernel_does_not_take_is_refused() {
    let long = vec!["n".repeat(255); 17].join("/");
    let image = image_of([vec![Entry::dir(long)]]);
    for bundles in stores() {
        let before = bundles.store.inventory().unwrap();
        let reference = bundles.server.serve(&image, "long", "latest");
        let refused = run(&bundles.store, &["pull", "--quiet", &reference]);
        let line = refused.one_line_failure();
        assert!(line.contains("more than 4095 bytes"), "{line}");
        assert_eq!(bundles.store.inventory().unwrap(), before);
    }
}
