//! The requests of a pull: what is asked for, tokens, redirects, and failures
//! of a moment.
//!
//! Spec: distribution-spec spec.md#pull; RFC 9110.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use conformance::hostile::{Answer, Delivery};
use conformance::http::Request;
use conformance::images::{self, Image, ImageBuilder};
use conformance::{HostileRegistry, StoreRoot};

use super::{is_blob_request, small_image};

#[test]
fn a_token_is_fetched_where_the_registry_asks_for_one() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    server.ask_for_token(None);
    let reference = server.serve(&images::multi_layer().unwrap(), "library/multi", "latest");
    store.run(&["pull", &reference]).success();
    let requests = server.requests();
    let tokens: Vec<&Request> = requests
        .iter()
        .filter(|r| r.target.starts_with("/token"))
        .collect();
    assert_eq!(tokens.len(), 1, "one token serves the whole pull");
    for word in ["service=hostile", "scope=repository"] {
        assert!(tokens[0].target.contains(word), "{}", tokens[0].target);
    }
}

#[test]
fn a_token_that_expires_in_the_middle_is_renewed() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let server = HostileRegistry::start(|request| {
        let expired = is_blob_request(request) && ASKED.fetch_add(1, Ordering::SeqCst) == 1;
        let challenge = format!(
            r#"Bearer realm="http://{}/token",service="s",scope="repository:image:pull""#,
            request.field("host").unwrap_or_default()
        );
        expired.then(|| {
            Answer::error(401, "UNAUTHORIZED", "expired").field("WWW-Authenticate", &challenge)
        })
    })
    .unwrap();
    server.ask_for_token(None);
    let reference = server.serve(&images::multi_layer().unwrap(), "image", "latest");
    StoreRoot::new()
        .unwrap()
        .run(&["pull", &reference])
        .success();
    let tokens = server
        .requests()
        .iter()
        .filter(|r| r.target.starts_with("/token"))
        .count();
    assert_eq!(tokens, 2);
}

#[test]
fn failures_of_a_moment_are_tried_again() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let server = HostileRegistry::start(|request| {
        let turn = if is_blob_request(request) {
            ASKED.fetch_add(1, Ordering::SeqCst)
        } else {
            9
        };
        (turn < 2).then(|| Answer::error(503, "UNAVAILABLE", "try again"))
    })
    .unwrap();
    let reference = server.serve(&small_image("image"), "image", "latest");
    StoreRoot::new()
        .unwrap()
        .run(&["pull", &reference])
        .success();
}

#[test]
fn too_many_requests_are_waited_out_as_long_as_the_registry_asks() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let server = HostileRegistry::start(|request| {
        let first = is_blob_request(request) && ASKED.fetch_add(1, Ordering::SeqCst) == 0;
        first.then(|| Answer::error(429, "TOOMANYREQUESTS", "slow down").field("Retry-After", "2"))
    })
    .unwrap();
    let reference = server.serve(&small_image("image"), "image", "latest");
    let start = Instant::now();
    StoreRoot::new()
        .unwrap()
        .run(&["pull", &reference])
        .success();
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_connection_that_breaks_in_a_layer_is_taken_up_again() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let image = ImageBuilder::new()
        .layer(&images::filler_layer("f", 200, 3000))
        .build();
    let layer = image.layers[0].clone();
    let server = HostileRegistry::start(move |request| {
        let is_layer = request.target.ends_with(&layer.digest);
        let first = is_layer && ASKED.fetch_add(1, Ordering::SeqCst) == 0;
        first.then(|| {
            Answer::document("application/octet-stream", layer.bytes.to_vec())
                .delivery(Delivery::CutAfter(layer.bytes.len() / 2))
        })
    })
    .unwrap();
    let reference = server.serve(&image, "image", "latest");
    let store = StoreRoot::new().unwrap();
    store.run(&["pull", &reference]).success();
    assert!(
        store
            .bundle(&reference, "one")
            .join("rootfs/f/3/199")
            .exists()
    );
    let again = server
        .requests()
        .into_iter()
        .filter(|r| r.target.ends_with(&image.layers[0].digest))
        .nth(1);
    let range = again.as_ref().and_then(|request| request.field("range"));
    assert!(
        range.is_some(),
        "the layer should go on where it broke: {again:?}"
    );
}

#[test]
fn blobs_behind_a_redirect_are_fetched_without_credentials() {
    let image = small_image("image");
    let (server, elsewhere) = redirecting(&image);
    let store = StoreRoot::new().unwrap();
    store
        .run(&["pull", &server.serve(&image, "image", "latest")])
        .success();
    let requests = elsewhere.requests();
    assert!(!requests.is_empty(), "the blobs lie elsewhere");
    for request in requests {
        assert_eq!(request.field("authorization"), None, "{}", request.target);
    }
}

/// A server that asks for a token and sends all blobs to a second server.
fn redirecting(image: &Image) -> (HostileRegistry, HostileRegistry) {
    let elsewhere = HostileRegistry::honest().unwrap();
    elsewhere.serve(image, "image", "latest");
    let host = elsewhere.host().to_owned();
    let server = HostileRegistry::start(move |request| {
        let authorized = request.field("authorization").is_some();
        let target = format!("http://{host}{}", request.target);
        (is_blob_request(request) && authorized).then(|| Answer::redirect(&target))
    })
    .unwrap();
    server.ask_for_token(None);
    (server, elsewhere)
}

/// All that a pull asks for.
fn requests_of_a_pull() -> Vec<Request> {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let reference = server.serve(&small_image("image"), "image", "latest");
    store.run(&["pull", &reference]).success();
    server.requests()
}

#[test]
fn blobs_are_asked_for_without_http_compression() {
    let requests = requests_of_a_pull();
    let blobs = requests.iter().filter(|request| is_blob_request(request));
    assert_eq!(blobs.clone().count(), 2, "the config and the layer");
    for request in blobs {
        let encoding = request.field("accept-encoding").unwrap_or("identity");
        assert_eq!(encoding, "identity", "{}", request.target);
    }
}

#[test]
fn manifests_are_asked_for_in_all_four_media_types() {
    use conformance::images::media_types::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST};
    let requests = requests_of_a_pull();
    let manifest = requests
        .iter()
        .find(|request| request.target.contains("/manifests/"))
        .unwrap();
    let accepted: Vec<&str> = manifest
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("accept"))
        .flat_map(|(_, value)| value.split(',').map(str::trim))
        .collect();
    for media_type in [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST] {
        assert!(
            accepted.iter().any(|accept| accept.starts_with(media_type)),
            "{media_type}: {accepted:?}"
        );
    }
}
