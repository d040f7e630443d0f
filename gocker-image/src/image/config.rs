//! The image config: what to run, and the diff IDs of the layers.
//!
//! Spec: image-spec config.md

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json::{self, null_as_default};
use super::{ImageError, Platform, PlatformChoice};
use crate::digest::Digest;

/// An image config, OCI's or Docker's.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, as RFC 3339.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// The operating system: `linux`.
    pub os: String,
    /// The architecture in Go's names.
    pub architecture: String,
    /// The architecture's variant.
    pub variant: Option<String>,
    /// The operating system's version.
    #[serde(rename = "os.version")]
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    #[serde(rename = "os.features", default, deserialize_with = "null_as_default")]
    pub os_features: Vec<String>,
    /// What to run.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ContainerConfig,
    /// What the layers unpack to.
    pub rootfs: RootFs,
    /// How each layer was made, with entries for steps that made none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub history: Vec<History>,
}

/// The execution parameters of an image.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// User and group, by number or by name: `user[:group]`.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    /// Ports, as `80/tcp`, in the order of their names.
    #[serde(deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    /// `NAME=value` each.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The first part of the arguments.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// The rest of the arguments, which a user replaces.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Directories that hold data of one container.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, serde::de::IgnoredAny>,
    /// The working directory.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Arbitrary metadata.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the container to end, as `SIGTERM`.
    pub stop_signal: Option<String>,
}

/// The layers' digests before compression.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each layer's tar, the lowest first.
    #[serde(deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of making the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, as RFC 3339.
    pub created: Option<String>,
    /// The command of the step.
    pub created_by: Option<String>,
    /// What its maker says of it.
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(deserialize_with = "null_as_default")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a config whose bytes were verified already.
    ///
    /// # Errors
    /// If it is not strictly a config of an image that is made of layers.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let config: Self = json::parse(bytes)?;
        if config.rootfs.kind != "layers" {
            return Err(ImageError::RootfsType(config.rootfs.kind));
        }
        Ok(config)
    }

    /// The platform that the config itself names.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }

    /// Checks the platform that the config names against the one that was
    /// asked for. Another platform than the host's passes unless the user named
    /// one; see [`ImageConfig::is_foreign`].
    ///
    /// # Errors
    /// If it is not Linux, or not what the user named.
    pub fn check_platform(&self, choice: &PlatformChoice) -> Result<(), ImageError> {
        let actual = self.platform();
        if actual.os != "linux" {
            return Err(ImageError::NotLinux(self.os.clone()));
        }
        match choice {
            PlatformChoice::Exactly(wanted) if wanted.rank(&actual).is_none() => {
                let (wanted, actual) = (wanted.to_string(), actual.to_string());
                Err(ImageError::WrongPlatform { wanted, actual })
            }
            _ => Ok(()),
        }
    }

    /// Whether this host's processor is not the one that the image is for.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.platform().is_foreign()
    }

    /// The ChainIDs of the layers, the lowest first.
    #[must_use]
    pub fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.rootfs.diff_ids)
    }
}

/// The ChainID of each layer: the digest of it on top of all below.
///
/// Spec: image-spec config.md#layer-chainid
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn config(rest: &str) -> String {
        format!(
            r#"{{"os":"linux","architecture":"s390x","rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}}{rest}}}"#
        )
    }

    #[test]
    fn nulls_of_docker_are_absent_values() {
        let text = config(
            r#","config":{"Env":null,"Cmd":["a"],"Entrypoint":null,"Labels":null,"Volumes":{"/v":{}},"OnBuild":null},"history":null"#,
        );
        let read = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(read.config.cmd, ["a"]);
        assert!(read.config.env.is_empty());
        assert!(read.config.volumes.contains_key("/v"));
        assert!(read.is_foreign());
        let null = ImageConfig::parse(config(r#","config":null"#).as_bytes()).unwrap();
        assert_eq!(null.config, ContainerConfig::default());
    }

    #[test]
    fn a_wrong_config_is_refused() {
        let cases = [
            config("").replace("layers", "snapshots"),
            config("").replace("sha256:e", "sha256:E"),
            config("").replace("\"os\":\"linux\",", ""),
            config(r#","config":{"Env":"A=b"}"#),
            config(r#","os":"linux""#),
        ];
        for text in cases {
            assert!(
                ImageConfig::parse(text.as_bytes()).is_err(),
                "{text} parsed"
            );
        }
    }

    #[test]
    fn the_platform_must_be_the_one_asked_for() {
        let config = ImageConfig::parse(config("").as_bytes()).unwrap();
        let host = PlatformChoice::Host("linux/amd64".parse().unwrap());
        let other = PlatformChoice::Exactly("linux/amd64".parse().unwrap());
        let same = PlatformChoice::Exactly("linux/s390x".parse().unwrap());
        assert!(config.check_platform(&host).is_ok());
        assert!(config.check_platform(&same).is_ok());
        assert!(config.check_platform(&other).is_err());
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        let ids = chain_ids(&[a.clone(), b.clone(), c.clone()]);
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        let abc = Digest::of(format!("{ab} {c}").as_bytes());
        assert_eq!(ids, [a, ab, abc]);
        assert!(chain_ids(&[]).is_empty());
    }
}
