//! Documents that are none, contradict themselves or ask for too much: one clear
//! line, an exit code that is not zero, and nothing left in the store.
//!
//! Spec: image-spec descriptor.md,
//! manifest.md#image-manifest-property-descriptions.

use conformance::HostileRegistry;
use conformance::hostile::Answer;
use conformance::images::media_types::{DOCKER_MANIFEST, LAYER, MANIFEST};
use conformance::images::{Blob, Documents, Image, ImageBuilder, Index, digest_of};
use serde_json::{Value, json};

use super::bad_answers::{assert_image_refused, assert_refused, assert_server_refused, store};
use super::small_image;

#[test]
fn a_manifest_that_is_no_json_is_refused() {
    let store = store();
    for bytes in [
        &b"not json"[..],
        b"",
        b"[]",
        b"\xff\xfe",
        b"{\"schemaVersion\":2",
    ] {
        assert_image_refused(
            &store,
            &small_image("x").with_manifest_bytes(bytes.to_vec()),
            &["manifests/latest"],
        );
    }
}

#[test]
fn keys_that_come_twice_are_refused() {
    let store = store();
    let image = small_image("image");
    let text = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let twice = text.replacen("\"layers\":", "\"layers\":[],\"layers\":", 1);
    assert_image_refused(
        &store,
        &image.with_manifest_bytes(twice.into_bytes()),
        &["twice", "layers"],
    );

    let image = small_image("image");
    let text = String::from_utf8(image.config.bytes.to_vec()).unwrap();
    let twice = text.replacen("\"rootfs\":", "\"rootfs\":{},\"rootfs\":", 1);
    assert_image_refused(
        &store,
        &with_config(image, twice.into_bytes()),
        &["twice", "rootfs"],
    );
}

/// The same image with other bytes for its config.
fn with_config(image: Image, bytes: Vec<u8>) -> Image {
    let config = Blob::new(&image.config.media_type, bytes);
    let descriptor = config.descriptor();
    let mut image = image.with_manifest(|manifest| manifest["config"] = descriptor);
    image.config = config;
    image
}

/// The same image with a config changed by `change`.
fn with_changed_config(image: Image, change: impl FnOnce(&mut Value)) -> Image {
    let mut document = serde_json::from_slice(&image.config.bytes).unwrap();
    change(&mut document);
    with_config(image, document.to_string().into_bytes())
}

#[test]
fn a_document_that_is_index_and_manifest_at_once_is_refused() {
    let image = small_image("image").with_manifest(|manifest| manifest["manifests"] = json!([]));
    assert_image_refused(&store(), &image, &["manifests", "layers"]);
}

#[test]
fn a_media_type_that_contradicts_the_content_type_is_refused() {
    let image = small_image("image")
        .with_manifest(|manifest| manifest["mediaType"] = DOCKER_MANIFEST.into());
    assert_image_refused(&store(), &image, &[MANIFEST, DOCKER_MANIFEST]);
}

#[test]
fn parameters_of_the_content_type_are_ignored() {
    let manifest = small_image("image").manifest;
    let server = HostileRegistry::start(move |request| {
        let content_type = format!("{MANIFEST}; charset=utf-8");
        let is_manifest = request.target.contains("/manifests/");
        is_manifest.then(|| Answer::document(&content_type, manifest.bytes.to_vec()))
    })
    .unwrap();
    store()
        .run(&[
            "pull",
            &server.serve(&small_image("image"), "image", "latest"),
        ])
        .success();
}

#[test]
fn schema_1_is_refused_by_name() {
    let store = store();
    let document = json!({
        "schemaVersion": 1, "name": "bad/image", "tag": "latest", "architecture": "amd64",
        "fsLayers": [], "history": [], "signatures": [],
    });
    for media_type in [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/json",
    ] {
        let mut image = small_image("image").with_manifest_bytes(document.to_string().into_bytes());
        image.manifest.media_type = media_type.into();
        assert_image_refused(&store, &image, &["schema 1"]);
    }
}

#[test]
fn foreign_and_unknown_layers_are_refused() {
    let store = store();
    let foreign = small_image("image").with_manifest(|manifest| {
        manifest["layers"][0]["mediaType"] =
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        manifest["layers"][0]["urls"] = json!(["http://127.0.0.1:1/elsewhere"]);
    });
    assert_image_refused(&store, &foreign, &["layers[0]", "127.0.0.1:1/elsewhere"]);
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "text/plain",
        "",
    ] {
        let image = small_image("image").with_manifest(|manifest| {
            manifest["layers"][0]["mediaType"] = media_type.into();
        });
        assert_image_refused(&store, &image, &["layers[0]"]);
    }
}

#[test]
fn an_artifact_is_no_image() {
    let image = small_image("image").with_manifest(|manifest| {
        manifest["config"]["mediaType"] = "application/vnd.example.chart.config.v1+json".into();
    });
    assert_image_refused(&store(), &image, &["artifact", "vnd.example.chart"]);
}

#[test]
fn digests_and_sizes_in_descriptors_are_checked_before_use() {
    let store = store();
    let hex = "a".repeat(64);
    let digests = [
        "sha256:../../../../etc/passwd".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}", &hex[1..]),
        format!("md5:{}", &hex[..32]),
        hex.clone(),
        String::new(),
    ];
    for digest in digests {
        let image = small_image("image")
            .with_manifest(|manifest| manifest["layers"][0]["digest"] = digest.into());
        assert_image_refused(&store, &image, &["layers[0].digest"]);
    }
    for size in [json!(-1), json!(1.5), json!("7"), Value::Null] {
        let image =
            small_image("image").with_manifest(|manifest| manifest["layers"][0]["size"] = size);
        assert_image_refused(&store, &image, &["size"]);
    }
    let endless = small_image("image")
        .with_manifest(|manifest| manifest["layers"][0]["size"] = u64::MAX.into());
    assert_image_refused(&store, &endless, &["18446744073709551615"]);
}

#[test]
fn documents_that_are_too_large_are_refused_unread() {
    let store = store();
    let image = small_image("image").with_manifest(|manifest| {
        manifest["annotations"] = json!({"filler": "x".repeat(5 << 20)});
    });
    assert_image_refused(&store, &image, &["bytes"]);
    let image = with_changed_config(small_image("image"), |config| {
        config["author"] = "x".repeat(5 << 20).into()
    });
    assert_image_refused(&store, &image, &["bytes"]);
}

#[test]
fn a_manifest_without_an_end_is_not_read_for_ever() {
    assert_server_refused(&["bytes"], |request| {
        // No length is trusted: 64 MiB follow where at most 4 are read.
        request
            .target
            .contains("/manifests/")
            .then(|| Answer::document(MANIFEST, vec![b' '; 64 << 20]))
    });
}

#[test]
fn a_config_that_contradicts_its_manifest_is_refused() {
    let store = store();
    let image = with_changed_config(small_image("image"), |config| {
        let twice = digest_of(b"another");
        config["rootfs"]["diff_ids"]
            .as_array_mut()
            .unwrap()
            .push(twice.into());
    });
    assert_image_refused(&store, &image, &["1 layer", "2 diff_ids"]);
    let image = with_changed_config(small_image("image"), |config| {
        config["rootfs"]["type"] = "zip".into()
    });
    assert_image_refused(&store, &image, &["rootfs.type", "zip"]);
    let image = with_changed_config(small_image("image"), |config| {
        config["os"] = "windows".into()
    });
    assert_image_refused(&store, &image, &["windows"]);
}

#[test]
fn a_config_of_another_platform_than_its_index_says_is_refused() {
    let arm = ImageBuilder::new().architecture("arm64", None);
    let image = arm
        .layer(&conformance::images::filler_layer("f", 1, 10))
        .build();
    let index = Index::of(Documents::Oci, vec![image]).with_document(|document| {
        document["manifests"][0]["platform"]["architecture"] = "amd64".into();
    });
    let (server, store) = (HostileRegistry::honest().unwrap(), store());
    let reference = server.serve_index(&index, "bad/image", "latest");
    let output = store.run(&["pull", "--quiet", "--platform", "linux/amd64", &reference]);
    assert!(output.one_line_failure().contains("arm64"), "{output}");
    // Without a platform that was asked for it is said, since it may be meant.
    let output = store.run(&["pull", "--quiet", &reference]);
    assert!(output.stderr.contains("arm64"), "{output}");
}

#[test]
fn an_index_that_leads_to_itself_in_circles_ends() {
    let index = Index::of(Documents::Oci, vec![small_image("image")]);
    let digest = index.document.digest.clone();
    let nested = index.clone().with_document(|document| {
        document["manifests"] = json!([{
            "mediaType": conformance::images::media_types::INDEX, "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": "amd64"},
        }]);
    });
    let server = HostileRegistry::start(move |request| {
        let is_inner = request.target.contains("/manifests/sha256:");
        let document = nested.document.bytes.to_vec();
        is_inner.then(|| Answer::document(conformance::images::media_types::INDEX, document))
    })
    .unwrap();
    let outer = index.with_document(|document| {
        document["manifests"][0]["mediaType"] = conformance::images::media_types::INDEX.into();
    });
    assert_refused(
        &store(),
        &server.serve_index(&outer, "bad/image", "latest"),
        &[],
    );
}

#[test]
fn a_layer_type_that_is_not_what_its_bytes_are_is_told_by_the_bytes() {
    // The compression is known by magic bytes, whatever the media type says.
    let image = small_image("image")
        .with_manifest(|manifest| manifest["layers"][0]["mediaType"] = LAYER.into());
    let (server, store) = (HostileRegistry::honest().unwrap(), store());
    store
        .run(&["pull", &server.serve(&image, "image", "latest")])
        .success();
}
