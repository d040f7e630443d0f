//! cgroup v2: one directory of the container's.
//!
//! ```text
//! /sys/fs/cgroup            cgroup.controllers   cgroup.subtree_control  +cpu +memory ...
//!     docker                                     cgroup.subtree_control  +cpu +memory ...
//!         ID                cpu.max  memory.max  cgroup.kill  cgroup.freeze  (device program)
//! ```
//!
//! A controller's files appear in a directory when its parent hands the controller down.

pub(super) mod controllers;
pub(super) mod cpu;
mod cpuset;
mod device_program;
mod devices;
pub(super) mod freezer;
pub(super) mod hugetlb;
pub(super) mod io;
pub(super) mod memory;

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use bundles::config::linux::resources::Resources;
use nix::errno::Errno;
use nix::libc::O_DIRECTORY;
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::detect::{Kind, Layout};
use super::error::CHOWN;
use super::path::Place;
use super::refusals::{Demand, demands, refuse};
use super::sub_paths::SubPaths;
use super::tree::{self, Found};
use super::v1::{pids, rdma};
use super::{Error, Hold, WayIn, files};

/// The container's directory.
#[derive(Debug)]
pub(crate) struct Unified {
    dir: PathBuf,
    /// None for a cgroup that was made by an earlier command.
    mount_point: Option<PathBuf>,
    /// Directories that `create` made, each after its parent.
    made: Vec<PathBuf>,
    /// The controllers that `create` got for the directory; None before it ran.
    controllers: Option<String>,
    pub(super) hold: Hold,
}

impl Unified {
    pub(super) fn plan(layout: &Layout, place: &Place) -> Result<Self, Error> {
        let hierarchy = layout.cgroup2().ok_or(Error::NotMounted)?;
        Ok(Self {
            dir: place.dir(hierarchy, Kind::V2),
            mount_point: Some(hierarchy.mount_point.clone()),
            made: Vec::new(),
            controllers: None,
            hold: Hold::Planned,
        })
    }

    pub(super) fn from_dir(dir: PathBuf) -> Self {
        Self {
            dir,
            mount_point: None,
            made: Vec::new(),
            controllers: None,
            hold: Hold::Ours,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn check(&self, resources: &Resources) -> Result<(), Error> {
        memory::check(&resources.memory)?;
        cpu::check(&resources.cpu)?;
        io::check(&resources.block_io)?;
        let demands = demands(resources);
        if demands.is_empty() && resources.unified.is_empty() {
            return Ok(());
        }
        // A new cgroup gets whatever its mount can hand down; an old one has what it has.
        let place = self.mount_point.as_deref().unwrap_or(&self.dir);
        let available = files::read_in(place, controllers::AVAILABLE)?;
        let has = |name: &str| {
            available
                .split_whitespace()
                .any(|available| available == name)
        };
        for Demand { v2, field, .. } in demands {
            match v2 {
                None => Err(refuse(
                    field,
                    "cgroup v2, which this machine has, cannot serve it",
                ))?,
                Some(name) if !has(name) => Err(missing(field, name, place))?,
                Some(_) => (),
            }
        }
        for name in resources.unified.keys() {
            match name.split_once('.') {
                Some((controller, _)) if controller != "cgroup" && !has(controller) => {
                    Err(missing(&format!("unified[{name:?}]"), controller, place))?;
                }
                _ => (),
            }
        }
        Ok(())
    }

    pub(super) fn create(&mut self) -> Result<(), Error> {
        let found = tree::make(&self.dir, &mut self.made)?;
        if found == Found::Present {
            tree::check_unused(&self.dir)?;
            if freezer::is_frozen(&self.dir)? {
                return Err(Error::Frozen {
                    path: self.dir.clone(),
                });
            }
        }
        let Some(mount_point) = self.mount_point.as_deref() else {
            return Ok(());
        };
        self.controllers = Some(controllers::hand_down(mount_point, &self.dir)?);
        // Directly beneath the mount point nothing can be in the way.
        if found == Found::Present || self.dir.parent() != Some(mount_point) {
            let kind = files::read_in(&self.dir, "cgroup.type")?;
            let kind = kind.trim();
            if !matches!(kind, "domain" | "domain threaded") {
                return Err(Error::Unusable {
                    path: self.dir.clone(),
                    kind: kind.to_owned(),
                });
            }
        }
        Ok(())
    }

    pub(super) fn take_made(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.made)
    }

    pub(super) fn apply(&self, resources: &Resources) -> Result<(), Error> {
        self.check_handed_down(resources)?;
        self.set_limits(resources)?;
        devices::set(&self.dir, &resources.devices)
    }

    pub(super) fn update(&self, resources: &Resources) -> Result<(), Error> {
        self.set_limits(resources)?;
        match resources.devices.as_slice() {
            [] => Ok(()),
            rules => devices::set(&self.dir, rules),
        }
    }

    /// What the mount can hand down may have stuck on the way: `check` could not know.
    fn check_handed_down(&self, resources: &Resources) -> Result<(), Error> {
        let Some(present) = &self.controllers else {
            return Ok(());
        };
        let is_missing = |name: &str| {
            !present
                .split_whitespace()
                .any(|controller| controller == name)
        };
        for Demand { v2, field, .. } in demands(resources) {
            if let Some(name) = v2.filter(|name| is_missing(name)) {
                let problem = format!(
                    "the cgroup v2 controller {name:?} cannot be handed down to {:?}: \
                     a cgroup above it holds processes, or was not given the controller",
                    self.dir
                );
                Err(refuse(field, problem))?;
            }
        }
        Ok(())
    }

    fn set_limits(&self, resources: &Resources) -> Result<(), Error> {
        let dir = self.dir.as_path();
        pids::set(dir, resources.pids_limit)?;
        memory::set(dir, &resources.memory)?;
        io::set(dir, &resources.block_io)?;
        cpu::set(dir, &resources.cpu)?;
        cpuset::set(dir, &resources.cpu)?;
        hugetlb::set(dir, &resources.hugepages)?;
        rdma::set_limits(dir, &resources.rdma)?;
        // Last, so that a file named outright has the last word.
        for (file, value) in &resources.unified {
            for line in value.lines() {
                files::set(dir, file, line, &format!("unified[{file:?}]"))?;
            }
        }
        Ok(())
    }

    pub(super) fn way_in(&self, sub_paths: &SubPaths) -> Result<WayIn, Error> {
        Ok(WayIn {
            clone_into: Some(open_dir(&self.dir.join(sub_paths.for_all()?))?),
            tasks: Vec::new(),
        })
    }

    /// The kernel lists the files that may be given away; before 4.15 it did not.
    ///
    /// See <https://docs.kernel.org/admin-guide/cgroup-v2.html#model-of-delegation>.
    pub(super) fn delegate(&self, owner: Uid) -> Result<(), Error> {
        let give = |path: &Path| chown(path, Some(owner.as_raw()), None).map_err(files::errno);
        give(&self.dir).map_err(|answer| tree::path_error(CHOWN, &self.dir, answer))?;
        let listed = files::read(Path::new("/sys/kernel/cgroup/delegate"));
        let listed = listed
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
        for name in listed.lines() {
            let path = self.dir.join(name);
            match give(&path) {
                // Files of controllers that are not handed down.
                Ok(()) | Err(Errno::ENOENT) => (),
                Err(answer) => return Err(tree::path_error(CHOWN, &path, answer)),
            }
        }
        Ok(())
    }

    pub(super) fn kill_all(&self, signal: Signal) -> Result<(), Error> {
        let dir = self.dir.as_path();
        if signal == Signal::SIGKILL {
            let path = dir.join("cgroup.kill");
            match files::write(&path, "1") {
                Ok(()) => return Ok(()),
                // Kernels before 5.14 have no such file, and a cgroup that is gone neither.
                Err(Errno::ENOENT | Errno::ENODEV) => (),
                Err(answer) => return Err(tree::path_error("write", &path, answer)),
            }
        }
        if !dir.exists() {
            return Ok(());
        }
        let was_frozen = freezer::is_frozen(dir)?;
        let frozen = if was_frozen {
            Ok(())
        } else {
            freezer::freeze(dir)
        };
        let signalled = match frozen {
            Ok(()) => tree::signal_all(dir, signal),
            Err(_) => tree::signal_until_known(dir, signal),
        };
        if !was_frozen {
            tree::ignore_gone(freezer::thaw(dir))?;
        }
        signalled
    }
}

/// The directory as clone3(2) and bpf(2) want it.
pub(super) fn open_dir(dir: &Path) -> Result<OwnedFd, Error> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(O_DIRECTORY)
        .open(dir);
    opened
        .map(OwnedFd::from)
        .map_err(|error| tree::path_error("open", dir, files::errno(error)))
}

fn missing(field: &str, controller: &str, place: &Path) -> bundles::FieldError {
    let problem = format!("the cgroup v2 controller {controller:?} is not available in {place:?}");
    refuse(field, problem)
}

#[cfg(test)]
mod tests {
    use super::super::Cgroup;
    use super::*;

    #[test]
    fn fields_without_a_v2_counterpart_are_refused() {
        let root = tempfile::tempdir().expect("has a directory");
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory pids\n")
            .expect("is written");
        let planned = Unified {
            dir: root.path().join("web"),
            mount_point: Some(root.path().to_owned()),
            made: Vec::new(),
            controllers: None,
            hold: Hold::Planned,
        };
        let check = |json| {
            let spec = serde_json::from_str(json).expect("is well-formed");
            let resources = Resources::from_spec(Some(&spec)).expect("is in range");
            planned.check(&resources).map_err(|error| error.to_string())
        };
        assert_eq!(
            check(r#"{"memory": {"limit": 5, "useHierarchy": true}}"#),
            Ok(())
        );
        assert_eq!(
            check(r#"{"unified": {"cpu.max": "5", "cgroup.max.depth": "5"}}"#),
            Ok(())
        );
        let table = [
            (r#"{"memory": {"swappiness": 5}}"#, "memory.swappiness: "),
            (r#"{"memory": {"kernel": 5}}"#, "memory.kernel: "),
            (r#"{"memory": {"kernelTCP": 5}}"#, "memory.kernelTCP: "),
            (
                r#"{"memory": {"disableOOMKiller": true}}"#,
                "memory.disableOOMKiller: ",
            ),
            (
                r#"{"memory": {"useHierarchy": false}}"#,
                "memory.useHierarchy: ",
            ),
            (r#"{"cpu": {"realtimePeriod": 5}}"#, "cpu.realtimePeriod: "),
            (
                r#"{"cpu": {"realtimeRuntime": 5}}"#,
                "cpu.realtimeRuntime: ",
            ),
            (r#"{"network": {"classID": 5}}"#, "network.classID: "),
            (r#"{"blockIO": {"leafWeight": 50}}"#, "blockIO.leafWeight: "),
            (
                r#"{"blockIO": {"weight": 50}}"#,
                "blockIO.weight: the cgroup v2 controller \"io\"",
            ),
            (
                r#"{"unified": {"io.max": "x"}}"#,
                "unified[\"io.max\"]: the cgroup v2 controller",
            ),
        ];
        for (json, expected) in table {
            let error = check(json).expect_err(json);
            assert!(
                error.starts_with(&format!("linux.resources.{expected}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_record_is_one_directory() {
        let cgroup = Cgroup::V2(Unified::from_dir("/sys/fs/cgroup/a/web".into()));
        let text = serde_json::to_string(&cgroup.record()).expect("is JSON");
        assert_eq!(text, r#"{"":"/sys/fs/cgroup/a/web"}"#);
        let read = Cgroup::from_record(&serde_json::from_str(&text).expect("is a record"));
        assert_eq!(read.record(), cgroup.record());
        assert!(matches!(read, Cgroup::V2(_)));
    }

    #[test]
    fn a_strangers_cgroup_is_neither_taken_nor_removed() {
        let root = tempfile::tempdir().expect("has a directory");
        let dir = root.path().join("web");
        std::fs::create_dir(&dir).expect("is made");
        std::fs::write(dir.join("cgroup.procs"), "4194305\n").expect("is written");
        let mut planned = Unified::from_dir(dir.clone());
        planned.hold = Hold::Planned;
        let mut cgroup = Cgroup::V2(planned);
        let error = cgroup
            .check(&Resources::default())
            .expect_err("is in use")
            .to_string();
        assert_eq!(
            error,
            format!("cgroup {dir:?} is not empty: 1 process(es) found")
        );
        cgroup.create().expect_err("is in use");
        cgroup.kill_all(Signal::SIGKILL).expect("kills nobody");
        assert!(!dir.join("cgroup.kill").exists());
        cgroup.delete().expect("removes nothing");
        cgroup.undo_create().expect("removes nothing");
        assert!(dir.exists());
    }
}
