//! `pull --keep-blobs`: the layers as they were transferred, beside what they were unpacked to.

use std::fs;
use std::path::PathBuf;

use conformance::images::{self, Compression, Image, ImageBuilder};
use conformance::{HostileRegistry, Registry, StoreRoot};

use super::{is_blob_request, small_image, state};

/// A layer that is small and one that is large enough to be resumed; the small one twice.
fn image() -> Image {
    let small = images::filler_layer("small", 3, 100);
    ImageBuilder::new()
        .layer(&small)
        .layer_in(
            Compression::Zstd,
            &images::filler_layer("large", 30, 100_000),
        )
        .layer(&small)
        .build()
}

fn blob(store: &StoreRoot, digest: &str) -> PathBuf {
    store
        .directory()
        .join("blobs")
        .join(digest.replace(':', "/"))
}

/// The layers of `image` whose blobs lie in the store as they were sent.
fn kept(store: &StoreRoot, image: &Image) -> Vec<bool> {
    let is_kept = |digest: &str, bytes: &[u8]| {
        fs::read(blob(store, digest)).is_ok_and(|found| found == bytes)
    };
    let layers = image.layers.iter();
    layers
        .map(|layer| is_kept(&layer.digest, &layer.bytes))
        .collect()
}

#[test]
fn blobs_are_kept_where_it_is_asked_for_and_as_long_as_their_image() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let image = image();
    let reference = registry.push(&image, "image", "latest").unwrap();
    store.run(&["pull", &reference]).success();
    assert_eq!(kept(&store, &image), [false; 3], "without being asked");
    let before = state(&store);
    store.run(&["rm", &reference]).success();
    store.run(&["pull", "--keep-blobs", &reference]).success();
    store.run(&["prune"]).success();
    assert_eq!(kept(&store, &image), [true; 3]);
    let partial = store.directory().join("partial");
    assert_eq!(fs::read_dir(partial).unwrap().count(), 0, "partial blobs");
    store.run(&["rm", &reference]).success();
    store.run(&["pull", &reference]).success();
    assert_eq!(state(&store), before, "the blobs went with the image");
}

#[test]
fn the_blobs_of_layers_that_are_here_are_fetched_without_unpacking_them_again() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let image = image();
    let reference = registry.push(&image, "image", "latest").unwrap();
    store.run(&["pull", &reference]).success();
    let fetched = registry.fetched_blobs().unwrap().len();
    let answer = store
        .run(&["pull", "--keep-blobs", "--format", "json", &reference])
        .json();
    assert_eq!(answer["fetched_layers"], 0, "none is unpacked");
    assert_eq!(kept(&store, &image), [true; 3]);
    assert_eq!(
        registry.fetched_blobs().unwrap().len(),
        fetched + 2,
        "each once"
    );
    store.run(&["pull", "--keep-blobs", &reference]).success();
    assert_eq!(
        registry.fetched_blobs().unwrap().len(),
        fetched + 2,
        "all are here"
    );
}

#[test]
fn a_layer_is_unpacked_from_its_kept_blob_unless_that_is_damaged() {
    let server = HostileRegistry::honest().unwrap();
    let store = StoreRoot::new().unwrap();
    let image = small_image("kept");
    let reference = server.serve(&image, "image", "latest");
    let fetched = || {
        let digest = &image.layers[0].digest;
        let requests = server.requests().into_iter();
        requests
            .filter(|request| is_blob_request(request) && request.target.ends_with(digest))
            .count()
    };
    store.run(&["pull", "--keep-blobs", &reference]).success();
    assert_eq!(fetched(), 1);
    let blob = blob(&store, &image.layers[0].digest);
    // the layer goes, and its blob stays
    let bytes = fs::read(&blob).unwrap();
    store.run(&["rm", &reference]).success();
    fs::write(&blob, &bytes).unwrap();
    store.run(&["pull", "--keep-blobs", &reference]).success();
    assert_eq!(fetched(), 1, "it was unpacked from the blob that is here");
    store.run(&["rm", &reference]).success();
    fs::write(&blob, vec![b'x'; bytes.len()]).unwrap();
    store.run(&["pull", "--keep-blobs", &reference]).success();
    assert_eq!(fetched(), 2, "a damaged one is fetched again");
    assert_eq!(kept(&store, &image), [true]);
}
