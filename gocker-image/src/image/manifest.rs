//! One image: its config and its layers.
//!
//! Spec: image-spec manifest.md

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Descriptor, ImageConfig, ImageError, json, media_type};

/// An image manifest, OCI's or Docker's schema 2.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// OCI's or Docker's.
    #[serde(default = "oci_manifest")]
    pub media_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The layers, the lowest first.
    #[serde(deserialize_with = "json::null_as_default")]
    pub layers: Vec<Descriptor>,
    /// Arbitrary metadata.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// What an artifact is. None in an image.
    pub artifact_type: Option<String>,
}

fn oci_manifest() -> String {
    media_type::OCI_MANIFEST.to_owned()
}

impl Manifest {
    /// Reads a manifest whose bytes were verified already.
    ///
    /// # Errors
    /// If it is not the manifest of an image all of whose layers can be unpacked.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let manifest: Self = json::parse(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads a manifest that need not be one of an image, such as that of an image's signatures.
    ///
    /// # Errors
    /// If it is not a manifest.
    pub fn of_any_kind(bytes: &[u8]) -> Result<Self, ImageError> {
        json::parse(bytes)
    }

    /// The bytes of all layers together, as they are transferred.
    #[must_use]
    pub fn transfer_bytes(&self) -> u64 {
        self.layers
            .iter()
            .fold(0, |sum, layer| sum.saturating_add(layer.size))
    }

    /// Checks that `config` speaks of as many layers.
    ///
    /// # Errors
    /// If it does not.
    pub fn check_config(&self, config: &ImageConfig) -> Result<(), ImageError> {
        let (layers, diff_ids) = (self.layers.len(), config.rootfs.diff_ids.len());
        if layers == diff_ids {
            Ok(())
        } else {
            Err(ImageError::LayerCount { layers, diff_ids })
        }
    }

    /// Checks that all layers are the registry's own.
    ///
    /// # Errors
    /// If one is foreign.
    pub fn refuse_foreign_layers(&self) -> Result<(), ImageError> {
        let mut layers = self.layers.iter().enumerate();
        match layers.find(|(_, layer)| layer.is_foreign()) {
            None => Ok(()),
            Some((index, layer)) => Err(ImageError::ForeignLayer {
                index,
                digest: layer.digest.clone(),
                urls: layer.urls.clone(),
            }),
        }
    }

    fn check(&self) -> Result<(), ImageError> {
        if !media_type::is_config(&self.config.media_type) {
            let kind = self
                .artifact_type
                .as_ref()
                .unwrap_or(&self.config.media_type);
            return Err(ImageError::Artifact(kind.clone()));
        }
        self.config.embedded()?;
        for (index, layer) in self.layers.iter().enumerate() {
            if !media_type::is_layer(&layer.media_type) {
                let media_type = layer.media_type.clone();
                return Err(ImageError::UnknownLayer { index, media_type });
            }
            layer.embedded()?;
        }
        Ok(())
    }
}
