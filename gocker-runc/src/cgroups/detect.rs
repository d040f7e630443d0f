//! Which cgroup hierarchies this machine has, where they are mounted, and where in them the
//! runtime itself is.
//!
//! ```text
//! /proc/self/cgroup     4:memory:/user/1000        hierarchy, controllers, own cgroup
//!                       0::/init.scope             cgroup2
//! /proc/self/mountinfo  32 31 0:29 ROOT MOUNTPOINT rw - cgroup cgroup rw,memory
//! ```
//!
//! See <https://man7.org/linux/man-pages/man7/cgroups.7.html>, "/proc files".

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::Error;
use super::files;

/// The hierarchies that can serve a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    kind: Kind,
    hierarchies: Vec<Hierarchy>,
}

/// Which generation of cgroups limits containers here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A hierarchy for each controller; on a hybrid machine a cgroup2 hierarchy beside them.
    V1,
    /// One cgroup2 hierarchy.
    V2,
}

/// One mounted tree of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its v1 controllers, or `name=NAME` for a tree without any; empty for cgroup2.
    pub(crate) controllers: Vec<String>,
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// The cgroup that is seen at the mount point.
    pub(crate) mount_root: PathBuf,
    /// The runtime's own cgroup.
    pub(crate) own: PathBuf,
}

impl Layout {
    /// Reads the layout of this machine from `proc`, the mount point of procfs.
    ///
    /// # Errors
    /// No hierarchy is mounted, or procfs cannot be read.
    pub(crate) fn detect(proc: &Path) -> Result<Self, Error> {
        let own = files::read_in(proc, "self/cgroup")?;
        // The table of mounts is long, and slow to print, on a machine with many containers.
        match Self::guess(&own, Path::new(USUAL_MOUNT_POINT), file_system) {
            Some(layout) => Ok(layout),
            None => Self::parse(&own, &files::read_in(proc, "self/mountinfo")?),
        }
    }

    /// Finds the layout where everything is mounted whole and in its usual place beneath
    /// `top`; None where something is not, and the table of mounts must tell.
    fn guess(
        own: &str,
        top: &Path,
        file_system: impl Fn(&Path) -> Option<&'static str>,
    ) -> Option<Self> {
        let kind = if file_system(top) == Some("cgroup2") {
            Kind::V2
        } else {
            Kind::V1
        };
        let mut hierarchies = Vec::new();
        for line in own.lines() {
            let (controllers, own) = split_own(line)?;
            let names = controllers.join(",");
            let (mount_point, expected) = match (names.as_str(), kind) {
                ("", Kind::V2) => (top.to_owned(), "cgroup2"),
                (_, Kind::V2) => continue,
                ("", Kind::V1) => (top.join("unified"), "cgroup2"),
                (names, Kind::V1) => (top.join(names.trim_start_matches("name=")), "cgroup"),
            };
            if file_system(&mount_point) != Some(expected) {
                // Every kernel of today lists a cgroup2 hierarchy, mounted or not.
                if kind == Kind::V1 && names.is_empty() {
                    continue;
                }
                return None;
            }
            let hierarchy = Hierarchy {
                controllers,
                mount_point,
                mount_root: "/".into(),
                own: own.into(),
            };
            // Where only a part is mounted, the own cgroup does not show in its full place.
            if own != "/" && file_system(&hierarchy.own_dir()) != Some(expected) {
                return None;
            }
            hierarchies.push(hierarchy);
        }
        let layout = Self { kind, hierarchies };
        let is_usable = match kind {
            Kind::V1 => layout.hierarchies.iter().any(Hierarchy::has_controllers),
            Kind::V2 => layout.cgroup2().is_some(),
        };
        is_usable.then_some(layout)
    }

    /// Finds the layout in the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// No hierarchy is mounted.
    pub(crate) fn parse(own: &str, mountinfo: &str) -> Result<Self, Error> {
        let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
        let all: Vec<Hierarchy> = own
            .lines()
            .filter_map(|line| Hierarchy::find(line, &mounts))
            .collect();
        let cgroup2 = all
            .iter()
            .find(|hierarchy| hierarchy.controllers.is_empty());
        // A v1 controller that somebody mounted on a v2 machine (VPN programs do so for
        // net_cls) does not make it a v1 machine; where cgroup2 is mounted tells.
        let v2 = cgroup2.filter(|hierarchy| {
            hierarchy.mount_point == Path::new(USUAL_MOUNT_POINT)
                || !all.iter().any(Hierarchy::has_controllers)
        });
        match v2 {
            Some(hierarchy) => Ok(Self {
                kind: Kind::V2,
                hierarchies: vec![hierarchy.clone()],
            }),
            None if all.iter().any(Hierarchy::has_controllers) => Ok(Self {
                kind: Kind::V1,
                hierarchies: all,
            }),
            None => Err(Error::NotMounted),
        }
    }

    /// Which generation it is.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The hierarchies, each once: on v2 the one.
    #[must_use]
    pub(crate) fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The cgroup2 hierarchy: that of a v2 machine, or the one beside v1's.
    #[must_use]
    pub(crate) fn cgroup2(&self) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.is_empty())
    }
}

impl Hierarchy {
    /// Joins a line of `/proc/self/cgroup` with its mount; None where it is not mounted.
    fn find(line: &str, mounts: &[Mount<'_>]) -> Option<Self> {
        let (controllers, own) = split_own(line)?;
        let is_ours = |mount: &&Mount<'_>| match controllers.first() {
            None => mount.file_system == "cgroup2",
            Some(name) => {
                mount.file_system == "cgroup"
                    && mount.options.split(',').any(|option| option == name)
            }
        };
        // A tree can be mounted many times: in the root directories of other containers, say.
        let mount = mounts
            .iter()
            .filter(is_ours)
            .find(|mount| Path::new(&mount.mount_point).starts_with(USUAL_MOUNT_POINT))
            .or_else(|| mounts.iter().find(is_ours))?;
        Some(Self {
            controllers,
            mount_point: mount.mount_point.clone(),
            mount_root: mount.root.clone(),
            own: PathBuf::from(own),
        })
    }

    /// Whether it limits anything, or only has a name.
    fn has_controllers(&self) -> bool {
        self.controllers
            .iter()
            .any(|name| !name.starts_with("name="))
    }

    /// The directory of the runtime's own cgroup.
    ///
    /// Where the own cgroup lies outside of what is mounted, as it does for a mount made in
    /// another cgroup namespace, the mount point is the nearest there is.
    #[must_use]
    pub(crate) fn own_dir(&self) -> PathBuf {
        self.dir_of(&self.own)
    }

    /// The directory of `cgroup`, as a line of `/proc/PID/cgroup` names it.
    pub(super) fn dir_of(&self, cgroup: impl AsRef<Path>) -> PathBuf {
        match cgroup.as_ref().strip_prefix(&self.mount_root) {
            Ok(beneath) if beneath.as_os_str().is_empty() => self.mount_point.clone(),
            Ok(beneath) => self.mount_point.join(beneath),
            Err(_) => self.mount_point.clone(),
        }
    }
}

/// Splits a line of `/proc/self/cgroup` into controllers and own cgroup.
fn split_own(line: &str) -> Option<(Vec<String>, &str)> {
    let mut parts = line.splitn(3, ':');
    let (_number, controllers, own) = (parts.next()?, parts.next()?, parts.next()?);
    let controllers = controllers.split(',').filter(|name| !name.is_empty());
    Some((controllers.map(str::to_owned).collect(), own))
}

/// The file system that a path is on, where that is one of cgroups.
fn file_system(path: &Path) -> Option<&'static str> {
    match statfs(path).ok()?.filesystem_type() {
        CGROUP_SUPER_MAGIC => Some("cgroup"),
        CGROUP2_SUPER_MAGIC => Some("cgroup2"),
        _ => None,
    }
}

/// Where systemd and everybody else mount cgroups.
const USUAL_MOUNT_POINT: &str = "/sys/fs/cgroup";

/// One line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: PathBuf,
    mount_point: PathBuf,
    file_system: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// Takes a line of a cgroup file system, None for any other.
    fn parse(line: &'a str) -> Option<Self> {
        let (place, source) = line.split_once(" - ")?;
        let mut source = source.split(' ');
        let file_system = source
            .next()
            .filter(|name| matches!(*name, "cgroup" | "cgroup2"))?;
        let options = source.nth(1).unwrap_or_default();
        let mut place = place.split(' ').skip(3);
        let (root, mount_point) = (unescape(place.next()?), unescape(place.next()?));
        Some(Self {
            root,
            mount_point,
            file_system,
            options,
        })
    }
}

/// Undoes the octal escapes (`\040` for a space) of mountinfo.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => Some(((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), tail)),
            _ => None,
        };
        let (byte, tail) = escaped.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = tail;
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const HYBRID_OWN: &str = "\
        9:name=systemd:/\n\
        5:devices:/\n\
        4:memory:/sessions/1\n\
        1:cpu,cpuacct:/\n\
        0::/\n";
    pub(in super::super) const HYBRID_MOUNTS: &str = "\
        23 0 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory\n\
        36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    fn points(layout: &Layout) -> Vec<(String, &str)> {
        let point = |hierarchy: &Hierarchy| hierarchy.mount_point.to_str().map(str::len);
        assert!(
            layout
                .hierarchies
                .iter()
                .all(|hierarchy| point(hierarchy).is_some())
        );
        layout
            .hierarchies
            .iter()
            .map(|h| {
                (
                    h.controllers.join(","),
                    h.mount_point.to_str().expect("is UTF-8"),
                )
            })
            .collect()
    }

    #[test]
    fn a_hybrid_machine_is_v1_with_a_cgroup2_beside() {
        let layout = Layout::parse(HYBRID_OWN, HYBRID_MOUNTS).expect("has hierarchies");
        assert_eq!(layout.kind(), Kind::V1);
        let expected = [
            ("name=systemd".to_owned(), "/sys/fs/cgroup/systemd"),
            ("devices".to_owned(), "/sys/fs/cgroup/devices"),
            ("memory".to_owned(), "/sys/fs/cgroup/memory"),
            ("cpu,cpuacct".to_owned(), "/sys/fs/cgroup/cpu,cpuacct"),
            (String::new(), "/sys/fs/cgroup/unified"),
        ];
        assert_eq!(points(&layout), expected);
        let memory = &layout.hierarchies()[2];
        assert_eq!(
            memory.own_dir(),
            Path::new("/sys/fs/cgroup/memory/sessions/1")
        );
    }

    #[test]
    fn layouts() {
        let v2 = "25 1 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let net_cls = "26 1 0:10 / /sys/fs/cgroup/net_cls rw - cgroup net_cls rw,net_cls\n";
        let named = "27 1 0:11 / /run/mine rw - cgroup none rw,name=mine\n";
        let elsewhere = "25 1 0:9 / /cg rw - cgroup2 cgroup2 rw\n";
        let memory = "26 1 0:10 / /cg1/memory rw - cgroup memory rw,memory\n";
        let table = [
            ("0::/\n", v2.to_owned(), Some((Kind::V2, 1))),
            (
                "3:net_cls:/\n0::/\n",
                format!("{v2}{net_cls}"),
                Some((Kind::V2, 1)),
            ),
            (
                "3:name=mine:/\n0::/\n",
                format!("{named}{elsewhere}"),
                Some((Kind::V2, 1)),
            ),
            (
                "3:memory:/\n0::/\n",
                format!("{elsewhere}{memory}"),
                Some((Kind::V1, 2)),
            ),
            ("3:memory:/\n0::/\n", memory.to_owned(), Some((Kind::V1, 1))),
            ("3:name=mine:/\n", named.to_owned(), None),
            ("3:memory:/\n0::/\n", String::new(), None),
        ];
        for (own, mounts, expected) in table {
            let layout = Layout::parse(own, &mounts).ok();
            let found = layout.map(|layout| (layout.kind(), layout.hierarchies().len()));
            assert_eq!(found, expected, "{mounts}");
        }
    }

    #[test]
    fn a_guess_finds_what_the_table_of_mounts_says() {
        let parsed = Layout::parse(HYBRID_OWN, HYBRID_MOUNTS).expect("has hierarchies");
        let top = Path::new(USUAL_MOUNT_POINT);
        let guess = |own: &str, at: &[(&str, &'static str)]| {
            Layout::guess(own, top, |path| {
                at.iter()
                    .find(|(name, _)| top.join(name) == path)
                    .map(|(_, kind)| *kind)
            })
        };
        let all = [
            ("cpu,cpuacct", "cgroup"),
            ("memory", "cgroup"),
            ("memory/sessions/1", "cgroup"),
            ("devices", "cgroup"),
            ("systemd", "cgroup"),
            ("unified", "cgroup2"),
        ];
        assert_eq!(guess(HYBRID_OWN, &all), Some(parsed.clone()));
        // Without the last one it is no longer hybrid; without any other it is no guess.
        let v1 = guess(HYBRID_OWN, &all[..5]).expect("needs no cgroup2");
        assert_eq!(v1.hierarchies(), &parsed.hierarchies()[..4]);
        for missing in 0..5 {
            let mut rest = all.to_vec();
            rest.remove(missing);
            assert_eq!(guess(HYBRID_OWN, &rest), None, "{missing}");
        }

        let v2 = "25 1 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let own = "2:net_cls:/\n0::/a\n";
        let parsed = Layout::parse(own, v2).ok();
        assert_eq!(guess(own, &[("", "cgroup2"), ("a", "cgroup2")]), parsed);
        assert_eq!(guess(own, &[("", "cgroup2")]), None);
        assert_eq!(guess("", &[]), None);
    }

    #[test]
    fn the_usual_mount_wins_over_one_in_another_root() {
        let mounts = "\
            25 1 0:9 /x /var/lib/c/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            26 1 0:9 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let layout = Layout::parse("3:memory:/\n", mounts).expect("has a hierarchy");
        assert_eq!(
            points(&layout),
            [("memory".to_owned(), "/sys/fs/cgroup/memory")]
        );
    }

    #[test]
    fn own_directories() {
        let table = [
            ("/", "/a/b", "/m/a/b"),
            ("/", "/", "/m"),
            ("/docker/x", "/docker/x", "/m"),
            ("/docker/x", "/docker/x/y", "/m/y"),
            ("/docker/x", "/elsewhere", "/m"),
            ("/..", "/", "/m"),
        ];
        for (mount_root, own, expected) in table {
            let hierarchy = Hierarchy {
                controllers: vec!["memory".into()],
                mount_point: "/m".into(),
                mount_root: mount_root.into(),
                own: own.into(),
            };
            assert_eq!(
                hierarchy.own_dir(),
                Path::new(expected),
                "{mount_root} {own}"
            );
        }
    }

    #[test]
    fn escapes() {
        let table = [
            ("/a\\040b", "/a b"),
            ("/a\\134b", "/a\\b"),
            ("/a\\9b\\", "/a\\9b\\"),
        ];
        for (text, expected) in table {
            assert_eq!(unescape(text), Path::new(expected));
        }
    }
}
