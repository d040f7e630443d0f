//! The media types of OCI's and Docker's images.
//!
//! Spec: image-spec media-types.md

/// OCI's index of manifests.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's list of manifests.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The layer formats that are served, OCI's and Docker's. What the bytes are
/// compressed by is read from the bytes.
const LAYERS: [&str; 11] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// OCI's type of a layer that is compressed as `suffix` says.
#[must_use]
pub fn layer_media_type(suffix: &str) -> String {
    format!("application/vnd.oci.image.layer.v1.tar{suffix}")
}

/// OCI's type of a layer that has the type `name`, which may be Docker's.
#[must_use]
pub fn oci_layer(name: &str) -> String {
    let kinds = [
        ("application/vnd.docker.image.rootfs.diff.tar", ""),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
            "nondistributable.",
        ),
    ];
    for (docker, kind) in kinds {
        if let Some(compression) = name.strip_prefix(docker) {
            let suffix = compression.replacen('.', "+", 1);
            return format!("application/vnd.oci.image.layer.{kind}v1.tar{suffix}");
        }
    }
    name.to_owned()
}

/// The kinds of document that a request for a manifest accepts, for `Accept`.
#[must_use]
pub fn accepted_documents() -> String {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ")
}

/// The type without its parameters, in lower case.
#[must_use]
pub fn essence(content_type: &str) -> String {
    let (name, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    name.trim().to_ascii_lowercase()
}

/// Whether it names an index or a manifest list.
#[must_use]
pub fn is_index(name: &str) -> bool {
    matches!(name, OCI_INDEX | DOCKER_LIST)
}

/// Whether it names an image manifest.
#[must_use]
pub fn is_manifest(name: &str) -> bool {
    matches!(name, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether it names an image config.
#[must_use]
pub fn is_config(name: &str) -> bool {
    matches!(name, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether it names a layer that can be unpacked.
#[must_use]
pub fn is_layer(name: &str) -> bool {
    LAYERS.contains(&name)
}

/// Whether it names a layer that its maker does not let registries hand on.
#[must_use]
pub fn is_foreign_layer(name: &str) -> bool {
    oci_layer(name).starts_with("application/vnd.oci.image.layer.nondistributable.")
}

/// Whether it names Docker's schema 1, signed or not.
#[must_use]
pub fn is_schema_1(name: &str) -> bool {
    matches!(
        name,
        "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_of_dockers_has_a_type_of_ocis() {
        for name in LAYERS {
            let oci = oci_layer(name);
            assert!(
                is_layer(&oci) && oci.starts_with("application/vnd.oci."),
                "{oci}"
            );
            assert_eq!(oci_layer(&oci), oci);
            let is_foreign = name.contains("foreign") || name.contains("nondistributable");
            assert_eq!(is_foreign_layer(name), is_foreign, "{name}");
        }
    }
}
