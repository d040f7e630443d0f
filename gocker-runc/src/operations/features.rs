//! `features`: what this program serves, and nothing that it does not.
//!
//! Spec: features.md, features-linux.md

use std::path::Path;

use serde_json::{Value, json};

use super::images;
use crate::cgroups::systemd;
use crate::rootfs::mount_options;
use crate::{capabilities, memory_policy, namespaces, seccomp};

/// The features document.
pub(crate) fn document() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ],
        "mountOptions": mount_options::known_words(),
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": [images::CONFIG_FILE_ANNOTATION, systemd::ANNOTATION],
        "linux": {
            "namespaces": namespaces::known(Path::new("/proc/self/ns")),
            "capabilities": capabilities::known_names(),
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": true,
                "systemdUser": true,
                "rdma": true,
            },
            "seccomp": seccomp::features(),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "memoryPolicy": { "modes": memory_policy::known_modes(), "flags": memory_policy::known_flags() },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{
        LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, MemoryPolicyFlagType,
        MemoryPolicyModeType,
    };
    use serde::de::DeserializeOwned;

    /// The words that config.json may have where a `T` is read: the refusal of another names them.
    fn accepted<T: DeserializeOwned>() -> Vec<String> {
        let refusal = serde_json::from_str::<T>("\"?\"").err().expect("refused");
        let refusal = refusal.to_string();
        let words = refusal.split('`').skip(3).step_by(2).map(str::to_owned);
        sorted(words.collect())
    }

    fn sorted(mut words: Vec<String>) -> Vec<String> {
        words.sort_unstable();
        words
    }

    #[test]
    fn what_config_json_may_say_is_what_features_tells() {
        let document = document();
        for (place, accepted) in [
            ("/linux/seccomp/actions", accepted::<LinuxSeccompAction>()),
            (
                "/linux/seccomp/operators",
                accepted::<LinuxSeccompOperator>(),
            ),
            (
                "/linux/seccomp/knownFlags",
                accepted::<LinuxSeccompFilterFlag>(),
            ),
            (
                "/linux/memoryPolicy/modes",
                accepted::<MemoryPolicyModeType>(),
            ),
            (
                "/linux/memoryPolicy/flags",
                accepted::<MemoryPolicyFlagType>(),
            ),
        ] {
            let told = document.pointer(place).expect(place);
            let told: Vec<String> = serde_json::from_value(told.clone()).expect("a list");
            assert_eq!(sorted(told), accepted, "{place}");
        }
    }
}
