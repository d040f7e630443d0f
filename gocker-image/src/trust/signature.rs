//! Signatures as cosign keeps them beside an image.
//!
//! ```text
//! REPOSITORY:sha256-<hex>.sig      a manifest; each of its layers is one signature:
//!   the blob                       the payload, JSON that names the image's digest
//!   its annotation                 the signature over the payload, in base64
//! ```
//!
//! Spec: cosign's SIGNATURE_SPEC.md, containers-signature(5)

use serde::Deserialize;

use super::{Identity, PublicKey, TrustError};
use crate::digest::Digest;
use crate::reference::Reference;

/// The media type of payloads.
pub const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation that holds the signature.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// What payloads call themselves; containers/image's word comes first.
const KINDS: [&str; 2] = [
    "cosign container image signature",
    "atomic container signature",
];

/// A payload, and the signature over it.
#[derive(Debug, Clone)]
pub struct Signature {
    /// JSON that names the image.
    pub payload: Vec<u8>,
    /// Over the payload, decoded.
    pub signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: SignedIdentity,
    image: SignedImage,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SignedIdentity {
    #[serde(default)]
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SignedImage {
    docker_manifest_digest: Digest,
}

/// The tag under which the signatures of `digest` lie.
#[must_use]
pub fn signature_tag(digest: &Digest) -> String {
    format!("{}-{}.sig", digest.algorithm().name(), digest.hex())
}

/// Checks that one of `signatures` is by one of `keys`, over this digest, and for a name that
/// `identity` takes for `image`.
///
/// # Errors
/// If none is, with a reason for each.
pub fn verify(
    (image, digest): (&Reference, &Digest),
    keys: &[PublicKey],
    identity: &Identity,
    signatures: &[Signature],
) -> Result<(), TrustError> {
    if signatures.is_empty() {
        return Err(TrustError::Unsigned(digest.clone()));
    }
    let mut reasons = Vec::new();
    for signature in signatures {
        match check(signature, (image, digest), keys, identity) {
            Ok(()) => return Ok(()),
            Err(reason) if !reasons.contains(&reason) => reasons.push(reason),
            Err(_) => {}
        }
    }
    let digest = digest.clone();
    Err(TrustError::NotSigned { digest, reasons })
}

fn check(
    signature: &Signature,
    (image, digest): (&Reference, &Digest),
    keys: &[PublicKey],
    identity: &Identity,
) -> Result<(), String> {
    // what no key has signed is not even read
    let is_signed = keys
        .iter()
        .any(|key| key.has_signed(&signature.payload, &signature.signature));
    if !is_signed {
        return Err("one is by another key".to_owned());
    }
    let payload: Payload = serde_json::from_slice(&signature.payload)
        .map_err(|_| "the payload of one is not a container signature".to_owned())?;
    let critical = payload.critical;
    if !KINDS.contains(&critical.kind.as_str()) {
        return Err("the payload of one is of another type".to_owned());
    }
    if critical.image.docker_manifest_digest != *digest {
        let other = critical.image.docker_manifest_digest;
        return Err(format!("one is over the digest {other}"));
    }
    let signed_for = critical.identity.docker_reference;
    if identity.matches(image, &signed_for) {
        Ok(())
    } else {
        Err(format!("one is for the name {signed_for:?}"))
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::super::key::tests::new_key;
    use super::*;

    #[test]
    fn a_signature_counts_for_its_digest_name_and_type() {
        let (pair, pem) = new_key();
        let key = PublicKey::from_pem("key", pem.as_bytes()).unwrap();
        let image: Reference = "a.io/x:1".parse().unwrap();
        let digest = Digest::of(b"manifest");
        let other = Digest::of(b"other");
        let kind = KINDS[0];
        let cases = [
            ("a.io/x", &digest, kind, ""),
            ("a.io/x", &other, kind, "over the digest"),
            ("a.io/y", &digest, kind, "for the name"),
            ("a.io/x", &digest, "something else", "another type"),
        ];
        for (name, signed, kind, expected) in cases {
            let payload = format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{signed}"}},"type":"{kind}"}},"optional":null}}"#
            );
            let signature = pair.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
            let signature = Signature {
                payload: payload.into_bytes(),
                signature: signature.as_ref().to_vec(),
            };
            let verified = verify(
                (&image, &digest),
                std::slice::from_ref(&key),
                &Identity::MatchRepository,
                &[signature],
            );
            match verified {
                Ok(()) => assert_eq!(expected, ""),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!expected.is_empty() && text.contains(expected), "{text}");
                }
            }
        }
        let unsigned = verify((&image, &digest), &[key], &Identity::Any, &[]);
        assert!(matches!(unsigned, Err(TrustError::Unsigned(_))));
    }
}
