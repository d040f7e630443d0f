//! The documents of image-spec, read strictly from raw bytes.
//!
//! ```text
//! index ── descriptor ──> manifest ── descriptor ──> config (diff IDs)
//!   one per platform          └────── descriptor ──> layer, layer, …
//! ```
//!
//! The bytes are what counts: they are hashed and stored as they came and never
//! written anew, so the types here can only be read. One document must not be
//! readable as two things (CVE-2021-41190): a key that stands twice, `manifests`
//! beside `layers`, or a `mediaType` other than the Content-Type is an error.
//!
//! Spec: image-spec image-index.md, manifest.md, config.md, descriptor.md

mod config;
mod descriptor;
mod error;
mod index;
mod json;
mod manifest;
pub mod media_type;
mod platform;

pub use config::{ContainerConfig, ImageConfig, chain_ids};
pub use descriptor::Descriptor;
pub use error::ImageError;
pub use index::Index;
pub(crate) use json::refuse_duplicate_keys;
pub use manifest::Manifest;
pub use platform::{Platform, PlatformChoice, PlatformError};

/// What a manifest request answers: an index or a manifest.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one of them exists per image")]
pub enum Document {
    /// One manifest per platform.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

impl Document {
    /// Reads an index or a manifest. `content_type` is what the registry or the
    /// descriptor calls it; its parameters are ignored.
    ///
    /// # Errors
    /// If the bytes are not strictly one kind of document that this program
    /// serves, and the kind that `content_type` says.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ImageError> {
        let header = content_type.map(media_type::essence);
        if let Some(name) = header.as_deref()
            && media_type::is_schema_1(name)
        {
            return Err(ImageError::Schema1);
        }
        let shape: Shape = json::parse(bytes)?;
        let own = shape.media_type.as_deref();
        if shape.schema_version == Some(1) || own.is_some_and(media_type::is_schema_1) {
            return Err(ImageError::Schema1);
        }
        if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(ImageError::Ambiguous);
        }
        if let (Some(header), Some(own)) = (header.as_deref(), own)
            && header != own
        {
            let (field, header) = (own.to_owned(), header.to_owned());
            return Err(ImageError::MediaTypeMismatch { field, header });
        }
        let kind = header.as_deref().or(own).unwrap_or(match &shape.manifests {
            Some(_) => media_type::OCI_INDEX,
            None => media_type::OCI_MANIFEST,
        });
        if shape.schema_version != Some(2) {
            return Err(ImageError::SchemaVersion(shape.schema_version));
        }
        let media_type = kind.to_owned();
        if media_type::is_index(kind) {
            Ok(Self::Index(Index {
                media_type,
                ..json::parse(bytes)?
            }))
        } else if media_type::is_manifest(kind) {
            Ok(Self::Manifest(Manifest {
                media_type,
                ..Manifest::parse(bytes)?
            }))
        } else {
            Err(ImageError::UnknownDocument(media_type))
        }
    }

    /// What the document is, by its own word or the registry's.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Index(index) => &index.media_type,
            Self::Manifest(manifest) => &manifest.media_type,
        }
    }
}

/// Only what tells one kind of document from another.
#[derive(serde::Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(config_type: &str, layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{config_type}",
            "digest":"{DIGEST}","size":2}},"layers":[{layer}]}}"#,
            media_type::OCI_MANIFEST
        )
    }

    fn layer(kind: &str, rest: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{DIGEST}","size":0{rest}}}"#)
    }

    #[test]
    fn a_good_manifest_is_read() {
        let kind = "application/vnd.oci.image.layer.v1.tar+zstd";
        let text = manifest(media_type::OCI_CONFIG, &layer(kind, ""));
        let header = format!("{}; charset=utf-8", media_type::OCI_MANIFEST);
        for header in [None, Some(header.as_str())] {
            let Document::Manifest(read) = Document::parse(text.as_bytes(), header).unwrap() else {
                panic!("read as an index");
            };
            assert_eq!(read.layers.len(), 1);
        }
    }

    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    #[test]
    fn whatever_could_be_two_things_is_refused() {
        let good = manifest(media_type::OCI_CONFIG, &layer(GZIP, ""));
        // what is replaced by what, the Content-Type, and what is said of it
        let html = Some("text/html");
        let both = "\"manifests\":[],\"layers\"";
        let cases = [
            ("", "", Some(media_type::OCI_INDEX), "Content-Type"),
            ("", "", html, "Content-Type"),
            (good.as_str(), r#"{"schemaVersion":2}"#, html, "text/html"),
            ("\"layers\"", both, None, "both"),
            (
                "\"layers\"",
                "\"x\":1,\"x\":2,\"layers\"",
                None,
                "\"x\" stands twice",
            ),
            (
                "\"size\":2",
                "\"size\":2,\"a\":{\"b\":1,\"b\":1}",
                None,
                "twice",
            ),
            ("\"size\":2", "\"size\":-2", None, "config.size"),
            ("\"schemaVersion\":2,", "", None, "schemaVersion"),
            (
                good.as_str(),
                r#"{"schemaVersion":1,"fsLayers":[]}"#,
                None,
                "schema 1",
            ),
            (good.as_str(), "{", None, "JSON"),
            (good.as_str(), "{} {}", None, "JSON"),
        ];
        for (from, to, header, expected) in cases {
            expect_error(&good.replacen(from, to, 1), header, expected);
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_refused_by_name() {
        let cases = [
            (
                "application/vnd.oci.empty.v1+json",
                GZIP,
                "",
                "not an image",
            ),
            (media_type::OCI_CONFIG, "text/plain", "", "text/plain"),
            (
                media_type::OCI_CONFIG,
                &format!("{GZIP}+encrypted"),
                "",
                "encrypted",
            ),
            (media_type::OCI_CONFIG, GZIP, r#","data":"AAAA""#, "data"),
        ];
        for (config, kind, rest, expected) in cases {
            expect_error(&manifest(config, &layer(kind, rest)), None, expected);
        }
    }

    #[test]
    fn foreign_layers_are_refused_where_they_are_not_allowed() {
        let urls = r#","urls":["https://a.b/c"]"#;
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        for (kind, rest, refused) in [
            (GZIP, "", None),
            (GZIP, urls, Some("https://a.b/c")),
            (foreign, "", Some("is foreign,")),
        ] {
            let text = manifest(media_type::OCI_CONFIG, &layer(kind, rest));
            let manifest = Manifest::parse(text.as_bytes()).unwrap();
            let error = manifest.refuse_foreign_layers().err();
            let said = error.map(|error| error.to_string());
            match (said, refused) {
                (None, None) => {}
                (Some(said), Some(words)) => assert!(said.contains(words), "{said}"),
                (said, _) => panic!("{kind} {rest}: {said:?}"),
            }
        }
    }

    fn expect_error(text: &str, header: Option<&str>, expected: &str) {
        let error = Document::parse(text.as_bytes(), header).unwrap_err();
        let text = error::chain_text(&error);
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}
