//! What a mount of type `cgroup` in a container consists of, as plain data.
//!
//! ```text
//! v2                one cgroup2 file system
//! v1 and hybrid     a tmpfs with
//!                       memory/          the container's own part of each hierarchy
//!                       cpu,cpuacct/
//!                       cpu -> cpu,cpuacct
//! ```
//!
//! Spec: config-linux.md#configLinuxCgroups and config.md#mounts

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bundles::config::linux::namespaces::{self, Namespaces};

use super::Cgroup;
use super::detect::{Hierarchy, Kind, Layout};
use super::v1::Hierarchies;

/// Whose cgroups a mount of the container shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The container has a cgroup namespace: a fresh mount shows its own part by itself.
    Namespace,
    /// It has none: its own part is bound on v1, and on v2 all is shown.
    Host,
}

impl View {
    /// The view of a container that has these namespaces.
    pub(crate) fn of(namespaces: &Namespaces) -> Self {
        if namespaces.has(namespaces::Kind::Cgroup) {
            Self::Namespace
        } else {
            Self::Host
        }
    }
}

/// What to mount at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CgroupMounts {
    /// One cgroup2 file system. Where the kernel refuses it (EPERM or EBUSY, as in a user
    /// namespace without a cgroup namespace of its own), `fallback` is bound instead.
    V2 {
        /// A directory of the runtime's mount namespace.
        fallback: PathBuf,
        /// Whether the container's own part is all that it may write.
        access: Access,
    },
    /// A tmpfs (`mode=755`) with directories and links in it. Read-only, where asked for, only
    /// after these were made; each mount in it is read-only then, too.
    V1 {
        /// A directory of the tmpfs each, and what is mounted there.
        mounts: Vec<V1Mount>,
        /// Names in the tmpfs and the directory that each leads to.
        links: Vec<(String, String)>,
    },
}

/// One hierarchy in the tmpfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct V1Mount {
    /// The directory's name.
    pub(crate) name: String,
    /// What is mounted there.
    pub(crate) source: V1Source,
    /// Whether the container's own part is all that it may write.
    pub(crate) access: Access,
}

/// What a mount lets be written, whatever its options say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// As the options say.
    AsAsked,
    /// Nothing: it shows more than the container's own part, and to the user who made the
    /// container it may be writable (CVE-2023-25809).
    ReadOnly,
}

/// How the container's part of a hierarchy is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum V1Source {
    /// A bind mount of a directory of the runtime's mount namespace.
    Bind(PathBuf),
    /// A `cgroup` file system with these options: `cpu,cpuacct` or `none,name=systemd`.
    FileSystem(String),
}

pub(super) fn list(cgroup: &Cgroup, layout: Option<&Layout>, view: View) -> CgroupMounts {
    let Some(layout) = layout else {
        return CgroupMounts::V1 {
            mounts: Vec::new(),
            links: Vec::new(),
        };
    };
    let cgroup2 = layout.cgroup2().filter(|_| layout.kind() == Kind::V2);
    match (cgroup, cgroup2) {
        (Cgroup::V1(hierarchies), _) => list_v1(Some(hierarchies), layout, view),
        (Cgroup::Shared(_), None) => list_v1(None, layout, view),
        (Cgroup::V2(unified), cgroup2) => CgroupMounts::V2 {
            fallback: match (view, cgroup2) {
                (View::Host, Some(hierarchy)) => hierarchy.mount_point.clone(),
                _ => unified.dir().to_owned(),
            },
            access: Access::AsAsked,
        },
        (Cgroup::Shared(_), Some(hierarchy)) => CgroupMounts::V2 {
            fallback: match view {
                View::Host => hierarchy.mount_point.clone(),
                View::Namespace => hierarchy.own_dir(),
            },
            access: Access::ReadOnly,
        },
    }
}

fn list_v1(own: Option<&Hierarchies>, layout: &Layout, view: View) -> CgroupMounts {
    let mut mounts = Vec::new();
    let mut links = Vec::new();
    // The cgroup2 of a hybrid machine is not shown: who finds it would take it for the place
    // of controllers that are elsewhere.
    for hierarchy in layout.hierarchies() {
        let own = hierarchy
            .controllers
            .first()
            .and_then(|name| own?.dir(name));
        let (dir, access) = match own {
            Some(dir) => (dir.to_owned(), Access::AsAsked),
            None if Hierarchies::are_joined(hierarchy) => (hierarchy.own_dir(), Access::ReadOnly),
            None => continue,
        };
        let Some(name) = name_of(&hierarchy.mount_point) else {
            continue;
        };
        let source = match view {
            View::Host => V1Source::Bind(dir),
            View::Namespace => V1Source::FileSystem(options(hierarchy)),
        };
        let others = hierarchy
            .controllers
            .iter()
            .filter(|controller| **controller != name);
        let others = others.filter(|controller| !controller.starts_with("name="));
        links.extend(others.map(|controller| (controller.clone(), name.clone())));
        mounts.push(V1Mount {
            name,
            source,
            access,
        });
    }
    let names: BTreeSet<&String> = mounts.iter().map(|mount| &mount.name).collect();
    links.retain(|(name, _)| !names.contains(name));
    CgroupMounts::V1 { mounts, links }
}

/// The last name of a mount point, as `cpu,cpuacct`.
fn name_of(mount_point: &Path) -> Option<String> {
    mount_point
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
}

/// The mount options that select a hierarchy.
fn options(hierarchy: &Hierarchy) -> String {
    let names = hierarchy.controllers.join(",");
    if names.starts_with("name=") {
        format!("none,{names}")
    } else {
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::Record;
    use crate::cgroups::detect::tests::{HYBRID_MOUNTS, HYBRID_OWN};

    #[test]
    fn hybrid() {
        let layout = Layout::parse(HYBRID_OWN, HYBRID_MOUNTS).expect("has hierarchies");
        let cgroup = Cgroup::plan(&layout, Some("/docker/web"), "web").expect("can be planned");
        let names = ["systemd", "devices", "memory", "cpu,cpuacct"];
        let expected_links: Vec<(String, String)> = ["cpu", "cpuacct"]
            .map(|name| (name.to_owned(), "cpu,cpuacct".to_owned()))
            .into();

        let bind = |name: &str| V1Mount {
            name: name.to_owned(),
            source: V1Source::Bind(format!("/sys/fs/cgroup/{name}/docker/web").into()),
            access: Access::AsAsked,
        };
        let layout = Some(&layout);
        let CgroupMounts::V1 { mounts, links } = cgroup.mount_list(layout, View::Host) else {
            panic!("the layout is v1")
        };
        assert_eq!(mounts, names.map(bind));
        assert_eq!(links, expected_links);

        let options = ["none,name=systemd", "devices", "memory", "cpu,cpuacct"];
        let CgroupMounts::V1 { mounts, links } = cgroup.mount_list(layout, View::Namespace) else {
            panic!("the layout is v1")
        };
        let sources: Vec<_> = mounts.into_iter().map(|mount| mount.source).collect();
        assert_eq!(
            sources,
            options.map(|text| V1Source::FileSystem(text.to_owned()))
        );
        assert_eq!(links, expected_links);
    }

    #[test]
    fn who_has_no_part_may_write_nothing() {
        let layout = Layout::parse(HYBRID_OWN, HYBRID_MOUNTS).expect("has hierarchies");
        let shared = Cgroup::from_record(&Record::default());
        let CgroupMounts::V1 { mounts, .. } = shared.mount_list(Some(&layout), View::Host) else {
            panic!("the layout is v1")
        };
        let memory = V1Mount {
            name: "memory".into(),
            source: V1Source::Bind("/sys/fs/cgroup/memory/sessions/1".into()),
            access: Access::ReadOnly,
        };
        assert!(mounts.contains(&memory), "{mounts:?}");
        assert_eq!(mounts.len(), 4);
    }

    #[test]
    fn v2() {
        let mounts = "25 1 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let layout = Layout::parse("0::/\n", mounts).expect("has a hierarchy");
        let cgroup = Cgroup::plan(&layout, Some("/a/web"), "web").expect("can be planned");
        let fallback = |view| cgroup.mount_list(Some(&layout), view);
        let v2 = |fallback: &str, access| CgroupMounts::V2 {
            fallback: fallback.into(),
            access,
        };
        let asked = Access::AsAsked;
        assert_eq!(fallback(View::Namespace), v2("/sys/fs/cgroup/a/web", asked));
        assert_eq!(fallback(View::Host), v2("/sys/fs/cgroup", asked));
        let shared = Cgroup::from_record(&Record::default());
        let listed = shared.mount_list(Some(&layout), View::Namespace);
        assert_eq!(listed, v2("/sys/fs/cgroup", Access::ReadOnly));
    }
}
