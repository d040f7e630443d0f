//! A mount of type `cgroup` is several: one for each hierarchy that the container has a part in.
//!
//! Spec: config.md#mounts, config-linux.md#control-groups

use std::ffi::CString;
use std::path::PathBuf;

use bundles::FieldError;
use bundles::config::mounts::Mount;

use super::plan::c_string;
use crate::cgroups::mounts::{Access, CgroupMounts, V1Mount, V1Source};
use crate::rootfs::Link;
use crate::rootfs::mount::{MountPlan, What};
use crate::rootfs::mount_options::MountOptions;
use crate::sys::mount_api::{Recursive, attr};

/// The mounts and links that `mount`, of type `cgroup`, stands for.
///
/// # Errors
/// An option of a hierarchy that no system call can carry.
pub(super) fn plan(
    mount: &Mount,
    options: &MountOptions,
    mounts: &CgroupMounts,
) -> Result<(Vec<MountPlan>, Vec<Link>), FieldError> {
    let destination = &mount.destination;
    match mounts {
        CgroupMounts::V2 { fallback, access } => {
            let what = filesystem("cgroup2", Some(fallback.clone()))?;
            let options = with_access(with_data(options, Vec::new()), *access);
            Ok((
                vec![MountPlan {
                    destination: destination.clone(),
                    what,
                    options,
                    id_map: None,
                }],
                Vec::new(),
            ))
        }
        CgroupMounts::V1 { mounts, links } => {
            let data = vec![(c"mode".to_owned(), Some(c"755".to_owned()))];
            let mut planned = vec![MountPlan {
                destination: destination.clone(),
                what: filesystem("tmpfs", None)?,
                options: with_data(options, data),
                id_map: None,
            }];
            for one in mounts {
                planned.push(plan_hierarchy(destination.join(&one.name), options, one)?);
            }
            let link = |(name, target): &(String, String)| Link {
                path: destination.join(name),
                target: target.into(),
            };
            Ok((planned, links.iter().map(link).collect()))
        }
    }
}

fn plan_hierarchy(
    destination: PathBuf,
    options: &MountOptions,
    mount: &V1Mount,
) -> Result<MountPlan, FieldError> {
    Ok(match &mount.source {
        V1Source::Bind(source) => {
            let what = What::Bind {
                source: source.clone(),
                tree: None,
            };
            let bind = Some(Recursive::No);
            let options = with_access(with_data(options, Vec::new()), mount.access);
            let options = MountOptions { bind, ..options };
            MountPlan {
                destination,
                what,
                options,
                id_map: None,
            }
        }
        V1Source::FileSystem(words) => MountPlan {
            destination,
            what: filesystem("cgroup", None)?,
            options: with_access(with_data(options, v1_options(words)?), mount.access),
            id_map: None,
        },
    })
}

fn filesystem(kind: &str, fallback: Option<PathBuf>) -> Result<What, FieldError> {
    let kind = c_string("mounts", kind.as_bytes())?;
    Ok(What::Filesystem {
        source: kind.clone(),
        kind,
        fallback,
    })
}

/// The attributes that were asked for, and the parameters of this very filesystem.
fn with_data(options: &MountOptions, data: Vec<(CString, Option<CString>)>) -> MountOptions {
    MountOptions {
        attributes: options.attributes,
        recursive_attributes: options.recursive_attributes,
        propagation: options.propagation.clone(),
        data,
        ..MountOptions::default()
    }
}

/// Read-only where more is shown than the container's own part.
fn with_access(mut options: MountOptions, access: Access) -> MountOptions {
    if access == Access::ReadOnly {
        options.attributes.set |= attr::RDONLY;
        options.attributes.clear &= !attr::RDONLY;
    }
    options
}

/// `none,name=systemd` as parameters.
fn v1_options(options: &str) -> Result<Vec<(CString, Option<CString>)>, FieldError> {
    let text = |text: &str| c_string("mounts", text.as_bytes());
    options
        .split(',')
        .map(|word| match word.split_once('=') {
            Some((key, value)) => Ok((text(key)?, Some(text(value)?))),
            None => Ok((text(word)?, None)),
        })
        .collect()
}
