//! Downloads that break, stall or are interrupted, and what the next pull makes of them.
//!
//! Spec: RFC 9110 section 14 (ranges)

use std::fs;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conformance::command::{end_within, process_id};
use conformance::hostile::{Answer, Delivery};
use conformance::http::Request;
use conformance::images::{Blob, Entry, Image, ImageBuilder, Layer};
use conformance::{HostileRegistry, StoreRoot, wait_until};
use nix::sys::signal::{Signal, kill};

use super::{made_store, state};

/// An image whose layers have these sizes in MiB, as they are sent.
fn image(sizes: &[usize]) -> Image {
    let layers = sizes.iter().enumerate().map(|(number, size)| {
        // nothing that can be compressed, and different in each layer
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ number as u64;
        let content: Vec<u8> = (0..size << 20).map(|_| next(&mut seed)).collect();
        Layer::of(vec![Entry::file(format!("file{number}"), content)]).finish()
    });
    layers
        .fold(ImageBuilder::new(), |builder, layer| builder.layer(&layer))
        .build()
}

/// A byte of a sequence that is the same in each run.
pub(super) fn next(seed: &mut u64) -> u8 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 32).to_le_bytes()[0]
}

/// The whole of a blob, or the range that is asked for.
fn content(blob: &Blob, request: &Request) -> Answer {
    Answer::document("application/octet-stream", blob.bytes.to_vec()).range(request.field("range"))
}

/// A server whose last layer stops coming after half of it, the first `times` times.
fn stalling(image: &Image, times: u32) -> HostileRegistry {
    let (blob, asked) = (image.layers.last().unwrap().clone(), Mutex::new(0));
    HostileRegistry::start(move |request| {
        let is_layer = request.target.ends_with(&blob.digest);
        let mut asked = asked.lock().unwrap();
        *asked += u32::from(is_layer);
        (is_layer && *asked <= times).then(|| {
            let half = Delivery::StallAfter(blob.bytes.len() / 2);
            content(&blob, request).delivery(half)
        })
    })
    .unwrap()
}

/// The requests for a blob, with where each began.
fn ranges(server: &HostileRegistry, blob: &Blob) -> Vec<usize> {
    let requests = server.requests();
    let asked = requests
        .iter()
        .filter(|request| request.target.ends_with(&blob.digest));
    let start = |request: &Request| {
        let range = request.field("range")?.strip_prefix("bytes=")?;
        range.trim_end_matches('-').parse().ok()
    };
    asked.map(|request| start(request).unwrap_or(0)).collect()
}

fn partials(store: &StoreRoot) -> Vec<String> {
    let mut found = store.inventory().unwrap();
    found.retain(|path| path.starts_with("partial/"));
    found
}

/// Asserts that a container's root file system can be made of the image.
#[track_caller]
fn assert_bundles(store: &StoreRoot, reference: &str) {
    let rootfs = store.bundle(reference, "one").join("rootfs");
    assert!(rootfs.join("file0").exists(), "{rootfs:?}");
}

/// What the store calls what it has of a blob.
fn partial_name(blob: &Blob) -> String {
    blob.digest.replacen(':', "-", 1)
}

/// The layers that are whole.
fn layers(store: &StoreRoot) -> usize {
    let found = store.inventory().unwrap();
    let is_record = |path: &&String| path.starts_with("layers/") && path.ends_with(".json");
    found.iter().filter(is_record).count()
}

/// Starts a pull, and ends it by `signal` when it has every layer but the last, and half of that.
#[track_caller]
fn interrupted(store: &StoreRoot, reference: &str, image: &Image, signal: Signal) {
    let (last, before) = image.layers.split_last().unwrap();
    let mut child = store
        .command(&["pull", "--quiet", reference])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = store.directory().join("partial").join(partial_name(last));
    let is_kept = || {
        // the last bytes may wait in a buffer on their way
        let kept = fs::metadata(&file).map_or(0, |metadata| metadata.len() + (1 << 20));
        kept > last.bytes.len() as u64 / 2 && layers(store) == before.len()
    };
    assert!(
        wait_until(Duration::from_secs(30), is_kept),
        "nothing is kept"
    );
    kill(process_id(child.id()), signal).unwrap();
    let status = end_within(&mut child, Duration::from_secs(10));
    assert!(
        status.is_some_and(|status| status.code().is_none()),
        "ends by the signal: {status:?}"
    );
}

#[test]
fn a_killed_pull_is_gone_on_with_by_the_next() {
    let image = image(&[6]);
    let (server, store) = (stalling(&image, 1), made_store());
    let reference = server.serve(&image, "image", "latest");
    let half = image.layers[0].bytes.len() / 2;
    interrupted(&store, &reference, &image, Signal::SIGKILL);
    store.run(&["pull", "--quiet", &reference]).success();
    let starts = ranges(&server, &image.layers[0]);
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!(starts[1] + (1 << 20) > half, "{starts:?}");
    assert_eq!(partials(&store), Vec::<String>::new(), "nothing is left");
    assert_bundles(&store, &reference);
}

#[test]
fn an_interrupted_pull_keeps_whole_layers_and_leaves_no_draft() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let image = image(&[2, 6]);
        let (server, store) = (stalling(&image, 1), made_store());
        let reference = server.serve(&image, "image", "latest");
        interrupted(&store, &reference, &image, signal);
        let subvolumes = store.subvolumes().unwrap();
        assert!(
            !subvolumes.iter().any(|path| path.contains(".new-")),
            "{subvolumes:?}"
        );
        store.run(&["pull", "--quiet", &reference]).success();
        assert_eq!(
            ranges(&server, &image.layers[0]),
            [0],
            "the first layer was kept"
        );
        assert_eq!(partials(&store), Vec::<String>::new());
    }
}

#[test]
fn what_was_kept_is_verified_from_its_first_byte() {
    let image = image(&[6]);
    let (server, store) = (stalling(&image, 1), made_store());
    let reference = server.serve(&image, "image", "latest");
    interrupted(&store, &reference, &image, Signal::SIGKILL);
    let file = store.directory().join(&partials(&store)[0]);
    let mut bytes = fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    fs::write(&file, bytes).unwrap();
    store.run(&["pull", "--quiet", &reference]).success();
    let starts = ranges(&server, &image.layers[0]);
    assert_eq!(starts.last(), Some(&0), "fetched anew: {starts:?}");
    assert_eq!(partials(&store), Vec::<String>::new());
}

#[test]
fn a_registry_that_refuses_ranges_is_asked_for_all() {
    let image = image(&[6]);
    let (blob, asked) = (image.layers[0].clone(), Mutex::new(0));
    let server = HostileRegistry::start(move |request| {
        let is_layer = request.target.ends_with(&blob.digest);
        let mut asked = asked.lock().unwrap();
        *asked += u32::from(is_layer);
        if is_layer && *asked == 1 {
            let half = Delivery::StallAfter(blob.bytes.len() / 2);
            return Some(content(&blob, request).delivery(half));
        }
        (is_layer && request.field("range").is_some()).then(|| Answer::status(416))
    })
    .unwrap();
    let store = made_store();
    let reference = server.serve(&image, "image", "latest");
    interrupted(&store, &reference, &image, Signal::SIGKILL);
    store.run(&["pull", "--quiet", &reference]).success();
    assert_eq!(ranges(&server, &image.layers[0]).len(), 3);
}

#[test]
fn more_than_the_blob_is_no_help() {
    let image = image(&[2]);
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&image, "image", "latest");
    let file = store
        .directory()
        .join("partial")
        .join(partial_name(&image.layers[0]));
    fs::write(&file, vec![0; image.layers[0].bytes.len() + 1]).unwrap();
    store.run(&["pull", "--quiet", &reference]).success();
    assert_eq!(partials(&store), Vec::<String>::new());
}

#[test]
fn prune_takes_what_no_pull_has_gone_on_with() {
    let image = image(&[6]);
    let (server, store) = (stalling(&image, 1), made_store());
    let before = state(&store);
    let reference = server.serve(&image, "image", "latest");
    interrupted(&store, &reference, &image, Signal::SIGKILL);
    store.run(&["prune"]).success();
    assert_eq!(state(&store), before);
}

#[test]
fn two_hundred_cut_connections_end_in_a_good_pull() {
    let image = image(&[8]);
    let layer = image.layers[0].clone();
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&image, "image", "latest");
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (log, mut seed) = (Arc::clone(&sent), 0x1234_5678_9abc_def1_u64);
    let size = layer.bytes.len();
    server.deliver(move |request, answer| {
        if !request.target.ends_with(&layer.digest) {
            return Delivery::Whole;
        }
        let mut log = log.lock().unwrap();
        if log.len() == 200 {
            log.push(answer.body.len());
            return Delivery::Whole;
        }
        // on average 32 KiB, so that something is left after two hundred
        log.push(usize::from(next(&mut seed)) * 256);
        Delivery::CutAfter(log[log.len() - 1])
    });
    store.run(&["pull", "--quiet", &reference]).success();
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 201);
    assert_eq!(sent.iter().sum::<usize>(), size, "each byte came once");
    assert_bundles(&store, &reference);
}

#[test]
fn a_connection_that_stalls_is_given_up_and_taken_up_again() {
    let image = image(&[2]);
    let (server, store) = (stalling(&image, 1), made_store());
    let reference = server.serve(&image, "image", "latest");
    let start = Instant::now();
    let args = ["--stall-timeout", "1", "pull", "--quiet", &reference];
    store.run(&args).success();
    assert!(start.elapsed() >= Duration::from_secs(1));
    let starts = ranges(&server, &image.layers[0]);
    assert!(starts.len() == 2 && starts[1] > 0, "{starts:?}");
}
