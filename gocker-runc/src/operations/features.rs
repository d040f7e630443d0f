//! `features`: what this program serves, and nothing that it does not.
//!
//! Spec: features.md, features-linux.md

use std::path::Path;

use serde_json::{Value, json};

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
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property."],
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
            "memoryPolicy": { "modes": memory_policy::MODES, "flags": memory_policy::FLAGS },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
    })
}
