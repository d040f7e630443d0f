//! Whether an image is let in: its signatures are fetched and verified before anything of it is.

use anyhow::Context as _;
use base64::Engine as _;

use crate::digest::Digest;
use crate::image::Manifest;
use crate::reference::Reference;
use crate::registry::{Client, RegistryError};
use crate::trust::{
    self, Identity, PAYLOAD_TYPE, Policy, PolicyPaths, PublicKey, Requirement,
    SIGNATURE_ANNOTATION, Signature, SignedBy, TrustError,
};

/// The most bytes of a payload.
const PAYLOAD_LIMIT: u64 = 64 << 10;
/// The most signatures that are looked at.
const MOST_SIGNATURES: usize = 100;

/// What a user asks for before an image is let in.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Keys, each of which must have signed the image.
    pub keys: Vec<std::path::PathBuf>,
    /// Where the policy is.
    pub policy: PolicyPaths,
}

/// Everything that must be true of an image, before it is asked for.
pub(super) fn requirements(trust: &Trust, reference: &Reference) -> anyhow::Result<Vec<SignedBy>> {
    let mut signed = Vec::new();
    for path in &trust.keys {
        signed.push(SignedBy {
            keys: vec![PublicKey::read(path)?],
            identity: Identity::Any,
        });
    }
    if let Some(policy) = Policy::load(&trust.policy)? {
        for requirement in policy.requirements(reference)? {
            match requirement {
                Requirement::Accept => {}
                Requirement::Signed(by) => signed.push(by),
            }
        }
    }
    Ok(signed)
}

/// Verifies that the image has the signatures that are asked for: over the manifest itself, or
/// over the index that names it.
pub(super) fn verify(
    client: &Client,
    reference: &Reference,
    digests: &[&Digest],
    required: &[SignedBy],
) -> anyhow::Result<()> {
    if required.is_empty() {
        return Ok(());
    }
    let mut found = Vec::new();
    for digest in digests {
        let signatures = fetch(client, reference, digest);
        found.push((
            *digest,
            signatures.with_context(|| format!("signatures of {digest}"))?,
        ));
    }
    for by in required {
        let mut result = Ok(());
        for (digest, signatures) in &found {
            let image = (reference, *digest);
            match trust::verify(image, &by.keys, &by.identity, signatures) {
                Ok(()) => {
                    result = Ok(());
                    break;
                }
                // that there is a wrong one says more than that there is none
                Err(TrustError::Unsigned(_)) if result.is_err() => {}
                Err(error) => result = Err(error),
            }
        }
        result?;
    }
    Ok(())
}

/// The signatures that lie beside `digest` in its repository.
fn fetch(
    client: &Client,
    reference: &Reference,
    digest: &Digest,
) -> anyhow::Result<Vec<Signature>> {
    let place = reference.with_tag(&trust::signature_tag(digest))?;
    let bytes = match client.raw_manifest(&place) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    payloads(client, &place, &Manifest::of_any_kind(&bytes)?)
}

fn payloads(
    client: &Client,
    place: &Reference,
    manifest: &Manifest,
) -> anyhow::Result<Vec<Signature>> {
    let mut signatures = Vec::new();
    let signed = manifest
        .layers
        .iter()
        .filter(|layer| layer.media_type == PAYLOAD_TYPE);
    for layer in signed.take(MOST_SIGNATURES) {
        let text = layer.annotations.get(SIGNATURE_ANNOTATION);
        let decoded = text.map(|text| base64::engine::general_purpose::STANDARD.decode(text));
        let Some(Ok(signature)) = decoded else {
            continue;
        };
        let payload: Result<Vec<u8>, RegistryError> =
            client.blob_bytes(place, layer, PAYLOAD_LIMIT);
        signatures.push(Signature {
            payload: payload?,
            signature,
        });
    }
    Ok(signatures)
}
