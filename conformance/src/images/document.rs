//! Image-spec's documents: config, manifest and index, in OCI's and in
//! Docker's words.
//!
//! Spec: image-spec manifest.md, config.md, image-index.md.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Media types that the documents here are made of.
pub mod media_types {
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer; `+gzip` or `+zstd` follows where it is compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, always gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// One gzip member.
    Gzip,
    /// Several gzip members, one after another.
    GzipMembers,
    /// zstd.
    Zstd,
}

impl Compression {
    fn apply(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => tar.to_vec(),
            Self::Gzip => gzip(tar),
            Self::GzipMembers => tar.chunks((tar.len() / 3).max(1)).flat_map(gzip).collect(),
            Self::Zstd => {
                zstd::encode_all(tar, 3).expect("compressing memory to memory cannot fail")
            }
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip | Self::GzipMembers => "+gzip",
            Self::Zstd => "+zstd",
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("a vector takes all bytes");
    encoder.finish().expect("a vector takes all bytes")
}

/// Whose media types the documents carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Documents {
    /// OCI's.
    Oci,
    /// Docker's, schema 2.
    Docker,
}

/// The digest of bytes, `sha256:hex`.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".into(), |text: String, byte| {
            text + &format!("{byte:02x}")
        })
}

/// Content with the name that registries know it by.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The media type in descriptors of this blob.
    pub media_type: String,
    /// `sha256:hex` of the bytes.
    pub digest: String,
    /// The bytes.
    pub bytes: Arc<[u8]>,
}

impl Blob {
    /// Bytes under their right digest.
    #[must_use]
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            media_type: media_type.into(),
            digest: digest_of(&bytes),
            bytes: bytes.into(),
        }
    }

    /// The blob's descriptor.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image: a manifest and the blobs that it names.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest.
    pub manifest: Blob,
    /// The config.
    pub config: Blob,
    /// The layers as they are sent, bottom first.
    pub layers: Vec<Blob>,
    platform: Value,
}

impl Image {
    /// All that a registry must hold besides the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// The same image under a manifest changed by `change`, digest and all.
    #[must_use]
    pub fn with_manifest(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut document = serde_json::from_slice(&self.manifest.bytes).expect("made by json!");
        change(&mut document);
        self.manifest = Blob::new(&self.manifest.media_type, document.to_string().into_bytes());
        self
    }

    /// The same image with these bytes for its manifest.
    #[must_use]
    pub fn with_manifest_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.manifest = Blob::new(&self.manifest.media_type, bytes);
        self
    }
}

/// An image in the making.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    documents: Documents,
    platform: Value,
    config: Value,
    layers: Vec<(Blob, String)>,
    top_level: Value,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    /// An OCI image for linux/amd64 that runs `/bin/sh`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            documents: Documents::Oci,
            platform: json!({"os": "linux", "architecture": "amd64"}),
            config: json!({
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["/bin/sh"],
            }),
            layers: Vec::new(),
            top_level: json!({"created": "2025-01-01T00:00:00Z", "author": "conformance"}),
        }
    }

    /// In Docker's words instead of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.documents = Documents::Docker;
        self
    }

    /// For another architecture, with its variant if it has one.
    #[must_use]
    pub fn architecture(mut self, architecture: &str, variant: Option<&str>) -> Self {
        self.platform["architecture"] = architecture.into();
        if let Some(variant) = variant {
            self.platform["variant"] = variant.into();
        }
        self
    }

    /// With this `config` object (Env, Cmd, User and so on) in place of the usual one.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// With a field of the config document, beside `config` and `rootfs`.
    #[must_use]
    pub fn top_level(mut self, name: &str, value: Value) -> Self {
        self.top_level[name] = value;
        self
    }

    /// With one more gzip layer on top.
    #[must_use]
    pub fn layer(self, tar: &[u8]) -> Self {
        self.layer_in(Compression::Gzip, tar)
    }

    /// With one more layer on top, compressed so.
    #[must_use]
    pub fn layer_in(self, compression: Compression, tar: &[u8]) -> Self {
        let diff_id = digest_of(tar);
        self.layer_of(compression, compression.apply(tar), diff_id)
    }

    /// With a layer whose sent bytes and DiffID are given, right or wrong.
    #[must_use]
    pub fn layer_of(mut self, compression: Compression, sent: Vec<u8>, diff_id: String) -> Self {
        let media_type = match self.documents {
            Documents::Oci => format!("{}{}", media_types::LAYER, compression.suffix()),
            Documents::Docker => media_types::DOCKER_LAYER.into(),
        };
        self.layers.push((Blob::new(&media_type, sent), diff_id));
        self
    }

    /// The finished image.
    #[must_use]
    pub fn build(self) -> Image {
        let (manifest_type, config_type) = match self.documents {
            Documents::Oci => (media_types::MANIFEST, media_types::CONFIG),
            Documents::Docker => (media_types::DOCKER_MANIFEST, media_types::DOCKER_CONFIG),
        };
        let diff_ids: Vec<&String> = self.layers.iter().map(|(_, diff_id)| diff_id).collect();
        let mut config = self.top_level;
        for (key, value) in self.platform.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config["config"] = self.config;
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let config = Blob::new(config_type, config.to_string().into_bytes());
        let layers: Vec<Blob> = self.layers.into_iter().map(|(blob, _)| blob).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(manifest_type, manifest.to_string().into_bytes());
        Image {
            manifest,
            config,
            layers,
            platform: self.platform,
        }
    }
}

/// Images for several platforms under one name.
#[derive(Debug, Clone)]
pub struct Index {
    /// The index document.
    pub document: Blob,
    /// The images that it names.
    pub images: Vec<Image>,
}

impl Index {
    /// An index of images, in their order.
    #[must_use]
    pub fn of(documents: Documents, images: Vec<Image>) -> Self {
        let media_type = match documents {
            Documents::Oci => media_types::INDEX,
            Documents::Docker => media_types::DOCKER_LIST,
        };
        let rows: Vec<Value> = images
            .iter()
            .map(|image| {
                let mut row = image.manifest.descriptor();
                row["platform"] = image.platform.clone();
                row
            })
            .collect();
        let document = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": rows});
        Self {
            document: Blob::new(media_type, document.to_string().into_bytes()),
            images,
        }
    }

    /// The same images under an index changed by `change`.
    #[must_use]
    pub fn with_document(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut document = serde_json::from_slice(&self.document.bytes).expect("made by json!");
        change(&mut document);
        self.document = Blob::new(&self.document.media_type, document.to_string().into_bytes());
        self
    }
}
