//! Uploads to a real registry, and to ones that break and lie.
//!
//! Spec: distribution-spec spec.md#push
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where one of its steps fails"
)]

use std::io::{self, Read};
use std::sync::Mutex;

use conformance::hostile::Answer;
use conformance::{HostileRegistry, Registry};
use gocker_image::digest::Digest;
use gocker_image::image::{Descriptor, Document, media_type};
use gocker_image::reference::Reference;
use gocker_image::registry::{
    AuthFiles, Client, ClientConfig, Credential, RegistryError, SettingsPaths, Upload,
};

fn client(credential: Option<(String, Credential)>) -> Client {
    Client::new(ClientConfig {
        auth_files: AuthFiles::default(),
        settings: SettingsPaths::default(),
        credential,
        ..ClientConfig::default()
    })
    .unwrap()
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|number| number.to_le_bytes()[0]).collect()
}

fn descriptor(content: &[u8]) -> Descriptor {
    let size = content.len() as u64;
    Descriptor::new("application/octet-stream", Digest::of(content), size)
}

fn push(
    client: &Client,
    reference: &Reference,
    content: &[u8],
    chunk_bytes: Option<u64>,
) -> Result<(), RegistryError> {
    let open = |offset: u64| {
        let rest = content[usize::try_from(offset).unwrap()..].to_vec();
        Ok(Box::new(io::Cursor::new(rest)) as Box<dyn Read + Send>)
    };
    let upload = Upload {
        descriptor: &descriptor(content),
        open: &open,
        chunk_bytes,
    };
    client.push_blob(reference, &upload)
}

#[test]
fn what_is_pushed_can_be_pulled() {
    let registry = Registry::start().unwrap();
    let reference: Reference = registry.reference("team/image:1").parse().unwrap();
    let client = client(None);
    let config =
        br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let layer = content(300_000);
    for (content, chunk) in [
        (&config[..], None),
        (&layer, Some(100_000)),
        (&b""[..], Some(10)),
    ] {
        let digest = Digest::of(content);
        assert!(!client.has_blob(&reference, &digest).unwrap());
        push(&client, &reference, content, chunk).unwrap();
        assert!(client.has_blob(&reference, &digest).unwrap());
        let fetched = client.blob_bytes(&reference, &descriptor(content), 1 << 20);
        assert!(fetched.unwrap() == content);
    }
    let config = Descriptor {
        media_type: media_type::OCI_CONFIG.to_owned(),
        ..descriptor(config)
    };
    let layer = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        ..descriptor(&layer)
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": [layer],
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = client
        .push_manifest(&reference, media_type::OCI_MANIFEST, &manifest)
        .unwrap();
    assert_eq!(digest, Digest::of(&manifest));
    assert!(client.has_manifest(&reference, &digest).unwrap());
    let resolved = client.resolve(&reference).unwrap();
    assert_eq!(resolved.digest, digest);
    assert!(matches!(resolved.document, Document::Manifest(_)));
    assert_eq!(client.tags(&reference).unwrap(), ["1"]);
}

#[test]
fn a_blob_of_another_repository_is_taken_over() {
    let registry = Registry::start().unwrap();
    let from: Reference = registry.reference("from/a").parse().unwrap();
    let to: Reference = registry.reference("to/b").parse().unwrap();
    let (client, blob) = (client(None), content(1000));
    let digest = Digest::of(&blob);
    assert!(!client.mount_blob(&to, "from/a", &digest).unwrap());
    push(&client, &from, &blob, None).unwrap();
    assert!(!client.has_blob(&to, &digest).unwrap());
    assert!(client.mount_blob(&to, "from/a", &digest).unwrap());
    assert!(client.has_blob(&to, &digest).unwrap());
}

#[test]
fn content_of_another_digest_is_refused_by_the_registry() {
    let registry = Registry::start().unwrap();
    let reference: Reference = registry.reference("image").parse().unwrap();
    let wrong = |_| Ok(Box::new(io::repeat(1).take(100)) as Box<dyn Read + Send>);
    let upload = Upload {
        descriptor: &descriptor(&content(100)),
        open: &wrong,
        chunk_bytes: None,
    };
    let error = client(None).push_blob(&reference, &upload).unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
}

/// A registry that takes uploads of chunks, and fails in the middle of the second one.
fn breaking() -> (HostileRegistry, std::sync::Arc<Mutex<Vec<u8>>>) {
    let taken = std::sync::Arc::new(Mutex::new(Vec::new()));
    let (own, failed) = (std::sync::Arc::clone(&taken), Mutex::new(false));
    let server = HostileRegistry::start(move |request| {
        let mut taken = own.lock().unwrap();
        let place = "/v2/image/blobs/uploads/1?state=x";
        let standing = |taken: &[u8], status| {
            let range = format!("0-{}", taken.len().saturating_sub(1));
            let answer = Answer::status(status).field("Location", place);
            Some(answer.field("Range", &range))
        };
        match request.method.as_str() {
            "POST" => standing(&taken, 202),
            "PATCH"
                if taken.len() >= 10 && !std::mem::replace(&mut *failed.lock().unwrap(), true) =>
            {
                taken.extend(&request.body[..5]);
                Some(Answer::status(503))
            }
            "PATCH" => {
                taken.extend(&request.body);
                standing(&taken, 202)
            }
            "GET" => standing(&taken, 204),
            "PUT" => Some(Answer::status(201)),
            _ => None,
        }
    });
    (server.unwrap(), taken)
}

#[test]
fn an_upload_that_breaks_goes_on_where_the_registry_stands() {
    let (server, taken) = breaking();
    let reference: Reference = format!("{}/image", server.host()).parse().unwrap();
    let blob = content(35);
    push(&client(None), &reference, &blob, Some(10)).unwrap();
    assert_eq!(*taken.lock().unwrap(), blob);
    let requests = server.requests();
    let last = requests.last().unwrap();
    let digest = Digest::of(&blob).to_string().replace(':', "%3A");
    assert_eq!(
        last.target,
        format!("/v2/image/blobs/uploads/1?state=x&digest={digest}")
    );
}

#[test]
fn a_token_for_a_push_allows_it_and_no_other_host_gets_it() {
    let elsewhere = HostileRegistry::start(|_| Some(Answer::status(201))).unwrap();
    let place = format!("http://{}/upload", elsewhere.host());
    let server = HostileRegistry::start(move |request| {
        let realm = format!("http://{}/token", request.field("host").unwrap_or_default());
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        if request.target.starts_with("/token") {
            return Some(Answer::document(
                "application/json",
                r#"{"token":"secret"}"#,
            ));
        }
        Some(if request.field("authorization") == Some("Bearer secret") {
            Answer::status(202).field("Location", &place)
        } else {
            Answer::error(401, "UNAUTHORIZED", "who?").field("WWW-Authenticate", &challenge)
        })
    })
    .unwrap();
    let reference: Reference = format!("{}/image", server.host()).parse().unwrap();
    push(&client(None), &reference, b"x", None).unwrap();
    let requests = server.requests();
    let token = requests
        .iter()
        .find(|request| request.target.starts_with("/token"));
    let scope = "scope=repository%3Aimage%3Apull%2Cpush";
    assert!(token.unwrap().target.contains(scope), "{requests:?}");
    let uploads = elsewhere.requests();
    assert_eq!(uploads.len(), 1);
    assert_eq!(uploads[0].field("authorization"), None);
}
