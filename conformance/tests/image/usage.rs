//! `df` and `grow`: what a store takes, and how it comes to take more.

use std::fs;
use std::os::unix::fs::MetadataExt;

use conformance::images::{Compression, Entry, ImageBuilder, Layer};
use conformance::{HostileRegistry, StoreRoot};
use nix::sys::statvfs::statvfs;

use super::small_image;

const MIB: u64 = 1 << 20;

/// A store of 256 MiB with an image of one file of 8 MiB.
fn store_with_image(server: &HostileRegistry) -> (StoreRoot, String) {
    let store = StoreRoot::new().unwrap();
    let layer = Layer::of([Entry::file("large", vec![b'x'; 8 << 20])]).finish();
    let image = ImageBuilder::new()
        .layer_in(Compression::Zstd, &layer)
        .build();
    let reference = server.serve(&image, "large", "latest");
    store
        .run(&["--loop-size", "256m", "pull", "--quiet", &reference])
        .success();
    (store, reference)
}

#[test]
fn what_is_shared_is_counted_once_and_what_is_written_is_a_bundles_own() {
    let server = HostileRegistry::honest().unwrap();
    let (store, reference) = store_with_image(&server);
    let bundle = store.bundle(&reference, "one");
    store.bundle(&reference, "two");
    fs::write(bundle.join("rootfs/new"), vec![b'y'; 2 << 20]).unwrap();
    let usage = store.run(&["df", "--format", "json"]).json();
    assert_eq!(usage["images"], 1);
    assert_eq!(usage["layers"]["count"], 1);
    assert_eq!(usage["layers"]["bytes"], 8 * MIB);
    assert_eq!(usage["layers"]["own_bytes"], 0, "the bundles have it too");
    assert_eq!(usage["bundles"]["bytes"], 10 * MIB);
    assert_eq!(usage["bundles"]["own_bytes"], 2 * MIB);
    let one = &usage["bundles"]["items"][0];
    assert_eq!(
        (&one["bytes"], &one["shared_bytes"]),
        (&(10 * MIB).into(), &(8 * MIB).into())
    );
    assert_eq!(usage["layers"]["reclaimable_bytes"], 0);

    let file = fs::metadata(store.path().join("store.btrfs")).unwrap();
    assert_eq!(usage["backing_file"]["size_bytes"], file.size());
    let taken = usage["backing_file"]["allocated_bytes"].as_u64().unwrap();
    assert!(taken < file.size() / 2, "{taken} of a sparse file");

    let table = store.run(&["df", "--verbose"]);
    assert!(
        table
            .success()
            .lines()
            .any(|line| line.starts_with("bundles  2")),
        "{table}"
    );
    assert!(table.stdout.contains("store.btrfs"), "{table}");
}

#[test]
fn what_prune_frees_is_told_before() {
    let server = HostileRegistry::honest().unwrap();
    let (store, reference) = store_with_image(&server);
    // the name stands for another image from now on
    let other = server.serve(&small_image("other"), "large", "latest");
    assert_eq!(other, reference);
    store.run(&["pull", "--quiet", &reference]).success();
    let usage = store.run(&["df", "--format", "json"]).json();
    assert_eq!(usage["layers"]["reclaimable_bytes"], 8 * MIB, "{usage}");
    store.run(&["prune"]).success();
    let usage = store.run(&["df", "--format", "json"]).json();
    assert_eq!(usage["layers"]["reclaimable_bytes"], 0);
    assert_eq!(usage["layers"]["count"], 1);
}

#[test]
fn a_store_grows_while_it_is_used_and_never_shrinks() {
    let server = HostileRegistry::honest().unwrap();
    let (store, reference) = store_with_image(&server);
    let bundle = store.bundle(&reference, "one");
    let in_use = fs::File::open(bundle.join("rootfs/large")).unwrap();
    let size = || {
        let stat = statvfs(&store.directory()).unwrap();
        stat.blocks() * stat.fragment_size()
    };
    assert_eq!(size(), 256 * MIB);
    store.run(&["grow", "512m"]).success();
    assert_eq!(size(), 512 * MIB);
    drop(in_use);
    let refused = store.run(&["grow", "300m"]);
    assert!(
        refused.one_line_failure().contains("does not shrink"),
        "{refused}"
    );
    let refused = store.run(&["grow", "900t"]);
    assert!(
        refused.one_line_failure().contains("no space left"),
        "{refused}"
    );
    assert_eq!(size(), 512 * MIB);
    assert_eq!(store.run(&["fsck"]).code(), 0);
}

#[test]
fn a_grow_that_was_killed_is_completed_by_the_next_one_or_the_next_mount() {
    let server = HostileRegistry::honest().unwrap();
    let (store, _) = store_with_image(&server);
    let size = || {
        let stat = statvfs(&store.directory()).unwrap();
        stat.blocks() * stat.fragment_size()
    };
    let extend = |mebibytes: u64| {
        let file = store.path().join("store.btrfs");
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_len(mebibytes * MIB).unwrap();
    };
    extend(384);
    assert_eq!(size(), 256 * MIB);
    store.run(&["grow", "384m"]).success();
    assert_eq!(size(), 384 * MIB);
    extend(512);
    conformance::leftovers::remove_mounts(&store.path());
    store.run(&["fsck"]).success();
    assert_eq!(size(), 512 * MIB);
}

/// Asserts that a command is refused with this said, and that nothing of the store is another.
#[track_caller]
fn assert_refused(store: &StoreRoot, args: &[&str], said: &str) {
    let before = store.inventory().unwrap();
    let output = store.run(args);
    assert!(output.one_line_failure().contains(said), "{output}");
    assert_eq!(store.inventory().unwrap(), before, "{args:?}");
}

#[test]
fn a_store_of_another_size_than_is_asked_for_is_not_taken_for_it() {
    let server = HostileRegistry::honest().unwrap();
    let (store, reference) = store_with_image(&server);
    let pull = |size| ["--loop-size", size, "pull", "--quiet", &reference];
    store.run(&pull("256m")).success();
    let said = format!("has {} bytes, not {}", 256 * MIB, 512 * MIB);
    assert_refused(&store, &pull("512m"), &said);
    let output = store.run(&["--loop-size", "512m", "ls"]);
    assert!(output.failure().contains("gocker-image grow"), "{output}");
    store.run(&["grow", "512m"]).success();
    store.run(&pull("512m")).success();
    assert_refused(&store, &pull("256m"), "bytes, not");
}

#[test]
fn a_store_is_not_taken_for_one_of_another_backing() {
    let server = HostileRegistry::honest().unwrap();
    let (store, reference) = store_with_image(&server);
    let pull = ["--backing", "copy", "pull", "--quiet", &reference];
    assert_refused(&store, &pull, "keeps its layers as btrfs subvolumes");
    let size = ["--loop-size", "256m"];
    let copies = StoreRoot::new().unwrap();
    let pull_sized = [&size, &pull[..]].concat();
    assert_refused(&copies, &pull_sized, "lies in no file");
    copies.run(&pull).success();
    assert_refused(&copies, &pull_sized, "lies in no file");
    let pull = [&size, &["pull", "--quiet", &reference][..]].concat();
    assert_refused(&copies, &pull, "lies in no file");
    let pull = ["--backing", "btrfs", "pull", "--quiet", &reference];
    assert_refused(&copies, &pull, "keeps its layers as");
}
