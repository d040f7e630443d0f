//! A mount of type `cgroup` is several: one for each hierarchy that the container has a part in.
//!
//! Spec: config.md#mounts, config-linux.md#control-groups

use std::ffi::CString;

use bundles::FieldError;
use bundles::config::mounts::Mount;

use super::plan::c_string;
use crate::cgroups::mounts::{CgroupMounts, V1Mount, V1Source};
use crate::rootfs::Link;
use crate::rootfs::mount::{MountPlan, What};
use crate::rootfs::mount_options::MountOptions;
use crate::sys::mount_api::Recursive;

/// The mounts and links that `mount`, of type `cgroup`, stands for.
///
/// # Errors
/// An option of a hierarchy that no system call can carry.
pub(super) fn plan(
    mount: &Mount,
    options: &MountOptions,
    mounts: &CgroupMounts,
) -> Result<(Vec<MountPlan>, Vec<Link>), FieldError> {
    let own = |data: Vec<(CString, Option<CString>)>| MountOptions {
        attributes: options.attributes,
        propagation: options.propagation.clone(),
        data,
        ..MountOptions::default()
    };
    let filesystem = |kind: &str, fallback| -> Result<What, FieldError> {
        let kind = c_string("mounts", kind.as_bytes())?;
        Ok(What::Filesystem {
            source: kind.clone(),
            kind,
            fallback,
        })
    };
    let destination = &mount.destination;
    let (mounts, v1_links) = match mounts {
        CgroupMounts::V2 { fallback } => {
            let what = filesystem("cgroup2", Some(fallback.clone()))?;
            let options = own(Vec::new());
            let all = vec![MountPlan {
                destination: destination.clone(),
                what,
                options,
            }];
            return Ok((all, Vec::new()));
        }
        CgroupMounts::V1 { mounts, links } => (mounts, links),
    };
    let what = filesystem("tmpfs", None)?;
    let options = own(vec![(c"mode".to_owned(), Some(c"755".to_owned()))]);
    let mut planned = vec![MountPlan {
        destination: destination.clone(),
        what,
        options,
    }];
    for V1Mount { name, source } in mounts {
        let destination = destination.join(name);
        planned.push(match source {
            V1Source::Bind(source) => {
                let what = What::Bind {
                    source: source.clone(),
                    tree: None,
                };
                let options = MountOptions {
                    bind: Some(Recursive::No),
                    ..own(Vec::new())
                };
                MountPlan {
                    destination,
                    what,
                    options,
                }
            }
            V1Source::FileSystem(words) => {
                let what = filesystem("cgroup", None)?;
                MountPlan {
                    destination,
                    what,
                    options: own(v1_options(words)?),
                }
            }
        });
    }
    let link = |(name, target): &(String, String)| Link {
        path: destination.join(name),
        target: target.into(),
    };
    Ok((planned, v1_links.iter().map(link).collect()))
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
