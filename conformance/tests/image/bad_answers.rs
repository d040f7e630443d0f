//! Registries that are down, refuse or lie: one clear line, an exit code that is
//! not zero, and nothing left in the store.
//!
//! Spec: distribution-spec spec.md#error-codes, image-spec descriptor.md.

use std::fs;
use std::net::TcpListener;

use conformance::hostile::{Answer, Delivery};
use conformance::images::Image;
use conformance::images::media_types::MANIFEST;
use conformance::{HostileRegistry, StoreRoot};

use super::{assert_unchanged, is_blob_request, small_image, state};

/// A store with one good image, so that it is made and in use already.
pub(super) fn store() -> StoreRoot {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    store
        .run(&[
            "pull",
            &server.serve(&small_image("good"), "good", "latest"),
        ])
        .success();
    store
}

/// Pulls what must fail, and asserts that one line says `words` and that
/// nothing is left behind.
#[track_caller]
pub(super) fn assert_refused(store: &StoreRoot, reference: &str, words: &[&str]) {
    let before = state(store);
    let output = store.run(&["pull", "--quiet", reference]);
    let line = output.one_line_failure();
    assert!(line.starts_with("gocker-image: pull \""), "{line}");
    for word in words {
        assert!(
            line.to_lowercase().contains(&word.to_lowercase()),
            "should say {word:?}: {line}"
        );
    }
    assert_unchanged(store, &before);
}

/// The same for an image that a server would serve honestly.
#[track_caller]
pub(super) fn assert_image_refused(store: &StoreRoot, image: &Image, words: &[&str]) {
    let server = HostileRegistry::honest().unwrap();
    assert_refused(store, &server.serve(image, "bad/image", "latest"), words);
}

/// The same for a server with this rule and a good image.
#[track_caller]
pub(super) fn assert_server_refused(
    words: &[&str],
    rule: impl Fn(&conformance::http::Request) -> Option<Answer> + Send + Sync + 'static,
) {
    let server = HostileRegistry::start(rule).unwrap();
    assert_refused(
        &store(),
        &server.serve(&small_image("image"), "bad/image", "latest"),
        words,
    );
}

#[test]
fn a_registry_that_is_down_is_named_with_the_cause() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_refused(
        &store(),
        &format!("127.0.0.1:{port}/image:latest"),
        &["connection refused"],
    );
}

#[test]
fn a_host_without_an_address_is_said_to_have_none() {
    assert_refused(
        &store(),
        "registry.invalid/image:latest",
        &["registry.invalid"],
    );
}

#[test]
fn an_unknown_manifest_is_told_in_the_registrys_words() {
    let server = HostileRegistry::honest().unwrap();
    let reference = format!("{}/no/such:thing", server.host());
    let words = [
        "/v2/no/such/manifests/thing",
        "MANIFEST_UNKNOWN",
        "manifest unknown",
        "404",
    ];
    assert_refused(&store(), &reference, &words);
}

#[test]
fn a_401_without_credentials_says_so() {
    assert_server_refused(&["401"], |_| {
        Some(
            Answer::error(401, "UNAUTHORIZED", "authentication required")
                .field("WWW-Authenticate", r#"Basic realm="closed""#),
        )
    });
}

#[test]
fn a_token_server_that_refuses_is_told() {
    let server = HostileRegistry::honest().unwrap();
    let reference = server.serve(&small_image("image"), "image", "latest");
    server.ask_for_token(Some("user:password"));
    assert_refused(&store(), &reference, &["token", "401"]);
}

#[test]
fn a_server_error_that_lasts_is_told() {
    assert_server_refused(&["500"], |_| {
        Some(Answer::status(500).body("<html>oops</html>"))
    });
}

#[test]
fn a_denied_repository_is_told() {
    assert_server_refused(&["DENIED", "403"], |_| {
        Some(Answer::error(403, "DENIED", "requested access is denied"))
    });
}

#[test]
fn a_page_of_a_captive_portal_is_no_manifest() {
    assert_server_refused(&["manifests/latest", "not JSON"], |_| {
        Some(Answer::document("text/html", "<html>log in first</html>"))
    });
}

#[test]
fn a_missing_blob_is_told() {
    assert_server_refused(&["BLOB_UNKNOWN", "404"], |request| {
        is_blob_request(request)
            .then(|| Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry"))
    });
}

#[test]
fn a_layer_with_another_digest_is_refused() {
    let image = small_image("image");
    let (digest, mut bytes) = (
        image.layers[0].digest.clone(),
        image.layers[0].bytes.to_vec(),
    );
    bytes[20] ^= 1;
    assert_server_refused(&["sha256:"], move |request| {
        let is_layer = request.target.ends_with(&digest);
        is_layer.then(|| Answer::document("application/octet-stream", bytes.clone()))
    });
}

#[test]
fn a_config_with_another_digest_is_refused() {
    let digest = small_image("image").config.digest;
    assert_server_refused(&["sha256:"], move |request| {
        request
            .target
            .ends_with(&digest)
            .then(|| Answer::document("application/octet-stream", "{}"))
    });
}

#[test]
fn the_digest_that_a_registry_claims_for_a_tag_is_not_believed() {
    let image = small_image("image");
    let claimed = small_image("other").manifest.digest;
    let manifest = image.manifest.clone();
    let server = HostileRegistry::start(move |request| {
        let is_asked = request.target.ends_with("/manifests/latest");
        is_asked.then(|| {
            Answer::document(MANIFEST, manifest.bytes.to_vec())
                .field("Docker-Content-Digest", &claimed)
        })
    })
    .unwrap();
    let reference = server.serve(&image, "image", "latest");
    let output = store().run(&["pull", "--quiet", &reference]);
    output.success();
    assert_eq!(output.stdout.trim(), image.manifest.digest);
}

#[test]
fn a_token_answer_that_is_too_long_is_refused() {
    assert_server_refused(&["token answer", "1048576"], |request| {
        if request.target.starts_with("/token") {
            return Some(Answer::document(
                "application/json",
                vec![b' '; (1 << 20) + 1],
            ));
        }
        let host = request.field("host").unwrap_or_default();
        let challenge = format!(r#"Bearer realm="http://{host}/token""#);
        Some(Answer::error(401, "UNAUTHORIZED", "who?").field("WWW-Authenticate", &challenge))
    });
}

#[test]
fn a_manifest_with_another_digest_than_the_one_asked_for_is_refused() {
    let server = HostileRegistry::start(|request| {
        let other = small_image("other").manifest;
        request.target.contains("/manifests/").then(|| {
            // It lies in the header too.
            let claimed = request.target.rsplit('/').next().unwrap_or_default();
            Answer::document(MANIFEST, other.bytes.to_vec()).field("Docker-Content-Digest", claimed)
        })
    })
    .unwrap();
    let digest = small_image("image").manifest.digest;
    let reference = format!("{}/image@{digest}", server.host());
    assert_refused(
        &store(),
        &reference,
        &[&digest, &small_image("other").manifest.digest],
    );
}

#[test]
fn a_blob_that_ends_early_or_late_is_refused() {
    let layer = small_image("image").layers[0].clone();
    for (change, words) in [(-9_i64, "bytes"), (9, "bytes")] {
        let (digest, mut bytes) = (layer.digest.clone(), layer.bytes.to_vec());
        bytes.resize(usize::try_from(bytes.len() as i64 + change).unwrap(), 0);
        assert_server_refused(&[words], move |request| {
            let is_layer = request.target.ends_with(&digest);
            is_layer.then(|| Answer::document("application/octet-stream", bytes.clone()))
        });
    }
}

#[test]
fn a_connection_that_always_breaks_is_told() {
    let layer = small_image("image").layers[0].clone();
    let digest = layer.digest.clone();
    assert_server_refused(&["clos"], move |request| {
        request.target.ends_with(&digest).then(|| {
            Answer::document("application/octet-stream", layer.bytes.to_vec())
                .delivery(Delivery::CutAfter(20))
        })
    });
}

#[test]
fn references_that_are_none_are_refused_before_any_request() {
    let server = HostileRegistry::honest().unwrap();
    let store = store();
    let long = "a".repeat(300);
    for name in [
        "UPPER/case",
        "a//b",
        "a:",
        "a@sha256:123",
        "a b",
        "-a",
        "a:t@md5:00",
        "",
        &long,
        "a/../b",
    ] {
        let reference = format!("{}/{name}", server.host());
        let before = state(&store);
        let output = store.run(&["pull", "--quiet", &reference]);
        assert!(
            output.one_line_failure().contains(&server.host()[..9]),
            "{output}"
        );
        assert_unchanged(&store, &before);
    }
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_failed_first_pull_says_one_line_about_the_store_and_one_about_the_failure() {
    let store = StoreRoot::new().unwrap();
    let output = store.run(&["pull", "127.0.0.1:1/image:latest"]);
    let last = output
        .failure()
        .trim_end()
        .lines()
        .rfind(|line| !line.starts_with("hint: "))
        .unwrap();
    assert!(
        last.starts_with("gocker-image: pull \"127.0.0.1:1/image:latest\": "),
        "{output}"
    );
    assert!(fs::exists(store.path()).unwrap());
}
