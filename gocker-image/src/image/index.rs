//! The list of an image's manifests, and the choice of one for a platform.
//!
//! Spec: image-spec image-index.md

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Descriptor, ImageError, Platform, PlatformChoice, json, media_type};

/// An image index or a Docker manifest list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// OCI's or Docker's.
    #[serde(default = "oci_index")]
    pub media_type: String,
    /// The manifests, and indexes within the index.
    #[serde(deserialize_with = "json::null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Arbitrary metadata.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

fn oci_index() -> String {
    media_type::OCI_INDEX.to_owned()
}

impl Index {
    /// The entries that can be images: no signatures, no attestations.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| is_image(entry))
    }

    /// Chooses the manifest that fits best; the first one among equals. The
    /// answer may itself be an index, in which the choice goes on.
    ///
    /// An image of one platform only, as `arm64v8/alpine` is, is chosen for
    /// [`PlatformChoice::Host`] even if it is of another platform.
    ///
    /// # Errors
    /// If no manifest fits.
    pub fn select(&self, choice: &PlatformChoice) -> Result<&Descriptor, ImageError> {
        let wanted = choice.platform();
        let candidates: Vec<_> = self.images().collect();
        let ranked = candidates
            .iter()
            .filter_map(|entry| Some((wanted.rank(entry.platform.as_ref()?)?, entry)));
        if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
            return Ok(best);
        }
        // what says no platform is decided by its config, or by the inner index
        if let Some(silent) = candidates.iter().find(|entry| entry.platform.is_none()) {
            return Ok(silent);
        }
        if let (PlatformChoice::Host(_), [only]) = (choice, candidates.as_slice()) {
            return Ok(only);
        }
        let names: BTreeSet<_> = candidates
            .iter()
            .filter_map(|entry| Some(entry.platform.as_ref()?.to_string()))
            .collect();
        let available = if names.is_empty() {
            "none at all".to_owned()
        } else {
            names.into_iter().collect::<Vec<_>>().join(", ")
        };
        Err(ImageError::NoPlatform {
            wanted: wanted.to_string(),
            available,
        })
    }
}

/// Whether the entry can be an image: not a signature or an attestation.
fn is_image(entry: &Descriptor) -> bool {
    let kind = entry.media_type.as_str();
    let is_document = media_type::is_manifest(kind) || media_type::is_index(kind);
    is_document && !entry.platform.as_ref().is_some_and(Platform::is_unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn entry(platform: &str) -> Descriptor {
        let mut entry =
            Descriptor::new(media_type::OCI_MANIFEST, Digest::of(platform.as_bytes()), 1);
        if !platform.is_empty() {
            let mut parts = platform.split('/').map(str::to_owned);
            entry.platform = Some(Platform {
                os: parts.next().unwrap(),
                architecture: parts.next().unwrap(),
                variant: parts.next(),
                os_version: None,
                os_features: Vec::new(),
            });
        }
        entry
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let all = "linux/arm/v5 linux/386 linux/amd64 linux/arm/v7 unknown/unknown linux/arm64/v8 \
                   linux/amd64/v2 linux/arm/v6 windows/amd64";
        let cases = [
            (all, "linux/amd64", Some("linux/amd64")),
            (all, "linux/amd64/v3", Some("linux/amd64/v2")),
            (all, "linux/x86_64", Some("linux/amd64")),
            (all, "linux/arm64", Some("linux/arm64/v8")),
            (all, "linux/aarch64", Some("linux/arm64/v8")),
            (all, "linux/arm", Some("linux/arm/v7")),
            (all, "linux/armhf", Some("linux/arm/v7")),
            (all, "linux/arm/v6", Some("linux/arm/v6")),
            (all, "linux/s390x", None),
            (all, "unknown/unknown", None),
            ("linux/arm64", "linux/arm64/v8", Some("linux/arm64")),
            ("linux/arm64/v8 unknown/unknown", "linux/amd64", None),
            (
                "linux/arm/v5 linux/arm/v6",
                "linux/arm/v7",
                Some("linux/arm/v6"),
            ),
            ("linux/arm/v7", "linux/arm/v6", None),
        ];
        for (offered, wanted, expected) in cases {
            let manifests = offered.split(' ').map(entry).collect();
            let index = Index {
                media_type: oci_index(),
                manifests,
                annotations: BTreeMap::new(),
            };
            let choice = PlatformChoice::Exactly(wanted.parse().unwrap());
            let chosen = index.select(&choice).ok().map(|entry| entry.digest.clone());
            let expected = expected.map(|name| Digest::of(name.as_bytes()));
            assert_eq!(chosen, expected, "{wanted} of {offered}");
        }
    }

    #[test]
    fn a_single_foreign_platform_is_taken_unless_another_was_asked_for() {
        let manifests = vec![entry("linux/s390x"), entry("unknown/unknown")];
        let index = Index {
            media_type: oci_index(),
            manifests,
            annotations: BTreeMap::new(),
        };
        let host: Platform = "linux/amd64".parse().unwrap();
        assert!(index.select(&PlatformChoice::Host(host.clone())).is_ok());
        assert!(index.select(&PlatformChoice::Exactly(host)).is_err());
    }

    #[test]
    fn an_entry_without_platform_is_the_last_resort() {
        let manifests = vec![entry(""), entry("linux/s390x")];
        let index = Index {
            media_type: oci_index(),
            manifests,
            annotations: BTreeMap::new(),
        };
        for (wanted, expected) in [("linux/s390x", "linux/s390x"), ("linux/amd64", "")] {
            let choice = PlatformChoice::Exactly(wanted.parse().unwrap());
            let chosen = index.select(&choice).unwrap();
            assert_eq!(chosen.digest, Digest::of(expected.as_bytes()), "{wanted}");
        }
    }
}
