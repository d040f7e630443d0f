//! What an image says of itself, as annotations of a runtime config.
//!
//! Spec: image-spec conversion.md#annotation-fields

use std::collections::HashMap;

use crate::image::ImageConfig;

/// Labels that runtimes and engines obey: an image does not steer them.
const OBEYED_LABELS: [&str; 6] = [
    "run.oci.",
    "org.systemd.",
    "org.criu.",
    "io.kubernetes.",
    "io.containerd.",
    "containerd.io/",
];
/// What the image says of itself; its labels win, except for those that would
/// steer a runtime.
pub(super) fn annotations(
    config: &ImageConfig,
    warn: &mut dyn FnMut(String),
) -> HashMap<String, String> {
    let image = &config.config;
    let ports: Vec<&str> = image.exposed_ports.keys().map(String::as_str).collect();
    let facts = [
        ("os", config.os.clone()),
        ("architecture", config.architecture.clone()),
        ("variant", config.variant.clone().unwrap_or_default()),
        ("os.version", config.os_version.clone().unwrap_or_default()),
        ("os.features", config.os_features.join(",")),
        ("author", config.author.clone().unwrap_or_default()),
        ("created", config.created.clone().unwrap_or_default()),
        ("stopSignal", image.stop_signal.clone().unwrap_or_default()),
        ("exposedPorts", ports.join(",")),
    ];
    let mut annotations = HashMap::new();
    for (name, value) in facts {
        if !value.is_empty() {
            annotations.insert(format!("org.opencontainers.image.{name}"), value);
        }
    }
    for (name, value) in &image.labels {
        if OBEYED_LABELS.iter().any(|prefix| name.starts_with(prefix)) {
            warn(format!(
                "the image's label {name:?} is dropped: it would steer the runtime"
            ));
        } else if name.is_empty() {
            warn("a label without a name is dropped".to_owned());
        } else {
            annotations.insert(name.clone(), value.clone());
        }
    }
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_annotations_unless_they_steer() {
        let config = ImageConfig::parse(
            br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]},
                "config":{"StopSignal":"SIGQUIT","ExposedPorts":{"80/tcp":{},"1/udp":{}},
                "Labels":{"a":"b","run.oci.keep":"1","org.opencontainers.image.os":"mine"}}}"#,
        )
        .unwrap();
        let mut warnings = Vec::new();
        let annotations = annotations(&config, &mut |text| warnings.push(text));
        let get = |name: &str| annotations.get(name).map(String::as_str);
        assert_eq!(get("a"), Some("b"));
        assert_eq!(get("org.opencontainers.image.os"), Some("mine"));
        assert_eq!(get("org.opencontainers.image.stopSignal"), Some("SIGQUIT"));
        assert_eq!(
            get("org.opencontainers.image.exposedPorts"),
            Some("1/udp,80/tcp")
        );
        assert_eq!(get("run.oci.keep"), None);
        assert_eq!(warnings.len(), 1);
    }
}
