//! `pull` from honest registries: what is fetched, how often, and what is said.
//!
//! Spec: distribution-spec spec.md#pull, image-spec image-index.md.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use conformance::hostile::{Answer, Delivery};
use conformance::http::Request;
use conformance::images::{self, Documents, Image, ImageBuilder, Index};
use conformance::{HostileRegistry, Registry, StoreRoot};

use super::{is_blob_request, small_image};

fn setup() -> (Registry, StoreRoot) {
    (Registry::start().unwrap(), StoreRoot::new().unwrap())
}

#[test]
fn oci_and_docker_manifests_are_pulled() {
    let (registry, store) = setup();
    let layer = images::filler_layer("f", 3, 300);
    for (name, builder) in [
        ("oci", ImageBuilder::new()),
        ("docker", ImageBuilder::new().docker()),
    ] {
        let reference = registry
            .push(&builder.layer(&layer).build(), name, "latest")
            .unwrap();
        store.run(&["pull", &reference]).success();
        assert!(
            store.bundle(&reference, name).join("rootfs/f/0/2").exists(),
            "{name}"
        );
    }
}

#[test]
fn an_index_is_pulled_for_the_platform_of_this_machine() {
    let (registry, store) = setup();
    for (name, documents) in [("oci", Documents::Oci), ("docker", Documents::Docker)] {
        let index = images::multi_architecture(documents).unwrap();
        let reference = registry.push_index(&index, name, "latest").unwrap();
        store.run(&["pull", &reference]).success();
        let arch = store.bundle(&reference, name).join("rootfs/etc/arch");
        assert_eq!(fs::read_to_string(arch).unwrap(), "amd64", "{name}");
    }
    // Only the image of this platform was fetched: one config and two layers,
    // of which the second index needs only the config, if at all.
    assert!(registry.fetched_blobs().unwrap().len() <= 4);
}

#[test]
fn attestations_in_an_index_are_passed_over() {
    let (registry, store) = setup();
    let attestation = small_image("attestation").with_manifest(|manifest| {
        manifest["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into();
    });
    let index = Index::of(Documents::Oci, vec![attestation, small_image("image")]);
    let index = index.with_document(|document| {
        document["manifests"][0]["platform"] =
            serde_json::json!({"os": "unknown", "architecture": "unknown"});
    });
    let reference = registry.push_index(&index, "attested", "latest").unwrap();
    store.run(&["pull", &reference]).success();
    let content = fs::read_to_string(store.bundle(&reference, "one").join("rootfs/name")).unwrap();
    assert_eq!(content, "image");
}

#[test]
fn a_platform_that_an_index_lacks_is_refused_with_those_that_it_has() {
    let (registry, store) = setup();
    let index = images::multi_architecture(Documents::Oci).unwrap();
    let reference = registry.push_index(&index, "multi", "latest").unwrap();
    let output = store.run(&["pull", "--quiet", "--platform", "linux/riscv64", &reference]);
    let line = output.failure();
    for word in ["linux/riscv64", "linux/amd64", "linux/arm64"] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[test]
fn a_digest_names_the_same_image_as_its_tag() {
    let (registry, store) = setup();
    let image = small_image("image");
    let by_tag = registry.push(&image, "image", "v1").unwrap();
    let by_digest = format!("{}@{}", registry.reference("image"), image.manifest.digest);
    store.run(&["pull", &by_digest]).success();
    let first = registry.fetched_blobs().unwrap().len();
    store.run(&["pull", &by_tag]).success();
    assert_eq!(
        registry.fetched_blobs().unwrap().len(),
        first,
        "the tag fetches nothing more"
    );
    assert!(
        store
            .bundle(&by_digest, "by-digest")
            .join("rootfs/name")
            .exists()
    );
    assert!(store.bundle(&by_tag, "by-tag").join("rootfs/name").exists());
}

#[test]
fn with_a_tag_and_a_digest_the_digest_decides() {
    let (registry, store) = setup();
    let (wanted, other) = (small_image("wanted"), small_image("other"));
    registry.push(&wanted, "image", "wanted").unwrap();
    registry.push(&other, "image", "v1").unwrap();
    let both = format!(
        "{}:v1@{}",
        registry.reference("image"),
        wanted.manifest.digest
    );
    store.run(&["pull", &both]).success();
    let content = fs::read_to_string(store.bundle(&both, "one").join("rootfs/name")).unwrap();
    assert_eq!(content, "wanted");
}

#[test]
fn a_second_pull_fetches_no_blob() {
    let (registry, store) = setup();
    let reference = registry
        .push(&images::multi_layer().unwrap(), "multi", "latest")
        .unwrap();
    store.run(&["pull", &reference]).success();
    let first = registry.fetched_blobs().unwrap();
    assert_eq!(first.len(), 5, "a config and four layers: {first:?}");
    store.run(&["pull", &reference]).success();
    assert_eq!(registry.fetched_blobs().unwrap(), first);
}

#[test]
fn layers_that_two_images_share_are_fetched_once() {
    let (registry, store) = setup();
    let (base, more) = (
        images::filler_layer("base", 20, 500),
        images::filler_layer("more", 5, 50),
    );
    let one = ImageBuilder::new().layer(&base).build();
    let two = ImageBuilder::new().layer(&base).layer(&more).build();
    for (image, name) in [(&one, "one"), (&two, "two")] {
        let reference = registry.push(image, name, "latest").unwrap();
        store.run(&["pull", &reference]).success();
    }
    let fetched = registry.fetched_blobs().unwrap();
    let times = fetched
        .iter()
        .filter(|digest| **digest == one.layers[0].digest)
        .count();
    assert_eq!(times, 1, "{fetched:?}");
}

#[test]
fn a_tag_that_moved_is_pulled_anew() {
    let (registry, store) = setup();
    for name in ["first", "second"] {
        let reference = registry
            .push(&small_image(name), "image", "latest")
            .unwrap();
        store.run(&["pull", &reference]).success();
        let content =
            fs::read_to_string(store.bundle(&reference, name).join("rootfs/name")).unwrap();
        assert_eq!(content, name);
    }
}

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

#[test]
fn blobs_are_asked_for_without_http_compression() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    store
        .run(&[
            "pull",
            &server.serve(&small_image("image"), "image", "latest"),
        ])
        .success();
    for request in server
        .requests()
        .iter()
        .filter(|request| is_blob_request(request))
    {
        let encoding = request.field("accept-encoding").unwrap_or("identity");
        assert_eq!(encoding, "identity", "{}", request.target);
    }
}

#[test]
fn manifests_are_asked_for_in_all_four_media_types() {
    use conformance::images::media_types::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST};
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    store
        .run(&[
            "pull",
            &server.serve(&small_image("image"), "image", "latest"),
        ])
        .success();
    let requests = server.requests();
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

#[test]
fn quiet_says_at_most_the_digest() {
    let (registry, store) = setup();
    let image = small_image("image");
    let reference = registry.push(&image, "image", "latest").unwrap();
    store.run(&["ls"]);
    let output = store.run(&["pull", "--quiet", &reference]);
    output.success();
    assert_eq!(output.stderr, "");
    let said = output.stdout.trim();
    assert!(
        said.is_empty() || said.ends_with(&image.manifest.digest),
        "{said}"
    );
}

#[test]
fn json_is_one_document_a_line_with_the_digest_in_it() {
    let (registry, store) = setup();
    let image = images::multi_layer().unwrap();
    let reference = registry.push(&image, "multi", "latest").unwrap();
    let output = store.run(&["pull", "--format", "json", &reference]);
    let lines: Vec<serde_json::Value> = output
        .success()
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let digest = &image.manifest.digest;
    assert!(
        lines
            .iter()
            .any(|line| line.to_string().contains(digest.as_str())),
        "{lines:?}"
    );
}

#[test]
fn without_a_terminal_there_are_plain_lines() {
    let (registry, store) = setup();
    let reference = registry
        .push(&images::multi_layer().unwrap(), "multi", "latest")
        .unwrap();
    let output = store.run(&["pull", &reference]);
    output.success();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(!said.contains(['\r', '\u{1b}']), "{said:?}");
    assert!(said.lines().count() >= 4, "a line for each layer: {said}");
}

#[test]
fn a_loop_backed_store_is_announced_in_one_line_once() {
    let (registry, store) = setup();
    let reference = registry
        .push(&small_image("image"), "image", "latest")
        .unwrap();
    let root = store.path().to_string_lossy().into_owned();
    let announced = |output: &conformance::Output| {
        output
            .stderr
            .lines()
            .filter(|line| line.contains("btrfs") && line.contains(&root))
            .count()
    };
    let first = store.run(&["pull", &reference]);
    first.success();
    assert_eq!(announced(&first), 1, "{first}");
    let second = store.run(&["pull", &reference]);
    second.success();
    assert_eq!(announced(&second), 0, "{second}");
}

#[test]
fn plain_http_is_for_loopback_and_for_registries_named_insecure() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let hosts = store.beside("hosts");
    fs::write(&hosts, "127.0.0.1 localhost registry.example\n").unwrap();
    // In this test's own mount namespace.
    nix::mount::mount(
        Some(&hosts),
        "/etc/hosts",
        None::<&str>,
        nix::mount::MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let port = server.host().rsplit(':').next().unwrap().to_owned();
    server.serve(&small_image("image"), "image", "latest");
    let host = format!("registry.example:{port}");
    let reference = format!("{host}/image:latest");

    let output = store.run(&["pull", "--quiet", &reference]);
    assert!(
        output.failure().contains("--insecure-registry"),
        "the hint says how: {output}"
    );
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.target.is_empty()),
        "nothing in plain text"
    );

    store
        .run(&["--insecure-registry", &host, "pull", &reference])
        .success();
    store
        .run(&["pull", &format!("localhost:{port}/image:latest")])
        .success();
}

#[test]
fn many_images_are_pulled_at_once_into_one_store() {
    let (registry, store) = setup();
    let base = images::busybox_layer().unwrap();
    let references: Vec<String> = (0..4)
        .map(|number| {
            let own = images::filler_layer(&format!("own{number}"), 10, 1000);
            let image = ImageBuilder::new().layer(&base).layer(&own).build();
            registry
                .push(&image, &format!("image{number}"), "latest")
                .unwrap()
        })
        .collect();
    store.run(&["ls"]).success();
    let children: Vec<_> = references
        .iter()
        .map(|name| store.command(&["pull", "--quiet", name]).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for (number, reference) in references.iter().enumerate() {
        let rootfs = store
            .bundle(reference, &format!("b{number}"))
            .join("rootfs");
        assert!(rootfs.join(format!("own{number}/0/9")).exists());
        assert!(rootfs.join("bin/busybox").exists());
    }
}
