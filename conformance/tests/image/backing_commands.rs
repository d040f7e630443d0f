//! Every command that looks into trees, in stores whose trees are copies: what it says and makes is
//! what it says and makes where trees are snapshots.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use conformance::images::{Compression, Entry, ImageBuilder, Layer};
use conformance::tree::read_tree;
use conformance::{Registry, StoreRoot, umoci};
use serde_json::Value;

use super::backing::{FileSystem, TMPFS, XFS, store_on};
use super::bundle::Bundles;
use super::changes::{bundle_of, container_after};
use super::commit::{BUSY_SCRIPT, assert_alike, commit, committed_root, committed_tree, name};
use super::mounts::{assert_looks_safe, mount};
use super::{assert_same_trees, image_of, small_image};

const MIB: u64 = 1 << 20;
const KINDS: [FileSystem; 2] = [XFS, TMPFS];

/// A store of copies on `system`, with one small image in it.
pub(super) fn bundles_on(system: &FileSystem) -> Bundles {
    let bundles = Bundles::in_store(store_on(system));
    let reference = bundles
        .server
        .serve(&small_image("first"), "first", "latest");
    let args = ["--backing", "copy", "pull", "--quiet", &reference];
    bundles.store.run(&args).success();
    bundles
}

/// What `diff` and `commit` say after a busy container; the committed image has its tree.
fn changes_in(bundles: &mut Bundles) -> (String, Value) {
    let id = container_after(bundles, BUSY_SCRIPT);
    let root = bundles.directory().join("rootfs");
    let before = read_tree(&root).unwrap();
    let diff = bundles.store.run(&["diff", &id]).success().to_owned();
    let mut answer = commit(bundles, &id, &["--timestamp", "1700000000"]);
    // the name has the port of this test's registry
    answer["reference"] = Value::Null;
    commit(bundles, &id, &[]);
    assert_alike(("bundle", &before), ("image", &committed_tree(bundles)));
    (diff, answer)
}

#[test]
fn changes_are_the_same_changes_in_every_kind_of_store() {
    let expected = changes_in(&mut Bundles::new());
    for system in KINDS {
        assert_eq!(
            changes_in(&mut bundles_on(&system)),
            expected,
            "{}",
            system.name
        );
    }
}

#[test]
fn a_commit_beside_a_writer_is_of_one_moment_or_refused() {
    for system in KINDS {
        let mut bundles = bundles_on(&system);
        let entries = ["a", "b", "c", "d"].map(|name| Entry::file(format!("{name}/number"), "0"));
        let (id, root) = bundle_of(&mut bundles, entries.into());
        let before = bundles.store.inventory().unwrap();
        let is_done = AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                let new = root.join("new");
                for number in 1.. {
                    for directory in ["a", "d"] {
                        fs::write(&new, number.to_string()).unwrap();
                        fs::rename(&new, root.join(directory).join("number")).unwrap();
                    }
                    if is_done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let output = bundles.store.run(&["commit", &id, &name(&bundles)]);
            is_done.store(true, Ordering::Relaxed);
            output
        });
        if output.code() == 0 {
            let root = committed_root(&bundles);
            let number = |directory: &str| -> u64 {
                let path = root.join(directory).join("number");
                fs::read_to_string(path).unwrap().parse().unwrap()
            };
            let (a, d) = (number("a"), number("d"));
            assert!(a == d || a == d + 1, "{a} and {d} were never together");
        } else {
            let line = output.failure();
            assert!(
                line.contains("has changed while the root was copied"),
                "{line}"
            );
            assert!(line.contains("hint: pause or stop the container"), "{line}");
            assert_eq!(
                bundles.store.inventory().unwrap(),
                before,
                "{}",
                system.name
            );
        }
    }
}

#[test]
fn roots_of_copies_are_mounted_read_only_and_in_use_until_they_are_unmounted() {
    for system in KINDS {
        let mut bundles = bundles_on(&system);
        let (id, root) = bundle_of(&mut bundles, vec![Entry::file("a", "1")]);
        fs::write(root.join("a"), "2").unwrap();
        let image = bundles.pull(&image_of([vec![Entry::file("a", "of the image")]]));
        for (name, content) in [(&image, "of the image"), (&id, "2")] {
            let directory = mount(&bundles, &[name]);
            assert_eq!(fs::read_to_string(directory.join("a")).unwrap(), content);
            assert_looks_safe(&directory);
        }
        let refused = bundles.store.run(&["unbundle", &id]);
        assert!(
            refused.one_line_failure().contains("is mounted at"),
            "{refused}"
        );
        bundles.store.run(&["rm", &image]).success();
        bundles.store.run(&["prune", "--all"]).success();
        bundles.store.run(&["umount", "--all"]).success();
        bundles.store.run(&["unbundle", &id]).success();
        bundles.store.run(&["prune", "--all"]).success();
        assert_eq!(trees(&bundles.store), [""; 0], "{}", system.name);
    }
}

/// What there is in `layers/` and `bundles/`.
fn trees(store: &StoreRoot) -> Vec<String> {
    let is_tree = |path: &String| path.starts_with("layers/") || path.starts_with("bundles/");
    store
        .inventory()
        .unwrap()
        .into_iter()
        .filter(is_tree)
        .collect()
}

#[test]
fn what_a_killed_copy_left_is_found_and_swept() {
    for system in KINDS {
        let bundles = bundles_on(&system);
        let whole = bundles.store.inventory().unwrap();
        let layers = bundles.store.directory().join("layers");
        let half = layers.join(format!(".new-sha256-{}", "0".repeat(64)));
        fs::create_dir_all(half.join("d/e")).unwrap();
        fs::write(half.join("d/e/file"), "half").unwrap();
        let found = bundles
            .store
            .run(&["fsck", "--deep", "--format", "json"])
            .json();
        let findings = found["findings"].as_array().unwrap();
        let kinds: Vec<_> = findings.iter().map(|finding| &finding["kind"]).collect();
        assert_eq!(kinds, ["leftover"], "{found}");
        bundles.store.run(&["fsck", "--repair"]).success();
        assert_eq!(bundles.store.inventory().unwrap(), whole, "{}", system.name);
    }
}

#[test]
fn disk_usage_counts_shared_blocks_once_and_copied_ones_each_time() {
    for (system, shared) in [(XFS, 8 * MIB), (TMPFS, 0)] {
        let mut bundles = bundles_on(&system);
        let layer = Layer::of([Entry::file("large", vec![b'x'; 8 << 20])]).finish();
        let builder = ImageBuilder::new().layer_in(Compression::Zstd, &layer);
        let reference = bundles.pull(&builder.build());
        let bundle = bundles.store.bundle(&reference, "one");
        fs::write(bundle.join("rootfs/new"), vec![b'y'; 2 << 20]).unwrap();
        let usage = bundles.store.run(&["df", "--format", "json"]).json();
        let bytes = |value: &Value| value.as_u64().unwrap() / MIB * MIB;
        let of_bundles = &usage["bundles"];
        assert_eq!(bytes(&usage["layers"]["bytes"]), 8 * MIB, "{usage}");
        assert_eq!(
            bytes(&usage["layers"]["own_bytes"]),
            8 * MIB - shared,
            "{usage}"
        );
        assert_eq!(bytes(&of_bundles["bytes"]), 10 * MIB, "{usage}");
        assert_eq!(
            bytes(&of_bundles["own_bytes"]),
            10 * MIB - shared,
            "{usage}"
        );
        let one = &of_bundles["items"][0];
        assert_eq!(bytes(&one["shared_bytes"]), shared, "{usage}");
        assert_eq!(usage["backing_file"], Value::Null);
    }
}

#[test]
fn images_of_a_store_of_copies_are_saved_and_pushed_like_any_other() {
    let registry = Registry::start().unwrap();
    for system in KINDS {
        let mut bundles = bundles_on(&system);
        container_after(&mut bundles, BUSY_SCRIPT);
        let id = bundles.id();
        let root = bundles.directory().join("rootfs");
        commit(&bundles, &id, &[]);
        let committed = name(&bundles);

        let pushed = registry.reference(&format!("of/{}:1", system.name));
        bundles
            .store
            .run(&["push", "-q", &committed, &pushed])
            .success();
        let theirs = umoci::unpack(&pushed, &bundles.store.beside("umoci")).unwrap();
        assert_same_trees(&root, &theirs, system.name);

        let archive = bundles.store.beside("saved.tar");
        let archive = archive.to_str().unwrap();
        bundles
            .store
            .run(&["save", "-q", "-o", archive, &committed])
            .success();
        let other = StoreRoot::new().unwrap();
        other.run(&["load", "-q", "-i", archive]).success();
        let bundle = other.bundle(&committed, "loaded");
        assert_same_trees(&root, &bundle.join("rootfs"), system.name);
    }
}
