//! What an image tool owes to its users: pulled from real registries, unpacked
//! on real btrfs, judged by what lies there afterwards.
//!
//! `IMAGE_TOOL=umoci` has the suites of trees judge skopeo and umoci instead.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where one of its steps fails"
)]

mod backing;
mod backing_commands;
mod bad_answers;
mod bad_documents;
mod bad_layers;
mod budgets;
mod bundle;
mod changes;
mod command_line;
mod commit;
mod crash;
mod crash_points;
mod credentials;
mod cuts;
mod deep;
mod exit_statuses;
mod foreign_layers;
mod free_space;
mod fsck;
mod fsck_mounts;
mod full_disk;
mod gocker;
mod interrupted;
mod kept_blobs;
mod killed_push;
mod leases;
mod load;
mod load_hostile;
mod login;
mod merges;
mod mirrors;
mod mounts;
mod names;
mod odd_images;
mod overrides;
mod proxies;
mod pull;
mod push;
mod quota;
mod quota_groups;
mod resume;
mod save;
mod signatures;
mod tags;
mod tls;
mod transfers;
mod trees;
mod usage;
mod users;
mod whiteouts;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::http::Request;
use conformance::images::{self, Entry, Image, ImageBuilder, Layer};
use conformance::tree::{differences, read_tree};
use conformance::{HostileRegistry, StoreRoot, run_command, umoci};

/// The root file system that the tool under test makes of an image.
#[track_caller]
fn rootfs(store: &StoreRoot, reference: &str, id: &str) -> PathBuf {
    if env::var("IMAGE_TOOL").as_deref() == Ok("umoci") {
        return umoci::unpack(reference, &store.beside(&format!("umoci-{id}"))).unwrap();
    }
    store.run(&["pull", reference]).success();
    store.bundle(reference, id).join("rootfs")
}

/// An image of PAX layers, bottom first.
fn image_of<const N: usize>(layers: [Vec<Entry>; N]) -> Image {
    let builder = ImageBuilder::new();
    layers
        .into_iter()
        .fold(builder, |builder, layer| {
            builder.layer(&Layer::of(layer).finish())
        })
        .build()
}

/// An image of one small layer, with its name in the file `name`.
fn small_image(name: &str) -> Image {
    image_of([vec![Entry::dir("."), Entry::file("name", name)]])
}

/// An image in Docker's words, schema 2.
fn docker_image() -> Image {
    ImageBuilder::new()
        .docker()
        .layer(&images::busybox_layer().unwrap())
        .layer(&images::filler_layer("docker", 9, 99))
        .build()
}

/// Images that together have all that is hard to carry: their names, and they.
fn corpus() -> Vec<(&'static str, Image)> {
    vec![
        ("metadata", images::names_and_metadata()),
        ("whiteouts", images::whiteouts()),
        ("links", images::cross_link()),
        ("schema2", docker_image()),
        ("zstd", images::multi_layer().unwrap()),
    ]
}

/// Asserts that two root file systems are the same, file by file and attribute by attribute.
#[track_caller]
fn assert_same_trees(ours: &Path, theirs: &Path, what: &str) {
    let (ours, theirs) = (read_tree(ours).unwrap(), read_tree(theirs).unwrap());
    let lines = differences(("one", &ours), ("other", &theirs));
    assert_eq!(lines, Vec::<String>::new(), "{what}");
}

/// A store that has been made and holds nothing.
#[track_caller]
fn made_store() -> StoreRoot {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let reference = server.serve(&small_image("first"), "first", "latest");
    store.run(&["pull", "--quiet", &reference]).success();
    store.run(&["rm", &reference]).success();
    store.run(&["prune"]).success();
    store
}

/// Whether a blob is asked for.
fn is_blob_request(request: &Request) -> bool {
    request.method == "GET" && request.target.contains("/blobs/")
}

/// Asserts that a failed command left the store as it was.
#[track_caller]
fn assert_unchanged(store: &StoreRoot, before: &(Vec<String>, Vec<String>)) {
    let after = state(store);
    assert_eq!(before.0, after.0, "files and directories of the store");
    assert_eq!(before.1, after.1, "subvolumes of the store");
}

/// Asserts that fsck finds no damage in a store, though it may find leftovers.
#[track_caller]
fn assert_undamaged(store: &StoreRoot, after: &str) {
    let output = store.run(&["fsck"]);
    assert_eq!(output.code(), 0, "after {after}: {output}");
}

/// All files, directories and subvolumes of a store.
fn state(store: &StoreRoot) -> (Vec<String>, Vec<String>) {
    (store.inventory().unwrap(), store.subvolumes().unwrap())
}

/// Runs openssl with the arguments that `arguments` adds.
#[track_caller]
fn openssl(arguments: impl FnOnce(&mut Command) -> &mut Command) {
    let mut command = Command::new("openssl");
    arguments(&mut command);
    run_command(&mut command).success();
}
