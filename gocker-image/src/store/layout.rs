//! Names in the store. Every one is made of a [`Digest`] or a [`BundleId`],
//! which were parsed strictly, never of any other text.

use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// The directories of a store.
pub(super) const DIRECTORIES: [&str; 7] = [
    "locks", "blobs", "partial", "layers", "images", "refs", "bundles",
];
/// The file that says what version a store has.
pub(super) const META: &str = "meta.json";
/// What unfinished names begin with.
pub(super) const UNFINISHED: &str = ".new-";
/// The record in a bundle's directory.
pub(super) const BUNDLE_RECORD: &str = "gocker.json";

/// A digest as a file name: `sha256-<hex>`.
pub(super) fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

/// The digest that [`name`] made a name of; None for any other name.
pub(super) fn digest(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

/// Where the bytes of `digest` lie.
pub(super) fn blob(root: &Path, digest: &Digest) -> PathBuf {
    let directory = root.join("blobs").join(digest.algorithm().name());
    directory.join(digest.hex())
}

/// Where the record `name` of `kind` lies.
pub(super) fn record(root: &Path, kind: &str, name: &str) -> PathBuf {
    root.join(kind).join(format!("{name}.json"))
}

/// The name of a bundle: what a container may be called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId(String);

/// A text is not the name of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a valid name: it may have letters, digits, `_`, `.` and `-`, begins with a letter or digit, and has at most 128 characters"
)]
pub struct BundleIdError(String);

impl BundleId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for BundleId {
    type Err = BundleIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if begins_well && text.len() <= 128 && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BundleIdError(text.to_owned()))
        }
    }
}

impl std::fmt::Display for BundleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways_and_others_are_none() {
        let id = Digest::of(b"x");
        assert_eq!(digest(&name(&id)), Some(id));
        for other in ["", "sha256", ".new-sha256-00", "sha256-../..", "locks"] {
            assert_eq!(digest(other), None);
        }
    }

    #[test]
    fn bundle_ids_are_single_plain_components() {
        for good in ["a", "web-1", "A.b_c", &"x".repeat(128)] {
            assert!(good.parse::<BundleId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-a",
            ".a",
            "ä",
            "a b",
            &"x".repeat(129),
        ] {
            assert!(bad.parse::<BundleId>().is_err(), "{bad}");
        }
    }
}
