//! The mount points of a container that CRIU brings back, which it does not make itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::stat::SFlag;

use super::images::{tidy, within};
use crate::rootfs::mount::{MountPlan, What};
use crate::sys::in_root::{Missing, RootFd, file_type, open_host_path};

/// Makes what `mounts` are mounted on, and returns for each destination where that is. What lies in
/// a filesystem of the container's own comes back with it.
pub(super) fn mount_points(
    rootfs: &Path,
    mounts: &[MountPlan],
) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let root = RootFd::open(rootfs)?;
    let mut points: Vec<(PathBuf, PathBuf)> = Vec::new();
    // The mounts so far: where, and what the host has there.
    let mut earlier: Vec<(PathBuf, Option<PathBuf>)> = Vec::new();
    for mount in mounts {
        let destination = tidy(&mount.destination);
        let source = match &mount.what {
            What::Remount => continue,
            What::Filesystem { .. } => None,
            What::Bind { source, .. } => Some(source),
        };
        let missing = || source.map_or(Ok(Missing::Directory), |source| kind_of(source));
        let above = earlier
            .iter()
            .rev()
            .find(|(above, _)| destination.starts_with(above));
        let named = |error| {
            anyhow::Error::new(error).context(format!("make the mount point {destination:?}"))
        };
        let point = match above {
            Some((_, None)) => destination.clone(),
            Some((above, Some(_))) if *above == destination => destination.clone(),
            Some((above, Some(host))) => {
                let beneath = destination.strip_prefix(above).unwrap_or(&destination);
                let missing = missing()?;
                let host = fs::canonicalize(host).with_context(|| format!("{host:?}"))?;
                let made = RootFd::open(&host)
                    .and_then(|root| root.open_or_make(beneath, missing))
                    .map_err(named)?;
                within(&made, &host).map_or_else(
                    || destination.clone(),
                    |found| {
                        let found = found.strip_prefix("/").unwrap_or(&found).to_owned();
                        above.join(found)
                    },
                )
            }
            None => {
                let made = root.open_or_make(&destination, missing()?).map_err(named)?;
                within(&made, rootfs).unwrap_or_else(|| destination.clone())
            }
        };
        points.push((destination.clone(), point.clone()));
        earlier.push((point.clone(), source.cloned()));
        if point != destination {
            earlier.push((destination, source.cloned()));
        }
    }
    Ok(points)
}

/// What has to be there for `source` to be mounted on.
fn kind_of(source: &Path) -> anyhow::Result<Missing> {
    let fd = open_host_path(source)?;
    let kind = file_type(&fd).with_context(|| format!("stat {source:?}"))?;
    Ok(if kind == SFlag::S_IFDIR {
        Missing::Directory
    } else {
        Missing::File
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(destination: &str, source: &Path) -> MountPlan {
        MountPlan {
            destination: destination.into(),
            what: What::Bind {
                source: source.to_owned(),
                tree: None,
            },
            options: crate::rootfs::mount_options::MountOptions::default(),
            id_map: None,
        }
    }

    #[test]
    fn mount_points_are_made_where_they_will_be_seen() {
        let scratch = tempfile::tempdir().expect("has a directory");
        let rootfs = fs::canonicalize(scratch.path())
            .expect("is there")
            .join("rootfs");
        let data = rootfs.with_file_name("data");
        for path in [&rootfs.join("run"), &rootfs.join("var"), &data] {
            fs::create_dir_all(path).expect("is made");
        }
        std::os::unix::fs::symlink("/run", rootfs.join("var/run")).expect("is made");
        let mounts = [
            bind("/var/run/a", &data),
            bind("/data", &data),
            bind("/data/beneath/null", Path::new("/dev/null")),
        ];
        let points = mount_points(&rootfs, &mounts).expect("are made");
        let points: Vec<_> = points
            .iter()
            .map(|(_, point)| point.to_str().expect("is text"))
            .collect();
        assert_eq!(points, ["/run/a", "/data", "/data/beneath/null"]);
        assert!(rootfs.join("run/a").is_dir());
        assert!(data.join("beneath/null").is_file());
        assert!(!rootfs.join("data/beneath").exists());
    }
}
