//! The pointer from one document to another: media type, digest, size.
//!
//! Spec: image-spec descriptor.md

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::{ImageError, Platform, media_type};
use crate::digest::Digest;

/// A content descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
    /// Other addresses of the content. Followed only for layers, and only where the user allows
    /// foreign ones.
    #[serde(
        default,
        deserialize_with = "super::json::null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// Arbitrary metadata.
    #[serde(
        default,
        deserialize_with = "super::json::null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The platform of a manifest, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The content itself in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Descriptor {
    /// A descriptor of content that is at hand.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            data: None,
        }
    }

    /// Whether it is of a layer that lies, or is to lie, elsewhere than at the registry.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty() || media_type::is_foreign_layer(&self.media_type)
    }

    /// The embedded content, verified. None if there is none.
    ///
    /// # Errors
    /// If it is no base64, or not of this size and digest.
    pub fn embedded(&self) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(data) = &self.data else {
            return Ok(None);
        };
        let wrong = || ImageError::EmbeddedData {
            digest: self.digest.clone(),
            size: self.size,
        };
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(data)
            .map_err(|_| wrong())?;
        let actual = Digest::with(self.digest.algorithm(), &bytes);
        if bytes.len() as u64 != self.size || actual != self.digest {
            return Err(wrong());
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_data_must_be_what_the_descriptor_says() {
        let cases = [
            (Some("YWJj"), 3, true),
            (Some("YWJj"), 4, false),
            (Some("YWJk"), 3, false),
            (Some("??"), 3, false),
            (None, 3, true),
        ];
        for (data, size, good) in cases {
            let mut descriptor = Descriptor::new("text/plain", Digest::of(b"abc"), size);
            descriptor.data = data.map(str::to_owned);
            assert_eq!(descriptor.embedded().is_ok(), good, "{data:?} {size}");
        }
    }
}
