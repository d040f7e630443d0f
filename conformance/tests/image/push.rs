//! `push`: what was pulled comes to a registry as it was, byte by byte, and other tools read it.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use conformance::hostile::Answer;
use conformance::image_tools::Podman;
use conformance::images::{self, Image};
use conformance::{HostileRegistry, Registry, StoreRoot, umoci};

use super::{assert_same_trees, assert_unchanged, corpus, is_blob_request, small_image, state};

/// The digest and the layers that skopeo finds.
#[track_caller]
fn assert_same_to_skopeo(reference: &str, image: &Image) {
    let raw = umoci::raw_manifest(reference).unwrap();
    assert!(raw == *image.manifest.bytes, "the manifest of {reference}");
}

/// A store that has pulled `image` from a registry, with or without its blobs.
#[track_caller]
fn pulled(from: &Registry, image: &Image, flags: &[&str]) -> (StoreRoot, String) {
    let store = StoreRoot::new().unwrap();
    let reference = from.push(image, "team/image", "1").unwrap();
    store
        .run(&[&["pull"], flags, &[&reference]].concat())
        .success();
    (store, reference)
}

#[test]
fn a_pushed_image_is_the_one_that_was_pulled() {
    let (from, to) = (Registry::start().unwrap(), Registry::start().unwrap());
    for (name, image) in corpus() {
        let (store, reference) = pulled(&from, &image, &["--keep-blobs"]);
        let destination = to.reference(&format!("other/{name}:2"));
        let file = store.beside("digest");
        let answer = store
            .run(&[
                "push",
                "--format",
                "json",
                "--digestfile",
                file.to_str().unwrap(),
                &reference,
                &destination,
            ])
            .json();
        assert_eq!(answer["manifest"], image.manifest.digest.as_str());
        assert_eq!(answer["media_type"], image.manifest.media_type.as_str());
        assert_eq!(
            std::fs::read_to_string(file).unwrap().trim(),
            image.manifest.digest
        );
        assert_same_to_skopeo(&destination, &image);
        // Debian's umoci does not read zstd
        if name != "zstd" {
            let theirs = umoci::unpack(&destination, &store.beside("theirs")).unwrap();
            let before = umoci::unpack(&reference, &store.beside("before")).unwrap();
            assert_same_trees(&theirs, &before, name);
        }
    }
}

#[test]
fn podman_pulls_what_is_pushed() {
    let (from, to) = (Registry::start().unwrap(), Registry::start().unwrap());
    let podman = Podman::new().unwrap();
    for (name, image) in corpus() {
        let (store, reference) = pulled(&from, &image, &["--keep-blobs"]);
        let destination = to.reference(&format!("other/{name}:2"));
        store.run(&["push", &reference, &destination]).success();
        let args = ["pull", "--quiet", "--tls-verify=false", &destination];
        let id = podman.run(&args).unwrap();
        assert_eq!(format!("sha256:{id}"), image.config.digest, "{name}");
    }
}

#[test]
fn layers_that_are_not_kept_are_fetched_again_and_said() {
    let (from, to) = (Registry::start().unwrap(), Registry::start().unwrap());
    let image = images::multi_layer().unwrap();
    let (store, reference) = pulled(&from, &image, &[]);
    // where it came from is known by its other names too
    store.run(&["tag", &reference, "mine/image:3"]).success();
    store.run(&["rm", &reference]).success();
    let destination = to.reference("copy:1");
    let output = store.run(&["push", "mine/image:3", &destination]);
    output.success();
    for layer in &image.layers {
        let line = format!(
            "layer {} is not kept: fetched again from {}/team/image",
            layer.digest,
            from.host()
        );
        assert!(output.stderr.contains(&line), "{output}");
    }
    assert_same_to_skopeo(&destination, &image);
    let again = store
        .run(&["push", "--format", "json", "mine/image:3", &destination])
        .json();
    assert_eq!(again["present_layers"], 4, "nothing is uploaded twice");
    assert_eq!(again["uploaded_layers"], 0);
}

#[test]
fn another_repository_of_the_same_registry_takes_the_layers_over() {
    let registry = Registry::start().unwrap();
    let image = images::multi_layer().unwrap();
    let (store, reference) = pulled(&registry, &image, &[]);
    let before = registry.fetched_blobs().unwrap().len();
    let destination = registry.reference("other/place:1");
    let answer = store
        .run(&["push", "--format", "json", &reference, &destination])
        .json();
    assert_eq!(answer["mounted_layers"], 4);
    assert_eq!(
        registry.fetched_blobs().unwrap().len(),
        before,
        "none is fetched"
    );
    assert_same_to_skopeo(&destination, &image);
}

#[test]
fn a_committed_image_is_pushed_with_the_layers_of_its_base() {
    let (from, to) = (Registry::start().unwrap(), Registry::start().unwrap());
    let (store, reference) = pulled(&from, &small_image("base"), &[]);
    let rootfs = store.bundle(&reference, "b").join("rootfs");
    std::fs::write(rootfs.join("added"), "by hand").unwrap();
    store.run(&["commit", "b", "localhost/made"]).success();
    let destination = to.reference("made:1");
    let answer = store
        .run(&["push", "--format", "json", "localhost/made", &destination])
        .json();
    let raw = umoci::raw_manifest(&destination).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&raw).unwrap();
    assert_eq!(answer["manifest"], images::digest_of(&raw).as_str());
    assert_eq!(answer["uploaded_layers"], 2);
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
}

#[test]
fn a_layer_that_is_nowhere_is_named_with_what_to_do() {
    let (from, to) = (Registry::start().unwrap(), Registry::start().unwrap());
    let image = small_image("gone");
    let (store, reference) = pulled(&from, &image, &[]);
    drop(from);
    let destination = to.reference("copy:1");
    let output = store.run(&["push", &reference, &destination]);
    let line = output.one_line_failure();
    assert!(line.contains(&image.layers[0].digest), "{line}");
    assert!(line.contains("--keep-blobs"), "{line}");
    assert!(
        umoci::raw_manifest(&destination).is_err(),
        "no image came about"
    );
}

#[test]
fn a_layer_that_its_registry_has_changed_is_not_pushed() {
    let to = Registry::start().unwrap();
    let store = StoreRoot::new().unwrap();
    let image = small_image("changed");
    let digest = image.layers[0].digest.clone();
    let size = image.layers[0].bytes.len();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server = HostileRegistry::start(move |request| {
        let is_layer = is_blob_request(request) && request.target.ends_with(&digest);
        let is_later = is_layer && asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
        is_later.then(|| Answer::document("application/octet-stream", vec![b'x'; size]))
    })
    .unwrap();
    let reference = server.serve(&image, "image", "latest");
    store.run(&["pull", &reference]).success();
    let destination = to.reference("copy:1");
    let output = store.run(&["push", "--quiet", &reference, &destination]);
    let text = output.failure();
    assert!(text.contains("its content has the digest"), "{text}");
    assert!(
        umoci::raw_manifest(&destination).is_err(),
        "no image came about"
    );
}

#[test]
fn a_push_by_another_digest_than_the_images_is_refused() {
    let registry = Registry::start().unwrap();
    let image = small_image("digest");
    let (store, reference) = pulled(&registry, &image, &[]);
    let other = format!("{}@sha256:{}", registry.reference("x"), "0".repeat(64));
    let output = store.run(&["push", &reference, &other]);
    assert!(
        output.one_line_failure().contains(&image.manifest.digest),
        "{output}"
    );
    let own = format!("{}@{}", registry.reference("x"), image.manifest.digest);
    store.run(&["push", &reference, &own]).success();
    assert_same_to_skopeo(&own, &image);
}

/// How many uploads have come to where a test waits for them.
#[derive(Default)]
struct Gate {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn come(&self) {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    /// Waits for `count` of them. Refuses where they do not come.
    fn wait(&self, count: usize) -> Option<Answer> {
        let guard = self.count.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(guard, Duration::from_secs(30), |seen| *seen < count);
        let is_alone = waited.unwrap().1.timed_out();
        is_alone.then(|| Answer::error(400, "ALONE", "no other upload came meanwhile"))
    }
}

/// A registry without blobs that takes uploads, but for the digests that `rule` answers otherwise.
fn taking(rule: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> HostileRegistry {
    let server = HostileRegistry::start(move |request| match request.method.as_str() {
        "POST" => Some(Answer::status(202).field("Location", "/v2/copy/blobs/uploads/1")),
        "PUT" => {
            let digest = request.target.split_once("?digest=sha256%3A");
            let answer = digest.and_then(|(_, hex)| rule(&format!("sha256:{hex}")));
            Some(answer.unwrap_or_else(|| Answer::status(201)))
        }
        _ => None,
    });
    server.unwrap()
}

#[test]
fn a_few_layers_are_sent_at_once() {
    let from = Registry::start().unwrap();
    let image = images::multi_layer().unwrap();
    let (store, reference) = pulled(&from, &image, &["--keep-blobs"]);
    let begun = Gate::default();
    let to = taking(move |_| {
        begun.come();
        begun.wait(2)
    });
    let destination = format!("{}/copy:1", to.host());
    let answer = store
        .run(&["push", "--format", "json", &reference, &destination])
        .json();
    assert_eq!(answer["uploaded_layers"], 4);
    let last = to.requests().pop().unwrap();
    assert_eq!(last.target, "/v2/copy/manifests/1", "the manifest is last");
}

#[test]
fn of_layers_that_are_sent_at_once_the_one_that_fails_is_told_alone() {
    let from = Registry::start().unwrap();
    let image = images::multi_layer().unwrap();
    let (store, reference) = pulled(&from, &image, &["--keep-blobs"]);
    let before = state(&store);
    let (refused, denied) = (image.layers[1].digest.clone(), Gate::default());
    let to = taking(move |digest| {
        if digest == refused {
            denied.come();
            return Some(Answer::error(403, "DENIED", "not this one"));
        }
        denied.wait(1)
    });
    let destination = format!("{}/copy:1", to.host());
    let output = store.run(&["push", "--quiet", &reference, &destination]);
    let line = output.one_line_failure();
    assert!(line.contains(&image.layers[1].digest), "{line}");
    assert!(line.contains("DENIED: not this one"), "{line}");
    let requests = to.requests();
    let mut documents = requests.iter().filter(|it| it.target.contains("manifests"));
    assert!(documents.next().is_none(), "no image came about");
    assert_unchanged(&store, &before);
}
