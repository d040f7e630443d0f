//! `mounts`: what is mounted into the container beyond its root.
//!
//! Spec: config.md#mounts

use std::path::PathBuf;

use oci_spec::runtime::Mount as SpecMount;

use super::linux::id_mappings::{self, IdMapping};
use super::no_nul;
use crate::validate::FieldError;

/// One mount.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where, inside the container; absolute.
    pub destination: PathBuf,
    /// The filesystem type; empty where none is given.
    pub kind: String,
    /// The device, directory or file; a label for virtual filesystems.
    pub source: Option<PathBuf>,
    /// The options, as given.
    pub options: Vec<String>,
    /// For an id-mapped mount: a file's user in the source (`container_id`), and the user that
    /// it shows (`host_id`).
    pub uid_mappings: Vec<IdMapping>,
    /// The same for groups; empty exactly where `uid_mappings` is.
    pub gid_mappings: Vec<IdMapping>,
}

impl Mount {
    /// Whether the mount binds what is there already, rather than making a filesystem.
    pub fn is_bind(&self) -> bool {
        self.kind == "bind" || self.options.iter().any(|o| o == "bind" || o == "rbind")
    }
}

/// Resolves the `mounts` section.
///
/// # Errors
/// The mount that has no destination, no type, or text that no system call can carry.
pub(super) fn from_spec(mounts: &[SpecMount]) -> Result<Vec<Mount>, FieldError> {
    mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| resolve(index, mount))
        .collect()
}

fn resolve(index: usize, mount: &SpecMount) -> Result<Mount, FieldError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let destination = mount.destination();
    if destination.as_os_str().is_empty() {
        return Err(FieldError::new(field("destination"), "is missing"));
    }
    no_nul(|| field("destination"), &destination.to_string_lossy())?;
    if let Some(source) = mount.source() {
        no_nul(|| field("source"), &source.to_string_lossy())?;
    }
    let options = mount.options().clone().unwrap_or_default();
    for (at, option) in options.iter().enumerate() {
        no_nul(|| format!("mounts[{index}].options[{at}]"), option)?;
    }
    let mount = Mount {
        // runtime-spec 1.2 and later allow a relative destination: it is taken from "/".
        destination: PathBuf::from("/").join(destination),
        kind: mount.typ().clone().unwrap_or_default(),
        source: mount.source().clone(),
        options,
        uid_mappings: id_mappings::from_spec(
            &field("uidMappings"),
            mount.uid_mappings().as_deref(),
        )?,
        gid_mappings: id_mappings::from_spec(
            &field("gidMappings"),
            mount.gid_mappings().as_deref(),
        )?,
    };
    check_mappings(&mount, field)?;
    if mount.kind.is_empty() && !mount.is_bind() && !is_remount(&mount) {
        return Err(FieldError::new(
            field("type"),
            "is missing, and no option says bind or rbind",
        ));
    }
    if mount.is_bind()
        && !is_remount(&mount)
        && mount
            .source
            .as_ref()
            .is_none_or(|source| source.as_os_str().is_empty())
    {
        return Err(FieldError::new(
            field("source"),
            "is missing, and a bind mount needs one",
        ));
    }
    Ok(mount)
}

/// Both maps or none, and only where there is a tree that they can apply to.
fn check_mappings(mount: &Mount, field: impl Fn(&str) -> String) -> Result<(), FieldError> {
    let (given, missing) = match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
        (true, true) => return Ok(()),
        (false, false) if mount.is_bind() => return Ok(()),
        (false, false) => {
            let problem = "is for a bind mount";
            return Err(FieldError::new(field("uidMappings"), problem));
        }
        (false, true) => ("uidMappings", "gidMappings"),
        (true, false) => ("gidMappings", "uidMappings"),
    };
    let problem = format!("is missing, and {given} is given");
    Err(FieldError::new(field(missing), problem))
}

fn is_remount(mount: &Mount) -> bool {
    mount.options.iter().any(|option| option == "remount")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_mounts_are_named() {
        let cases = [
            (
                r#"[{"destination":""}]"#,
                "mounts[0].destination: is missing",
            ),
            (
                r#"[{"destination":"/a","type":"tmpfs"},{"destination":"/x"}]"#,
                "mounts[1].type: ",
            ),
            (
                r#"[{"destination":"/x","type":"bind"}]"#,
                "mounts[0].source: ",
            ),
            (
                r#"[{"destination":"/x","type":"bind","source":"/","uidMappings":[{"containerID":0,"hostID":0,"size":1}]}]"#,
                "mounts[0].gidMappings: is missing",
            ),
            (
                r#"[{"destination":"/x","type":"bind","source":"/","uidMappings":[{"containerID":0,"hostID":0,"size":0}]}]"#,
                "mounts[0].uidMappings[0]: size is 0",
            ),
            (
                r#"[{"destination":"/x","type":"tmpfs",
                    "uidMappings":[{"containerID":0,"hostID":0,"size":1}],
                    "gidMappings":[{"containerID":0,"hostID":0,"size":1}]}]"#,
                "mounts[0].uidMappings: is for a bind mount",
            ),
        ];
        for (text, expected) in cases {
            let mounts: Vec<SpecMount> = serde_json::from_str(text).expect(text);
            let error = from_spec(&mounts).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_relative_destination_is_below_the_root() {
        let mounts: Vec<SpecMount> =
            serde_json::from_str(r#"[{"destination":"a/b","type":"tmpfs"}]"#).expect("JSON");
        let mounts = from_spec(&mounts).expect("resolves");
        assert_eq!(mounts[0].destination, PathBuf::from("/a/b"));
    }
}
