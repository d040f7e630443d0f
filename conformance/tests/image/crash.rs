//! `kill -9` at any moment, and two pulls at once: the next run finds a store
//! that works and sweeps what nothing refers to.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use conformance::command::{end_within, process_id};
use conformance::hostile::{Answer, Delivery};
use conformance::images::{self, Image, ImageBuilder};
use conformance::{HostileRegistry, Registry, StoreRoot, tree};

use super::{is_blob_request, made_store, small_image, state};

/// An image that takes some time to unpack.
fn image() -> Image {
    let builder = ImageBuilder::new().layer(&images::busybox_layer().unwrap());
    ["a", "b", "c"]
        .iter()
        .fold(builder, |builder, name| {
            builder.layer(&images::filler_layer(name, 400, 4000))
        })
        .build()
}

#[test]
fn a_pull_killed_at_many_instants_leaves_a_store_that_the_next_one_cleans() {
    let registry = Registry::start().unwrap();
    let reference = registry.push(&image(), "image", "latest").unwrap();
    let (whole, duration) = pulled_and_pruned(&reference);
    let store = made_store();
    let (instants, mut killed) = (24, 0);
    for instant in 0..instants {
        let mut child = store
            .command(&["pull", "--quiet", &reference])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(duration.mul_f64(f64::from(instant) / f64::from(instants)));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        // Every few crashes, the next pull has to get through; between them
        // crash follows on crash.
        if instant % 4 == 3 {
            store.run(&["pull", "--quiet", &reference]).success();
            assert_eq!(
                state(&store),
                whole,
                "after a crash at {instant}/{instants} and a whole pull"
            );
            store.run(&["rm", &reference]).success();
            store.run(&["prune"]).success();
        }
    }
    assert!(
        killed >= instants / 2,
        "only {killed} of {instants} were killed in time"
    );
}

/// What a store holds after one undisturbed pull, and how long that took.
fn pulled_and_pruned(reference: &str) -> ((Vec<String>, Vec<String>), Duration) {
    let store = made_store();
    let start = Instant::now();
    store.run(&["pull", "--quiet", reference]).success();
    (state(&store), start.elapsed())
}

#[test]
fn what_a_killed_pull_had_made_is_whole_or_not_there() {
    let registry = Registry::start().unwrap();
    let reference = registry.push(&image(), "image", "latest").unwrap();
    let undisturbed = StoreRoot::new().unwrap();
    undisturbed.run(&["pull", "--quiet", &reference]).success();
    let want = tree::read_tree(&undisturbed.bundle(&reference, "one").join("rootfs")).unwrap();
    let store = made_store();
    for milliseconds in [15, 40, 80, 160, 320] {
        let mut child = store
            .command(&["pull", "--quiet", &reference])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    store.run(&["pull", "--quiet", &reference]).success();
    let got = tree::read_tree(&store.bundle(&reference, "one").join("rootfs")).unwrap();
    assert_eq!(
        tree::differences(("after crashes", &got), ("undisturbed", &want)),
        Vec::<String>::new()
    );
}

#[test]
fn a_pull_killed_in_a_stalled_download_leaves_nothing_that_prune_keeps() {
    let image = image();
    let server = HostileRegistry::start(move |request| {
        let layer = image
            .layers
            .iter()
            .find(|layer| request.target.ends_with(&layer.digest))?;
        let answer = Answer::document("application/octet-stream", layer.bytes.to_vec());
        Some(answer.delivery(Delivery::StallAfter(layer.bytes.len() / 2)))
    })
    .unwrap();
    let store = StoreRoot::new().unwrap();
    let good = server.serve(&small_image("good"), "good", "latest");
    store.run(&["pull", &good]).success();
    let before = state(&store);
    let reference = server.serve(&self::image(), "image", "latest");
    let mut child = store
        .command(&["pull", "--quiet", &reference])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = || {
        server
            .requests()
            .iter()
            .any(|request| is_blob_request(request) && request.target.contains("/image/"))
    };
    assert!(
        conformance::wait_until(Duration::from_secs(20), begun),
        "no download began"
    );
    sleep(Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    store.run(&["prune"]).success();
    let after = state(&store);
    assert_eq!(before.1, after.1, "subvolumes");
    let left: Vec<_> = after
        .0
        .iter()
        .filter(|path| !before.0.contains(path))
        .collect();
    // What was downloaded may wait to be taken up again; no more than that.
    assert!(
        left.iter()
            .all(|path| path.starts_with("partial/") || path.starts_with("blobs/")),
        "{left:?}"
    );
}

#[test]
fn an_interrupted_pull_ends_at_once_and_tells_nothing_false() {
    use nix::sys::signal::{Signal, kill};
    let image = image();
    let server = HostileRegistry::start(move |request| {
        let layer = image
            .layers
            .last()
            .filter(|layer| request.target.ends_with(&layer.digest))?;
        let answer = Answer::document("application/octet-stream", layer.bytes.to_vec());
        Some(answer.delivery(Delivery::StallAfter(1000)))
    })
    .unwrap();
    let store = made_store();
    let reference = server.serve(&self::image(), "image", "latest");
    let mut child = store
        .command(&["pull", "--quiet", &reference])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let last = self::image().layers[3].digest.clone();
    let begun = || server.fetched_blobs().contains(&last);
    assert!(
        conformance::wait_until(Duration::from_secs(20), begun),
        "no download began"
    );
    sleep(Duration::from_millis(500));
    kill(process_id(child.id()), Signal::SIGINT).unwrap();
    let status = end_within(&mut child, Duration::from_secs(5));
    assert!(
        status.is_some_and(|status| !status.success()),
        "SIGINT ends it: {status:?}"
    );
    let listed = store.run(&["ls"]);
    assert!(!listed.success().contains(&reference), "{listed}");
}

#[test]
fn two_pulls_of_one_image_at_once_do_the_work_once() {
    let registry = Registry::start().unwrap();
    let image = image();
    let reference = registry.push(&image, "image", "latest").unwrap();
    let store = made_store();
    let start = || {
        store
            .command(&["pull", "--quiet", &reference])
            .spawn()
            .unwrap()
    };
    let mut children = [start(), start()];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let mut fetched = registry.fetched_blobs().unwrap();
    fetched.retain(|digest| image.layers.iter().any(|layer| layer.digest == *digest));
    assert_eq!(
        fetched.len(),
        image.layers.len(),
        "each layer once: {fetched:?}"
    );
    assert_eq!(state(&store), pulled_and_pruned(&reference).0);
}

#[test]
fn of_two_pulls_one_may_be_killed_and_the_other_goes_on() {
    let registry = Registry::start().unwrap();
    let reference = registry.push(&image(), "image", "latest").unwrap();
    let store = made_store();
    for milliseconds in [20, 60, 120] {
        let mut first = store
            .command(&["pull", "--quiet", &reference])
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(5));
        let mut second = store
            .command(&["pull", "--quiet", &reference])
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(milliseconds));
        first.kill().unwrap();
        first.wait().unwrap();
        assert!(
            second.wait().unwrap().success(),
            "the second, {milliseconds} ms"
        );
        store.bundle(&reference, &format!("b{milliseconds}"));
        store.run(&["rm", &reference]);
    }
}

#[test]
fn removing_an_image_removes_its_layers_and_no_others() {
    let registry = Registry::start().unwrap();
    let base = images::filler_layer("base", 20, 500);
    let one = ImageBuilder::new().layer(&base).build();
    let two = ImageBuilder::new()
        .layer(&base)
        .layer(&images::filler_layer("more", 5, 50))
        .build();
    let store = StoreRoot::new().unwrap();
    let one = registry.push(&one, "one", "latest").unwrap();
    let two = registry.push(&two, "two", "latest").unwrap();
    store.run(&["pull", &one]).success();
    let with_one = state(&store);
    store.run(&["pull", &two]).success();
    store.run(&["rm", &two]).success();
    store.run(&["prune"]).success();
    assert_eq!(state(&store), with_one, "the shared layer stays");
    assert!(store.bundle(&one, "one").join("rootfs/base/0/1").exists());
}

#[test]
fn a_removed_store_entry_leaves_no_subvolume_behind() {
    let registry = Registry::start().unwrap();
    let store = made_store();
    let empty = state(&store);
    let reference = registry.push(&image(), "image", "latest").unwrap();
    store.run(&["pull", &reference]).success();
    store.run(&["rm", &reference]).success();
    store.run(&["prune"]).success();
    assert_eq!(state(&store), empty);
}
