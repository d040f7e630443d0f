//! Why a document is refused.

use crate::digest::Digest;

/// Why a document is not an image that can be pulled.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text is not JSON.
    #[error("the document is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// A value has the wrong type or is missing.
    #[error("{path}")]
    Field {
        /// Where, as `layers[0].digest`.
        path: String,
        /// What is wrong there.
        source: serde_json::Error,
    },
    /// It can be read as an index and as a manifest.
    #[error("the document has both manifests and layers, so it is neither an index nor a manifest")]
    Ambiguous,
    /// The registry and the document disagree.
    #[error("the document's mediaType is {field:?}, but its Content-Type is {header:?}")]
    MediaTypeMismatch {
        /// What the document says.
        field: String,
        /// What the registry or the descriptor says.
        header: String,
    },
    /// The old manifest format.
    #[error(
        "the image has only a Docker schema 1 manifest, which cannot be verified; push it anew with a current tool"
    )]
    Schema1,
    /// Neither 1 nor 2.
    #[error("schemaVersion: must be 2{}", .0.map(|version| format!(", not {version}")).unwrap_or_default())]
    SchemaVersion(Option<u64>),
    /// The document is of no kind that an image has.
    #[error("the media type {0:?} is neither an image index nor an image manifest")]
    UnknownDocument(String),
    /// A manifest, but not of an image.
    #[error("this is an artifact, not an image: its config has the media type {0:?}")]
    Artifact(String),
    /// The layer's content lies elsewhere, and the user has not allowed that.
    #[error(
        "layers[{index}]: the layer {digest} is foreign{}, and is not fetched (pull --allow-foreign-layers does)",
        lying_at(urls)
    )]
    ForeignLayer {
        /// Its place in the manifest.
        index: usize,
        /// Its digest.
        digest: Digest,
        /// The addresses that it names.
        urls: Vec<String>,
    },
    /// The layer is no tar, or it is encrypted.
    #[error("layers[{index}].mediaType: {media_type:?} is no layer format that is served")]
    UnknownLayer {
        /// Its place in the manifest.
        index: usize,
        /// What it says it is.
        media_type: String,
    },
    /// The embedded data is not what the descriptor says.
    #[error("data: is not the base64 of {size} bytes with the digest {digest}")]
    EmbeddedData {
        /// The descriptor's digest.
        digest: Digest,
        /// The descriptor's size.
        size: u64,
    },
    /// The root file system is not made of layers.
    #[error("rootfs.type: must be \"layers\", not {0:?}")]
    RootfsType(String),
    /// Manifest and config disagree.
    #[error("the manifest has {layers} layers, but its config has {diff_ids} diff_ids")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// Diff IDs in the config.
        diff_ids: usize,
    },
    /// No manifest of the index fits.
    #[error("no image for the platform {wanted}; there is {available}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What the index offers, with commas between.
        available: String,
    },
    /// The config is of another platform than was asked for.
    #[error("the image was asked for {wanted}, but its config says {actual}")]
    WrongPlatform {
        /// What was asked for.
        wanted: String,
        /// What the config says.
        actual: String,
    },
    /// The config is of another operating system than Linux.
    #[error("os: only linux images can be unpacked, not {0:?}")]
    NotLinux(String),
}

fn lying_at(urls: &[String]) -> String {
    (urls.first())
        .map(|url| format!(": it lies at {url:?}"))
        .unwrap_or_default()
}

/// The error and all its causes in one line.
#[cfg(test)]
pub(super) fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
