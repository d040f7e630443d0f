//! Stores with little space left, of many sizes: in their own file, and on the disk around it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use conformance::images::{Compression, Entry, Image, ImageBuilder, Layer};
use conformance::leftovers::remove_mounts;
use conformance::{HostileRegistry, StoreRoot};
use serde_json::json;

use super::full_disk::run;
use super::{assert_unchanged, small_image, state};

/// What the large image takes when it is unpacked.
const LARGE_MEBIBYTES: u64 = 144;

/// An image that is small on its way and large when it is unpacked, so that nobody can know.
fn large_image() -> Image {
    let content: Vec<u8> = (0..4_u32 << 20)
        .map(|at| (at / 512).to_le_bytes()[0])
        .collect();
    let files = (0..LARGE_MEBIBYTES / 4).map(|n| Entry::file(format!("f{n}"), &content));
    let layer = Layer::of(files).finish();
    ImageBuilder::new()
        .layer_in(Compression::Zstd, &layer)
        .build()
}

/// A store with one small image, in a file of so many MiB on a disk, in memory, of so many MiB.
#[track_caller]
fn store_in(server: &HostileRegistry, mebibytes: u64, around: u64) -> StoreRoot {
    let store = StoreRoot::new().unwrap();
    let options = format!("size={around}m");
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
        .arg(store.path()));
    let (size, small) = (
        format!("{mebibytes}m"),
        server.serve(&small_image("small"), "small", "latest"),
    );
    let args = ["--loop-size", &size, "pull", "--quiet", &small];
    store.run(&args).success();
    store
}

/// A file of so many MiB that takes as much.
fn fill(path: &Path, mebibytes: u64) {
    let file = File::create(path).unwrap();
    run(Command::new("fallocate")
        .args(["--length", &format!("{mebibytes}MiB")])
        .arg(path));
    file.sync_all().unwrap();
}

/// Asserts that the pull fails for want of space and says so, where and what helps; that the
/// store is as it was then, and can be written to.
#[track_caller]
fn assert_told(store: &StoreRoot, reference: &str, (place, help): (&Path, &str)) {
    let before = state(store);
    let output = store.run(&["pull", "--quiet", reference]);
    assert_eq!(output.code(), 5, "{output}");
    let line = output.one_line_failure();
    let is_told = line.contains("full") || line.contains("no space left");
    assert!(is_told && line.contains(&format!("{place:?}")), "{line}");
    let hint = output.stderr.lines().last().unwrap();
    assert!(hint.starts_with("hint: ") && hint.contains(help), "{hint}");
    assert_unchanged(store, &before);
}

#[track_caller]
fn assert_sound(store: &StoreRoot) {
    let report = store.run(&["fsck", "--format", "json"]).json();
    assert_eq!(report["findings"], json!([]));
}

#[test]
fn a_full_store_of_any_size_is_told_and_made_larger_or_emptier() {
    let server = HostileRegistry::honest().unwrap();
    let large = server.serve(&large_image(), "large", "latest");
    for (mebibytes, filled) in [
        (128, 0),
        (150, 0),
        (200, 100),
        (256, 150),
        (300, 200),
        (400, 280),
    ] {
        let store = store_in(&server, mebibytes, 900);
        let filler = store.directory().join("filler");
        if filled > 0 {
            fill(&filler, filled);
        }
        assert_told(&store, &large, (&store.path(), "grow"));
        if filled > 0 {
            fs::remove_file(&filler).unwrap();
        } else {
            store.run(&["grow", "400m"]).success();
        }
        store.run(&["pull", "--quiet", &large]).success();
        assert_sound(&store);
        // it is the same one when it is mounted again
        remove_mounts(&store.path().join("store"));
        let names = store.run(&["ls", "--quiet"]);
        assert_eq!(names.success().lines().count(), 2, "{mebibytes}: {names}");
    }
}

#[test]
fn a_store_does_not_grow_to_a_size_that_btrfs_refuses() {
    let server = HostileRegistry::honest().unwrap();
    let store = store_in(&server, 128, 300);
    let refused = store.run(&["grow", "200m"]);
    assert!(
        refused.one_line_failure().contains("268435456 or more"),
        "{refused}"
    );
    assert_sound(&store);
}

#[test]
fn a_full_disk_around_a_store_is_told_before_the_store_is_harmed() {
    let server = HostileRegistry::honest().unwrap();
    let large = server.serve(&large_image(), "large", "latest");
    for free in [12, 40, 80, 130] {
        let store = store_in(&server, 400, 420);
        let filler = store.path().join("filler");
        let stat = nix::sys::statvfs::statvfs(&store.path()).unwrap();
        let available = stat.blocks_available() * stat.fragment_size();
        fill(&filler, (available >> 20) - free);
        assert_told(&store, &large, (&store.path(), "around"));
        fs::remove_file(&filler).unwrap();
        store.run(&["pull", "--quiet", &large]).success();
        assert_sound(&store);
    }
}
