//! `linux`: namespaces, id mappings, devices, resources and what else Linux alone has.
//!
//! Spec: config-linux.md

pub mod devices;
pub mod id_mappings;
pub mod namespaces;
pub mod net_devices;
pub mod resources;
pub mod seccomp;
pub mod time_offsets;

use std::collections::BTreeMap;

use oci_spec::runtime::{Linux as SpecLinux, LinuxPersonality, LinuxPersonalityDomain};

use super::no_nul;
use crate::validate::FieldError;
use devices::Device;
use id_mappings::IdMapping;
use namespaces::{Kind, Namespaces};
use net_devices::NetDevice;
use resources::Resources;
use seccomp::Seccomp;
use time_offsets::TimeOffset;

/// The resolved `linux` section.
#[derive(Clone, Debug)]
pub struct Linux {
    /// Which namespaces are made or joined.
    pub namespaces: Namespaces,
    /// The clocks of a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
    /// Network devices to move into the network namespace.
    pub net_devices: Vec<NetDevice>,
    /// User ids of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters, name (dots or slashes) to value.
    pub sysctl: BTreeMap<String, String>,
    /// Limits and rules for the cgroup.
    pub resources: Resources,
    /// Where the cgroup is; None leaves the choice to the runtime.
    pub cgroups_path: Option<String>,
    /// Device nodes beyond the default ones.
    pub devices: Vec<Device>,
    /// Seccomp profile.
    pub seccomp: Option<Seccomp>,
    /// The execution domain; None inherits.
    pub personality: Option<LinuxPersonalityDomain>,
    /// The propagation of the container's root mount.
    pub rootfs_propagation: Option<Propagation>,
    /// The SELinux label of the files in the container's new filesystems.
    pub mount_label: Option<String>,
    /// Paths that show nothing inside the container.
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written inside the container.
    pub readonly_paths: Vec<String>,
}

/// A mount's propagation, for it and all below it.
///
/// Spec: config-linux.md#rootfs-mount-propagation
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// From the host only.
    Slave,
    /// Neither way.
    Private,
    /// Neither way, and it cannot be bound.
    Unbindable,
}

impl Linux {
    /// Resolves the `linux` section; none at all means every default.
    ///
    /// # Errors
    /// The field whose value is out of range or contradicts another.
    pub fn from_spec(linux: Option<&SpecLinux>) -> Result<Self, FieldError> {
        let Some(linux) = linux else {
            return Self::from_spec(Some(&empty()));
        };
        let namespaces = Namespaces::from_spec(linux.namespaces().as_deref().unwrap_or_default())?;
        let uid_mappings =
            id_mappings::from_spec("linux.uidMappings", linux.uid_mappings().as_deref())?;
        let gid_mappings =
            id_mappings::from_spec("linux.gidMappings", linux.gid_mappings().as_deref())?;
        check_mappings(&namespaces, &uid_mappings, &gid_mappings)?;
        let masked_paths = linux.masked_paths().clone().unwrap_or_default();
        let readonly_paths = linux.readonly_paths().clone().unwrap_or_default();
        check_paths("linux.maskedPaths", &masked_paths)?;
        check_paths("linux.readonlyPaths", &readonly_paths)?;
        let sysctl: BTreeMap<_, _> = linux
            .sysctl()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        no_nul(
            || "linux.mountLabel".into(),
            linux.mount_label().as_deref().unwrap_or_default(),
        )?;
        for (name, value) in &sysctl {
            no_nul(|| format!("linux.sysctl[{name:?}]"), value)?;
        }
        let cgroups_path = linux
            .cgroups_path()
            .as_ref()
            .map(|path| match path.to_str() {
                Some(path) => Ok(path.to_owned()),
                None => Err(FieldError::new("linux.cgroupsPath", "is not UTF-8")),
            });
        let time_offsets = time_offsets::from_spec(linux.time_offsets().as_ref(), &namespaces)?;
        let net_devices = net_devices::from_spec(linux.net_devices().as_ref(), &namespaces)?;
        Ok(Self {
            namespaces,
            time_offsets,
            net_devices,
            uid_mappings,
            gid_mappings,
            sysctl,
            resources: Resources::from_spec(linux.resources().as_ref())?,
            cgroups_path: cgroups_path.transpose()?.filter(|path| !path.is_empty()),
            devices: devices::from_spec(linux.devices().as_deref().unwrap_or_default())?,
            seccomp: linux
                .seccomp()
                .as_ref()
                .map(Seccomp::from_spec)
                .transpose()?,
            personality: linux.personality().as_ref().map(personality).transpose()?,
            rootfs_propagation: propagation(linux.rootfs_propagation().as_deref())?,
            mount_label: linux
                .mount_label()
                .clone()
                .filter(|label| !label.is_empty()),
            masked_paths,
            readonly_paths,
        })
    }
}

/// A section that says nothing.
fn empty() -> SpecLinux {
    let mut linux = SpecLinux::default();
    linux
        .set_namespaces(None)
        .set_resources(None)
        .set_masked_paths(None)
        .set_readonly_paths(None);
    linux
}

/// A new user namespace needs mappings, and only a new one may have them.
fn check_mappings(
    namespaces: &Namespaces,
    uids: &[IdMapping],
    gids: &[IdMapping],
) -> Result<(), FieldError> {
    if namespaces.is_new(Kind::User) {
        for (field, mappings) in [("linux.uidMappings", uids), ("linux.gidMappings", gids)] {
            if mappings.is_empty() {
                return Err(FieldError::new(
                    field,
                    "is empty, and a new user namespace needs it",
                ));
            }
        }
    } else if !namespaces.has(Kind::User) && uids.len() + gids.len() > 0 {
        let field = if uids.is_empty() {
            "linux.gidMappings"
        } else {
            "linux.uidMappings"
        };
        return Err(FieldError::new(field, "is given without a user namespace"));
    }
    Ok(())
}

fn check_paths(field: &str, paths: &[String]) -> Result<(), FieldError> {
    for (index, path) in paths.iter().enumerate() {
        if !path.starts_with('/') {
            let problem = format!("{path:?} is not an absolute path");
            return Err(FieldError::new(format!("{field}[{index}]"), problem));
        }
        no_nul(|| format!("{field}[{index}]"), path)?;
    }
    Ok(())
}

/// Spec: config-linux.md#personality: no flag is defined.
fn personality(personality: &LinuxPersonality) -> Result<LinuxPersonalityDomain, FieldError> {
    match personality.flags().iter().flatten().next() {
        None => Ok(personality.domain()),
        Some(flag) => Err(FieldError::new(
            "linux.personality.flags[0]",
            format!("{flag:?} is none: the specification defines no flags"),
        )),
    }
}

fn propagation(text: Option<&str>) -> Result<Option<Propagation>, FieldError> {
    Ok(Some(match text {
        None | Some("") => return Ok(None),
        Some("shared" | "rshared") => Propagation::Shared,
        Some("slave" | "rslave") => Propagation::Slave,
        Some("private" | "rprivate") => Propagation::Private,
        Some("unbindable" | "runbindable") => Propagation::Unbindable,
        Some(other) => {
            let problem = format!("{other:?} is none of shared, slave, private, unbindable");
            return Err(FieldError::new("linux.rootfsPropagation", problem));
        }
    }))
}
