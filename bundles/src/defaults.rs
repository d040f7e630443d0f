//! The configuration that a container gets when nobody asks for anything else:
//! what `gocker-runc spec` prints and what images are laid over.

use oci_spec::runtime::{
    LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, Spec,
};

/// The default configuration as JSON text.
const SPEC_JSON: &str = include_str!("defaults.json");

/// The default configuration: a shell on a terminal in namespaces of its own.
///
/// # Panics
/// Never: the text is part of the program, and a unit test reads it.
pub fn spec() -> Spec {
    #[expect(clippy::expect_used, reason = "a constant, which a unit test reads")]
    serde_json::from_str(SPEC_JSON).expect("the default config.json is valid")
}

/// The default configuration for a user who is not root: a user namespace in which
/// `uid` and `gid` are root, no network namespace's `/sys`, and no resource limits.
///
/// Spec: config-linux.md#user-namespace-mappings
pub fn rootless_spec(uid: u32, gid: u32) -> Spec {
    let mut spec = spec();
    let mounts = spec
        .mounts()
        .iter()
        .flatten()
        .cloned()
        .map(rootless_mount)
        .collect();
    spec.set_mounts(Some(mounts));
    if let Some(linux) = spec.linux_mut() {
        let namespaces = linux
            .namespaces()
            .iter()
            .flatten()
            .filter(|namespace| namespace.typ() != LinuxNamespaceType::Network)
            .cloned()
            .chain(
                LinuxNamespaceBuilder::default()
                    .typ(LinuxNamespaceType::User)
                    .build()
                    .ok(),
            )
            .collect();
        linux.set_namespaces(Some(namespaces));
        let map = |id: u32| {
            LinuxIdMappingBuilder::default()
                .host_id(id)
                .container_id(0u32)
                .size(1u32)
                .build()
                .ok()
        };
        linux.set_uid_mappings(map(uid).map(|mapping| vec![mapping]));
        linux.set_gid_mappings(map(gid).map(|mapping| vec![mapping]));
        linux.set_resources(None);
    }
    spec
}

/// What `mount` becomes without privileges outside the user namespace: sysfs belongs to
/// the host's network namespace, so the host's is bound; group 5 is not mapped.
fn rootless_mount(mut mount: Mount) -> Mount {
    match mount.typ().as_deref() {
        Some("sysfs") => {
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
                .map(String::from)
                .to_vec();
            MountBuilder::default()
                .destination(mount.destination().clone())
                .typ("none")
                .source("/sys")
                .options(options)
                .build()
                .unwrap_or(mount)
        }
        Some("devpts") => {
            let kept = mount
                .options()
                .iter()
                .flatten()
                .filter(|option| *option != "gid=5");
            let kept = kept.cloned().collect();
            mount.set_options(Some(kept));
            mount
        }
        _ => mount,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_spec_is_read() {
        let spec = spec();
        assert_eq!(spec.version(), "1.3.0");
        assert_eq!(spec.mounts().as_ref().map(Vec::len), Some(7));
    }

    #[test]
    fn rootless_spec_maps_the_user_and_shares_the_network() {
        let spec = rootless_spec(1000, 1001);
        let linux = spec.linux().as_ref().expect("has a linux section");
        let kinds: Vec<_> = linux
            .namespaces()
            .iter()
            .flatten()
            .map(|namespace| namespace.typ())
            .collect();
        assert!(kinds.contains(&LinuxNamespaceType::User));
        assert!(!kinds.contains(&LinuxNamespaceType::Network));
        assert_eq!(
            linux.gid_mappings().as_ref().map(|maps| maps[0].host_id()),
            Some(1001)
        );
        let text = serde_json::to_string(&spec).expect("serializes");
        assert!(!text.contains("gid=5"), "{text}");
    }
}
