//! Signatures and policies: what is not believed is not fetched.
//!
//! Spec: cosign's SIGNATURE_SPEC.md, containers-policy.json(5)

use std::fs;
use std::path::{Path, PathBuf};

use conformance::hostile::base64;
use conformance::images::media_types::{CONFIG, MANIFEST};
use conformance::images::{Blob, Documents, Image, Index};
use conformance::{HostileRegistry, Output, StoreRoot};

use super::{made_store, openssl, small_image};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What openssl makes a private key by.
const KINDS: [&[&str]; 3] = [
    &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    &["-algorithm", "ED25519"],
];

/// A pair of keys in files.
struct Keys {
    private: PathBuf,
    public: PathBuf,
    is_ed25519: bool,
}

impl Keys {
    fn new(store: &StoreRoot, name: &str, kind: &[&str]) -> Self {
        let (private, public) = (store.beside(name), store.beside(&format!("{name}.pub")));
        openssl(|command| command.arg("genpkey").args(kind).arg("-out").arg(&private));
        openssl(|command| {
            let command = command.args(["pkey", "-pubout", "-in"]).arg(&private);
            command.arg("-out").arg(&public)
        });
        Self {
            private,
            public,
            is_ed25519: kind.contains(&"ED25519"),
        }
    }

    fn sign(&self, store: &StoreRoot, payload: &[u8]) -> Vec<u8> {
        let (message, signature) = (store.beside("message"), store.beside("signature"));
        fs::write(&message, payload).unwrap();
        openssl(|command| {
            if self.is_ed25519 {
                command
                    .args(["pkeyutl", "-sign", "-rawin", "-inkey"])
                    .arg(&self.private);
                command.arg("-in").arg(&message).arg("-out").arg(&signature)
            } else {
                command
                    .args(["dgst", "-sha256", "-sign"])
                    .arg(&self.private);
                command.arg("-out").arg(&signature).arg(&message)
            }
        });
        fs::read(signature).unwrap()
    }
}

/// Signs `digest` for the name `name`, as cosign does.
fn payload(name: &str, digest: &str) -> Vec<u8> {
    let payload = serde_json::json!({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    payload.to_string().into_bytes()
}

/// Puts signatures beside the image `digest` of the repository `image`.
fn put(server: &HostileRegistry, digest: &str, signatures: &[(Vec<u8>, Vec<u8>)]) {
    let config = Blob::new(CONFIG, b"{}".to_vec());
    let layers = signatures.iter().map(|(payload, signature)| {
        let blob = Blob::new(PAYLOAD, payload.clone());
        server.serve_blob(&blob);
        let mut layer = blob.descriptor();
        layer["annotations"] =
            serde_json::json!({"dev.cosignproject.cosign/signature": base64(signature)});
        layer
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": layers.collect::<Vec<_>>(),
    });
    let manifest = Blob::new(MANIFEST, manifest.to_string().into_bytes());
    let tag = digest.replacen(':', "-", 1) + ".sig";
    server.serve_manifest("image", &tag, &manifest);
}

/// Signs what `digest` names, and puts it beside it.
fn sign(server: &HostileRegistry, store: &StoreRoot, keys: &Keys, digest: &str) {
    let payload = payload(&format!("{}/image", server.host()), digest);
    let signature = keys.sign(store, &payload);
    put(server, digest, &[(payload, signature)]);
}

fn pull_by_key(store: &StoreRoot, key: &Path, reference: &str) -> Output {
    store.run(&[
        "pull",
        "--quiet",
        "--verify-key",
        key.to_str().unwrap(),
        reference,
    ])
}

/// Asserts that a pull failed with these words, and that nothing of the image was fetched.
#[track_caller]
fn assert_refused(server: &HostileRegistry, image: &Image, output: &Output, words: &str) {
    let line = output.one_line_failure();
    assert!(line.contains(words), "{words:?}: {line}");
    let fetched = server.fetched_blobs();
    for blob in image.blobs() {
        assert!(!fetched.contains(&blob.digest), "fetched {}", blob.digest);
    }
}

fn served() -> (HostileRegistry, StoreRoot, Image, String) {
    let (server, image) = (HostileRegistry::honest().unwrap(), small_image("image"));
    let reference = server.serve(&image, "image", "latest");
    (server, made_store(), image, reference)
}

#[test]
fn an_image_signed_by_the_key_is_pulled() {
    for (number, kind) in KINDS.iter().enumerate() {
        let (server, store, image, reference) = served();
        let keys = Keys::new(&store, &format!("key{number}"), kind);
        sign(&server, &store, &keys, &image.manifest.digest);
        pull_by_key(&store, &keys.public, &reference).success();
    }
}

#[test]
fn an_image_without_a_signature_is_refused_before_anything_of_it_is_fetched() {
    let (server, store, image, reference) = served();
    let keys = Keys::new(&store, "key", KINDS[0]);
    let output = pull_by_key(&store, &keys.public, &reference);
    assert_refused(&server, &image, &output, "has no signature");
}

#[test]
fn a_signature_by_another_key_or_over_another_image_does_not_count() {
    let (server, store, image, reference) = served();
    let (keys, others) = (
        Keys::new(&store, "a", KINDS[0]),
        Keys::new(&store, "b", KINDS[2]),
    );
    let digest = &image.manifest.digest;
    sign(&server, &store, &others, digest);
    let output = pull_by_key(&store, &keys.public, &reference);
    assert_refused(&server, &image, &output, "another key");

    let other = small_image("other").manifest.digest;
    let payload = payload("127.0.0.1/image", &other);
    let signature = keys.sign(&store, &payload);
    put(&server, digest, &[(payload.clone(), signature.clone())]);
    let output = pull_by_key(&store, &keys.public, &reference);
    assert_refused(&server, &image, &output, &other);

    // a payload that was changed after it was signed
    let changed = String::from_utf8(payload).unwrap().replace(&other, digest);
    put(&server, digest, &[(changed.into_bytes(), signature)]);
    let output = pull_by_key(&store, &keys.public, &reference);
    assert_refused(&server, &image, &output, "another key");
}

#[test]
fn one_good_signature_among_others_is_enough() {
    let (server, store, image, reference) = served();
    let keys = Keys::new(&store, "key", KINDS[0]);
    let payload = payload("a.example/x", &image.manifest.digest);
    let good = keys.sign(&store, &payload);
    let signatures = [(b"{}".to_vec(), vec![1, 2]), (payload, good)];
    put(&server, &image.manifest.digest, &signatures);
    pull_by_key(&store, &keys.public, &reference).success();
}

#[test]
fn a_signature_over_the_index_counts_for_its_images() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let index = Index::of(Documents::Oci, vec![small_image("image")]);
    let reference = server.serve_index(&index, "image", "latest");
    let keys = Keys::new(&store, "key", KINDS[0]);
    let output = pull_by_key(&store, &keys.public, &reference);
    assert_refused(&server, &index.images[0], &output, "has no signature");
    sign(&server, &store, &keys, &index.document.digest);
    pull_by_key(&store, &keys.public, &reference).success();
}

#[test]
fn a_key_that_is_none_is_refused_before_anything_is_asked_for() {
    let (server, store, _, reference) = served();
    let file = store.beside("no-key");
    fs::write(
        &file,
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    )
    .unwrap();
    let output = pull_by_key(&store, &file, &reference);
    assert!(output.one_line_failure().contains("no-key"), "{output}");
    assert_eq!(server.requests().len(), 0);
}

/// Writes a policy for the server's images.
fn write_policy(store: &StoreRoot, reference: &str, requirement: &str) -> String {
    let host = reference.split('/').next().unwrap();
    let policy = format!(
        r#"{{"default":[{{"type":"insecureAcceptAnything"}}],
            "transports":{{"docker":{{"{host}":[{requirement}]}}}}}}"#
    );
    let file = store.beside("policy.json");
    fs::write(&file, policy).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Pulls with a policy for the server's images.
fn pull_by_policy(store: &StoreRoot, reference: &str, requirement: &str) -> Output {
    let file = write_policy(store, reference, requirement);
    store.run(&["pull", "--quiet", "--policy", &file, reference])
}

/// A requirement of signatures by `keys`, for an image of this identity.
fn signed_by(keys: &Keys, identity: &str) -> String {
    format!(
        r#"{{"type":"sigstoreSigned","keyPath":{:?},"signedIdentity":{identity}}}"#,
        keys.public
    )
}

#[test]
fn a_policy_asks_for_signatures_by_name() {
    let (server, store, image, reference) = served();
    let keys = Keys::new(&store, "key", KINDS[0]);
    let requirement = |identity: &str| signed_by(&keys, &format!(r#"{{"type":"{identity}"}}"#));
    let output = pull_by_policy(&store, &reference, &requirement("matchRepository"));
    assert_refused(&server, &image, &output, "has no signature");
    sign(&server, &store, &keys, &image.manifest.digest);
    // cosign signs for a repository, not for a tag
    let output = pull_by_policy(&store, &reference, &requirement("matchRepoDigestOrExact"));
    assert_refused(&server, &image, &output, "for the name");
    pull_by_policy(&store, &reference, &requirement("matchRepository")).success();
}

#[test]
fn a_policy_rejects_and_refuses_by_name_what_is_not_served() {
    let (server, store, image, reference) = served();
    let cases = [
        (r#"{"type":"reject"}"#, "rejects"),
        (
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x"}"#,
            "signedBy",
        ),
        (r#"{"type":"sigstoreSigned","fulcio":{}}"#, "fulcio"),
        (
            r#"{"type":"sigstoreSigned","keyPath":"/nonexistent"}"#,
            "/nonexistent",
        ),
    ];
    for (requirement, words) in cases {
        let output = pull_by_policy(&store, &reference, requirement);
        assert_refused(&server, &image, &output, words);
    }
    assert_eq!(
        server.requests().len(),
        0,
        "such an image is not even asked for"
    );
    pull_by_policy(&store, &reference, r#"{"type":"insecureAcceptAnything"}"#).success();
}

#[test]
fn the_users_own_policy_is_followed_without_a_word() {
    let (server, store, image, reference) = served();
    let dir = store.beside("home").join(".config/containers");
    fs::create_dir_all(&dir).unwrap();
    fs::write(
        dir.join("policy.json"),
        r#"{"default":[{"type":"reject"}]}"#,
    )
    .unwrap();
    let output = store.run(&["pull", "--quiet", &reference]);
    assert_refused(&server, &image, &output, "rejects");
}

#[test]
fn a_policys_signatures_come_through_the_mirror_that_has_the_image() {
    let (mirror, store, image, served) = served();
    let registry = HostileRegistry::honest().unwrap();
    let reference = served.replacen(mirror.host(), registry.host(), 1);
    let conf = store.beside("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = {:?}\n[[registry.mirror]]\nlocation = {:?}\n",
        registry.host(),
        mirror.host()
    );
    fs::write(&conf, text).unwrap();
    let keys = Keys::new(&store, "key", KINDS[0]);
    let requirement = signed_by(&keys, r#"{"type":"matchRepository"}"#);
    let policy = write_policy(&store, &reference, &requirement);
    let pull = || {
        let conf = conf.to_str().unwrap();
        let args = ["--registries-conf", conf, "pull", "--quiet", "--policy"];
        store.run(&[&args[..], &[&policy, &reference]].concat())
    };
    assert_refused(&mirror, &image, &pull(), "has no signature");
    // what is signed is the image's own name, not the mirror's
    sign(&mirror, &store, &keys, &image.manifest.digest);
    assert_refused(&mirror, &image, &pull(), "for the name");
    let payload = payload(
        &format!("{}/image", registry.host()),
        &image.manifest.digest,
    );
    let signature = keys.sign(&store, &payload);
    put(&mirror, &image.manifest.digest, &[(payload, signature)]);
    pull().success();
    assert_eq!(registry.fetched_blobs(), Vec::<String>::new());
}

#[test]
fn a_policy_maps_the_names_of_a_copy_to_those_that_were_signed() {
    let (server, store, image, reference) = served();
    let keys = Keys::new(&store, "key", KINDS[0]);
    let digest = &image.manifest.digest;
    let payload = payload("vendor.example/image:latest", digest);
    let signature = keys.sign(&store, &payload);
    put(&server, digest, &[(payload, signature)]);
    let mapped = |to: &str| {
        let (kind, from) = ("remapIdentity", server.host());
        let identity = format!(r#"{{"type":"{kind}","prefix":"{from}","signedPrefix":"{to}"}}"#);
        pull_by_policy(&store, &reference, &signed_by(&keys, &identity))
    };
    assert_refused(&server, &image, &mapped("other.example"), "for the name");
    mapped("vendor.example").success();
}
