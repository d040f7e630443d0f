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

use super::Cgroup;
use super::detect::{Hierarchy, Layout};

/// Whose cgroups a mount of the container shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The container has a cgroup namespace: a fresh mount shows its own part by itself.
    Namespace,
    /// It has none: its own part is bound on v1, and on v2 all is shown.
    Host,
}

/// What to mount at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CgroupMounts {
    /// One cgroup2 file system. Where the kernel refuses it (EPERM or EBUSY, as in a user
    /// namespace without a cgroup namespace of its own), `fallback` is bound instead.
    V2 {
        /// A directory of the runtime's mount namespace.
        fallback: PathBuf,
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
}

/// How the container's part of a hierarchy is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum V1Source {
    /// A bind mount of a directory of the runtime's mount namespace.
    Bind(PathBuf),
    /// A `cgroup` file system with these options: `cpu,cpuacct` or `none,name=systemd`.
    FileSystem(String),
}

pub(super) fn list(cgroup: &Cgroup, layout: &Layout, view: View) -> CgroupMounts {
    let hierarchies = match cgroup {
        Cgroup::V1(hierarchies) => hierarchies,
        Cgroup::V2(unified) => {
            let mount_point = layout
                .cgroup2()
                .map(|hierarchy| hierarchy.mount_point.clone());
            let fallback = match view {
                View::Namespace => unified.dir().to_owned(),
                View::Host => mount_point.unwrap_or_else(|| unified.dir().to_owned()),
            };
            return CgroupMounts::V2 { fallback };
        }
    };
    let mut mounts = Vec::new();
    let mut links = Vec::new();
    // The cgroup2 of a hybrid machine is not shown: who finds it would take it for the place
    // of controllers that are elsewhere.
    for hierarchy in layout.hierarchies() {
        let dir = hierarchy
            .controllers
            .first()
            .and_then(|name| hierarchies.dir(name));
        let (Some(dir), Some(name)) = (dir, name_of(&hierarchy.mount_point)) else {
            continue;
        };
        let source = match view {
            View::Host => V1Source::Bind(dir.to_owned()),
            View::Namespace => V1Source::FileSystem(options(hierarchy)),
        };
        let others = hierarchy
            .controllers
            .iter()
            .filter(|controller| **controller != name);
        let others = others.filter(|controller| !controller.starts_with("name="));
        links.extend(others.map(|controller| (controller.clone(), name.clone())));
        mounts.push(V1Mount { name, source });
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
        };
        let CgroupMounts::V1 { mounts, links } = cgroup.mount_list(&layout, View::Host) else {
            panic!("the layout is v1")
        };
        assert_eq!(mounts, names.map(bind));
        assert_eq!(links, expected_links);

        let options = ["none,name=systemd", "devices", "memory", "cpu,cpuacct"];
        let CgroupMounts::V1 { mounts, links } = cgroup.mount_list(&layout, View::Namespace) else {
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
    fn v2() {
        let mounts = "25 1 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let layout = Layout::parse("0::/\n", mounts).expect("has a hierarchy");
        let cgroup = Cgroup::plan(&layout, Some("/a/web"), "web").expect("can be planned");
        let fallback = |view| cgroup.mount_list(&layout, view);
        let v2 = |fallback: &str| CgroupMounts::V2 {
            fallback: fallback.into(),
        };
        assert_eq!(fallback(View::Namespace), v2("/sys/fs/cgroup/a/web"));
        assert_eq!(fallback(View::Host), v2("/sys/fs/cgroup"));
    }
}
