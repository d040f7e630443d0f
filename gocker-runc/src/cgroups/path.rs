//! Where a container's cgroup lies: `linux.cgroupsPath` in each hierarchy.
//!
//! ```text
//! cgroupsPath        v1                                 v2
//! /docker/web        MOUNT/docker/web                   MOUNT/docker/web
//! web                MOUNT/OWN/web                      MOUNT/parent of OWN/web
//! (none)             MOUNT/OWN/ID                       MOUNT/parent of OWN/ID
//! ```
//!
//! OWN is the runtime's own cgroup. On v2 a cgroup with processes in it cannot hand controllers
//! down, and the runtime is in its own; so the container goes beside it, not beneath.
//!
//! Spec: config-linux.md#configLinuxCgroupsPath

use std::path::{Component, Path, PathBuf};

use bundles::FieldError;

use super::detect::{Hierarchy, Kind};

/// A place in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Names only: no root, `.` or `..`.
    beneath: PathBuf,
    from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    MountPoint,
    OwnCgroup,
}

impl Place {
    /// Reads `cgroups_path`; without one the place is called as the container is.
    pub(super) fn parse(cgroups_path: Option<&str>, id: &str) -> Result<Self, FieldError> {
        let text = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(id);
        let refuse = |problem: &str| {
            Err(FieldError::new(
                "linux.cgroupsPath",
                format!("{text:?} {problem}"),
            ))
        };
        if text.contains(['\0', '\n']) {
            return refuse("holds a character that no cgroup's name can");
        }
        let mut beneath = PathBuf::new();
        for component in Path::new(text).components() {
            match component {
                Component::Normal(name) => beneath.push(name),
                Component::ParentDir if !beneath.pop() => {
                    return refuse("climbs out of the hierarchy");
                }
                Component::ParentDir
                | Component::CurDir
                | Component::RootDir
                | Component::Prefix(_) => (),
            }
        }
        if beneath.as_os_str().is_empty() {
            return refuse("names no cgroup of its own");
        }
        let from = if text.starts_with('/') {
            From::MountPoint
        } else {
            From::OwnCgroup
        };
        Ok(Self { beneath, from })
    }

    /// The directory in one hierarchy.
    pub(super) fn dir(&self, hierarchy: &Hierarchy, kind: Kind) -> PathBuf {
        let start = match (self.from, kind) {
            (From::MountPoint, _) => hierarchy.mount_point.clone(),
            (From::OwnCgroup, Kind::V1) => hierarchy.own_dir(),
            (From::OwnCgroup, Kind::V2) => {
                let mut own = hierarchy.own_dir();
                if own != hierarchy.mount_point {
                    own.pop();
                }
                own
            }
        };
        start.join(&self.beneath)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        let own = |own: &str| Hierarchy {
            controllers: Vec::new(),
            mount_point: "/m".into(),
            mount_root: "/".into(),
            own: own.into(),
        };
        let table = [
            (
                Some("/libpod_parent/libpod-1"),
                "/m/libpod_parent/libpod-1",
                "same",
            ),
            (Some("/default/web"), "/m/default/web", "same"),
            (Some("//docker/./x//"), "/m/docker/x", "same"),
            (Some("/a/../b"), "/m/b", "same"),
            (
                Some("system.slice:docker:1"),
                "/m/u/s/system.slice:docker:1",
                "/m/u",
            ),
            (Some("a/b"), "/m/u/s/a/b", "/m/u"),
            (Some(""), "/m/u/s/web", "/m/u"),
            (None, "/m/u/s/web", "/m/u"),
        ];
        for (path, v1, v2) in table {
            let place = Place::parse(path, "web").expect("is a good path");
            assert_eq!(place.dir(&own("/u/s"), Kind::V1), Path::new(v1), "{path:?}");
            let name = place.beneath.clone();
            let v2 = if v2 == "same" {
                PathBuf::from(v1)
            } else {
                Path::new(v2).join(name)
            };
            assert_eq!(place.dir(&own("/u/s"), Kind::V2), v2, "{path:?}");
        }
        let place = Place::parse(None, "web").expect("is a good path");
        assert_eq!(place.dir(&own("/"), Kind::V2), Path::new("/m/web"));
        assert_eq!(place.dir(&own("/s"), Kind::V2), Path::new("/m/web"));
    }

    #[test]
    fn refusals() {
        let table = [
            ("/..", "climbs out of the hierarchy"),
            ("/a/../../b", "climbs out of the hierarchy"),
            ("../b", "climbs out of the hierarchy"),
            ("/", "names no cgroup of its own"),
            ("/a/..", "names no cgroup of its own"),
            (".", "names no cgroup of its own"),
            ("/a\n", "holds a character that no cgroup's name can"),
            ("/a\0", "holds a character that no cgroup's name can"),
        ];
        for (path, problem) in table {
            let error = Place::parse(Some(path), "web").expect_err(path);
            assert_eq!(
                error.to_string(),
                format!("linux.cgroupsPath: {path:?} {problem}")
            );
        }
    }
}
