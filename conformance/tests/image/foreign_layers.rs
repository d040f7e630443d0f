//! Layers that their makers do not let registries hand on: refused unless they are allowed, then
//! fetched from the addresses that the manifest names.
//!
//! Spec: image-spec layer.md#non-distributable-layers, descriptor.md (urls)

use std::fs;

use conformance::hostile::Answer;
use conformance::images::Image;
use conformance::{HostileRegistry, Output, Registry, StoreRoot, TlsFront};
use serde_json::json;

use super::credentials::{USER, run_with_credentials};
use super::tls::{Authority, registries};
use super::{assert_unchanged, made_store, small_image, state};

/// A registry over https that has the layer of `small_image("image")` for those who know where,
/// and one that lacks it.
struct Case {
    _plain: Registry,
    elsewhere: Registry,
    registry: HostileRegistry,
    store: StoreRoot,
}

impl Case {
    fn new() -> Self {
        let (authority, store) = (Authority::new(), made_store());
        let (plain, elsewhere) = registries(&authority, false);
        authority.give(&store, elsewhere.host(), &["ca.crt"]);
        let layer = small_image("image").layers[0].digest.clone();
        let registry = HostileRegistry::start(move |request| {
            let is_layer = request.target.ends_with(&layer);
            is_layer.then(|| Answer::error(404, "BLOB_UNKNOWN", "blob unknown"))
        });
        Self {
            _plain: plain,
            elsewhere,
            registry: registry.unwrap(),
            store,
        }
    }

    fn address(&self, digest: &str) -> String {
        let host = self.elsewhere.host();
        format!("https://{host}/v2/image/blobs/{digest}")
    }

    /// Serves an image whose layer lies at these addresses.
    fn serve(&self, addresses: &[String]) -> String {
        self.registry.serve(&foreign(addresses), "image", "latest")
    }

    fn pull(&self, reference: &str) -> Output {
        let args = ["pull", "--quiet", "--allow-foreign-layers", reference];
        self.store.run(&args)
    }
}

fn foreign(addresses: &[String]) -> Image {
    small_image("image").with_manifest(|manifest| {
        let layer = &mut manifest["layers"][0];
        layer["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        layer["urls"] = json!(addresses);
    })
}

#[test]
fn an_allowed_foreign_layer_comes_from_the_registry_if_it_has_it() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let image = foreign(&["https://127.0.0.1:1/nobody".to_owned()]);
    let reference = server.serve(&image, "image", "latest");
    let refused = store.run(&["pull", "--quiet", &reference]);
    let line = refused.one_line_failure();
    assert!(line.contains("--allow-foreign-layers"), "{line}");
    let args = ["pull", "--quiet", "--allow-foreign-layers", &reference];
    store.run(&args).success();
    assert!(store.bundle(&reference, "one").join("rootfs/name").exists());
}

#[test]
fn an_allowed_foreign_layer_comes_from_the_first_of_its_addresses_that_has_it() {
    let case = Case::new();
    let layer = &small_image("image").layers[0].digest;
    let nothing = format!("sha256:{}", "0".repeat(64));
    let reference = case.serve(&[case.address(&nothing), case.address(layer)]);
    case.pull(&reference).success();
    let rootfs = case.store.bundle(&reference, "one").join("rootfs");
    assert_eq!(fs::read_to_string(rootfs.join("name")).unwrap(), "image");
}

#[test]
fn a_foreign_address_that_is_not_https_or_has_something_else_is_refused() {
    let case = Case::new();
    let before = state(&case.store);
    let config = &small_image("image").config.digest;
    for (address, words) in [
        (case.address(config), "bytes instead of"),
        ("http://127.0.0.1:1/layer".to_owned(), "not https"),
        ("file:///etc/passwd".to_owned(), "not https"),
    ] {
        let output = case.pull(&case.serve(&[address]));
        assert!(output.one_line_failure().contains(words), "{output}");
        assert_unchanged(&case.store, &before);
    }
}

#[test]
fn a_foreign_layer_is_fetched_without_credentials() {
    let (authority, store) = (Authority::new(), made_store());
    let image = small_image("image");
    let layer = &image.layers[0];
    let behind = HostileRegistry::honest().unwrap();
    behind.serve_blob(layer);
    let (certificate, key) = (authority.file("server.cert"), authority.file("server.key"));
    let elsewhere = TlsFront::start(behind.host(), &certificate, &key).unwrap();
    authority.give(&store, elsewhere.host(), &["ca.crt"]);
    let address = format!(
        "https://{}/v2/image/blobs/{}",
        elsewhere.host(),
        layer.digest
    );
    let lacked = layer.digest.clone();
    let registry = HostileRegistry::start(move |request| {
        let is_layer = request.target.ends_with(&lacked);
        let is_known = request.field("authorization") == Some("Bearer secret-bearer-token");
        (is_layer && is_known).then(|| Answer::error(404, "BLOB_UNKNOWN", "blob unknown"))
    })
    .unwrap();
    registry.ask_for_token(Some(USER));
    let reference = registry.serve(&foreign(&[address]), "image", "latest");
    let hosts = [registry.host(), elsewhere.host()];
    let args = ["pull", "--quiet", "--allow-foreign-layers", &reference];
    run_with_credentials(&store, &hosts, &args).success();
    let requests = behind.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    for field in ["authorization", "cookie", "referer"] {
        assert_eq!(requests[0].field(field), None, "{requests:?}");
    }
}

#[test]
fn all_foreign_addresses_that_fail_are_told_in_one_line() {
    let case = Case::new();
    let before = state(&case.store);
    let nothing = case.address(&format!("sha256:{}", "0".repeat(64)));
    let plain = "http://127.0.0.1:1/layer".to_owned();
    let output = case.pull(&case.serve(&[nothing.clone(), plain.clone()]));
    let line = output.one_line_failure();
    assert!(line.contains(&format!("{nothing:?}: GET /v2/")), "{line}");
    assert!(
        line.contains(&format!("{plain:?}: not asked, for")),
        "{line}"
    );
    let many = vec![plain; 20];
    let output = case.pull(&case.serve(&many));
    let line = output.one_line_failure();
    assert_eq!(line.matches("it is not https").count(), 16, "{line}");
    assert!(
        line.ends_with("not asked, for there are too many"),
        "{line}"
    );
    assert_unchanged(&case.store, &before);
}

#[test]
fn a_foreign_layer_is_neither_saved_nor_pushed() {
    let case = Case::new();
    let layer = &small_image("image").layers[0].digest;
    let reference = case.serve(&[case.address(layer)]);
    case.pull(&reference).success();
    let saved = case.store.beside("saved");
    let directory = saved.to_str().unwrap();
    let args = ["save", "--as", "oci-dir", "--output", directory, &reference];
    let output = case.store.run(&args);
    output.success();
    assert!(output.stderr.contains("stays where it is"), "{output}");
    let hex = layer.strip_prefix("sha256:").unwrap();
    assert!(!saved.join("blobs/sha256").join(hex).exists());
    let other = Registry::start().unwrap();
    // docker-registry takes only addresses that its owner allows
    let urls = json!({"allow": ["^https://"]});
    let allowing = other.beside(json!({"validation": {"manifests": {"urls": urls}}}));
    let allowing = allowing.unwrap();
    let destination = allowing.reference("pushed");
    let output = case.store.run(&["push", &reference, &destination]);
    output.success();
    assert!(output.stderr.contains("stays where it is"), "{output}");
    case.pull(&destination).success();
}
