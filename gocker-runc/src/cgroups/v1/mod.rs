//! cgroup v1 and hybrid: a directory of the container's in each hierarchy.
//!
//! ```text
//! /sys/fs/cgroup/cpu,cpuacct/docker/ID     cpu.shares  cpu.cfs_quota_us  ...  tasks
//!               /memory/docker/ID          memory.limit_in_bytes         ...  tasks
//!               /systemd/docker/ID         (no controller: name=systemd) ...  tasks
//!               /unified/docker/ID         (cgroup2, on hybrid machines)
//! ```

pub(super) mod cpu;
pub(super) mod cpuset;
mod devices;
pub(super) mod freezer;
pub(super) mod hugetlb;
mod io;
pub(super) mod memory;
mod network;
pub(super) mod pids;
pub(super) mod rdma;

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bundles::config::linux::resources::{HugepageLimit, Limit, Resources};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::detect::{Hierarchy, Kind, Layout};
use super::path::Place;
use super::refusals::{Demand, demands, refuse};
use super::shared::cannot_make;
use super::sub_paths::SubPaths;
use super::tree::{self, Found};
use super::{Error, Hold, Record, WayIn, files, v2};

/// The container's directories.
#[derive(Debug)]
pub(crate) struct Hierarchies {
    members: Vec<Member>,
    /// Where a rootless container has no part, since its user may make none.
    refused: Vec<Member>,
    /// Directories that `create` made, each after its parent.
    made: Vec<PathBuf>,
    pub(super) hold: Hold,
    /// Whether device rules were set before a process entered.
    has_device_rules: bool,
}

/// The container's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    /// As in [`super::detect::Hierarchy`]: empty for cgroup2.
    controllers: Vec<String>,
    dir: PathBuf,
}

impl Hierarchies {
    pub(super) fn plan(layout: &Layout, place: &Place) -> Result<Self, Error> {
        let planned = Self::of(members(layout, place), Vec::new());
        planned.dir("devices").ok_or(Error::NoDevices)?;
        Ok(planned)
    }

    /// What this user may make; where that is nothing, the error is one directory of it.
    pub(super) fn plan_rootless(layout: &Layout, place: &Place) -> Result<Self, Option<PathBuf>> {
        let (members, refused): (Vec<_>, Vec<_>) =
            members(layout, place).into_iter().partition(|member| {
                tree::may_make(&member.dir)
                    && (!member.controllers.is_empty() || tree::may_move(&member.dir))
            });
        if members.is_empty() {
            return Err(refused.into_iter().next().map(|member| member.dir));
        }
        Ok(Self::of(members, refused))
    }

    /// Whether containers have a part in a hierarchy of v1. A named tree belongs to whoever mounted
    /// it; systemd's is joined, since a systemd in the container expects to be in one.
    pub(super) fn are_joined(hierarchy: &Hierarchy) -> bool {
        let is_named = |name: &String| name.starts_with("name=") && name != SYSTEMD;
        !hierarchy.controllers.is_empty() && !hierarchy.controllers.iter().any(is_named)
    }

    fn of(members: Vec<Member>, refused: Vec<Member>) -> Self {
        Self {
            members,
            refused,
            made: Vec::new(),
            hold: Hold::Planned,
            has_device_rules: false,
        }
    }

    pub(super) fn check(&self, resources: &Resources) -> Result<(), Error> {
        if let Some(name) = resources.unified.keys().next() {
            let field = format!("unified[{name:?}]");
            Err(refuse(
                &field,
                "is a file of cgroup v2, and this machine has cgroup v1",
            ))?;
        }
        for Demand { v1, field, .. } in demands(resources) {
            let is_served =
                self.dir(v1).is_some() || (v1 == "hugetlb" && self.hugetlb_in_cgroup2().is_some());
            if let Some(member) = self.refused.iter().find(|member| member.has(v1)) {
                Err(refuse(field, cannot_make(&member.dir)))?;
            }
            if !is_served {
                Err(refuse(
                    field,
                    format!("the cgroup v1 controller {v1:?} is not mounted"),
                ))?;
            }
        }
        cpu::check(&resources.cpu)?;
        devices::check(&resources.devices)?;
        Ok(())
    }

    pub(super) fn create(&mut self) -> Result<(), Error> {
        for member in &self.members {
            let first = self.made.len();
            let found = tree::make(&member.dir, &mut self.made)?;
            if member.has("cpuset") {
                match found {
                    Found::Absent => {
                        cpuset::fill(self.made.get(first..).unwrap_or_default())?;
                    }
                    Found::Present => cpuset::fill_empty(&member.dir)?,
                }
            }
            if found == Found::Present {
                // Not asked of each hierarchy: a process is in all of them or in none.
                if member.has("devices") {
                    tree::check_unused(&member.dir)?;
                }
                if member.has("freezer") && freezer::is_frozen(&member.dir)? {
                    return Err(Error::Frozen {
                        path: member.dir.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes again what systemd has cleared away while it started other units, and puts process
    /// `pid` into all of it.
    pub(super) fn complete(&mut self, pid: Pid) -> Result<(), Error> {
        for member in &self.members {
            let first = self.made.len();
            if tree::make(&member.dir, &mut self.made)? == Found::Absent && member.has("cpuset") {
                cpuset::fill(self.made.get(first..).unwrap_or_default())?;
            }
            let path = member.dir.join("cgroup.procs");
            files::write(&path, &pid.to_string())
                .map_err(|answer| tree::path_error("write", &path, answer))?;
        }
        // The rules may have gone with the directory.
        self.has_device_rules = false;
        Ok(())
    }

    pub(super) fn take_made(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.made)
    }

    pub(super) fn apply_before_entry(&mut self, resources: &Resources) -> Result<(), Error> {
        self.set_devices(resources)?;
        self.has_device_rules = true;
        Ok(())
    }

    pub(super) fn apply(&self, resources: &Resources) -> Result<(), Error> {
        self.set_limits(resources)?;
        if self.has_device_rules {
            return Ok(());
        }
        self.set_devices(resources)
    }

    /// A rootless container may lack this hierarchy, and then nobody can make nodes in it.
    fn set_devices(&self, resources: &Resources) -> Result<(), Error> {
        let set = |dir| devices::set(dir, &resources.devices);
        self.dir("devices").map_or(Ok(()), set)
    }

    /// `tell_systemd` comes first, where systemd has made the cgroup.
    pub(super) fn update(
        &self,
        resources: &Resources,
        tell_systemd: Option<impl FnOnce() -> Result<(), Error>>,
    ) -> Result<(), Error> {
        let devices = self
            .dir("devices")
            .filter(|_| !resources.devices.is_empty());
        // systemd denies all before it allows again.
        let is_reset = match devices {
            None => false,
            Some(_) if tell_systemd.is_some() => true,
            Some(dir) => devices::is_reset(dir, &resources.devices)?,
        };
        let change = || {
            tell_systemd.map_or(Ok(()), |tell| tell())?;
            self.set_limits(resources)?;
            devices.map_or(Ok(()), |dir| devices::update(dir, &resources.devices))
        };
        match self.dir("freezer").filter(|_| is_reset) {
            Some(freezer) => freezer::while_frozen(freezer, change),
            None => change(),
        }
    }

    fn set_limits(&self, resources: &Resources) -> Result<(), Error> {
        // What asks for a controller that is not there was refused by `check`.
        let with = |controller, set: &dyn Fn(&Path) -> Result<(), Error>| {
            self.dir(controller).map_or(Ok(()), set)
        };
        with("cpuset", &|dir| cpuset::set_lists(dir, &resources.cpu))?;
        with("cpu", &|dir| cpu::set(dir, &resources.cpu))?;
        with("memory", &|dir| memory::set(dir, &resources.memory))?;
        with("pids", &|dir| pids::set(dir, resources.pids_limit))?;
        with("blkio", &|dir| io::set(dir, &resources.block_io))?;
        with("net_cls", &|dir| {
            network::set_class(dir, resources.network.class_id)
        })?;
        with("net_prio", &|dir| {
            network::set_priorities(dir, &resources.network.priorities)
        })?;
        with("rdma", &|dir| rdma::set_limits(dir, &resources.rdma))?;
        self.set_hugepages(&resources.hugepages)
    }

    fn set_hugepages(&self, limits: &[HugepageLimit]) -> Result<(), Error> {
        if limits.is_empty() {
            return Ok(());
        }
        if let Some(dir) = self.dir("hugetlb") {
            return hugetlb::set(dir, limits);
        }
        match self.hugetlb_in_cgroup2() {
            Some(dir) => {
                v2::controllers::enable_above(dir, "hugetlb")?;
                v2::hugetlb::set(dir, limits)
            }
            None => Ok(()),
        }
    }

    /// The container's directory in the cgroup2 hierarchy of a hybrid machine, where that
    /// holds the hugetlb controller.
    pub(super) fn hugetlb_in_cgroup2(&self) -> Option<&Path> {
        let dir = &self
            .members
            .iter()
            .find(|member| member.controllers.is_empty())?
            .dir;
        // The nearest directory that exists by now.
        let existing = dir
            .ancestors()
            .find(|dir| dir.join(v2::controllers::AVAILABLE).exists())?;
        let root = existing
            .ancestors()
            .take_while(|dir| dir.join("cgroup.procs").exists())
            .last();
        let text = files::read(&root?.join(v2::controllers::AVAILABLE)).ok()?;
        text.split_whitespace()
            .any(|name| name == "hugetlb")
            .then_some(dir)
    }

    pub(super) fn way_in(&self, sub_paths: &SubPaths) -> Result<WayIn, Error> {
        sub_paths.check_known(|controller| self.dir(controller).is_some())?;
        let mut way_in = WayIn {
            clone_into: None,
            tasks: Vec::new(),
        };
        for member in &self.members {
            let dir = member
                .dir
                .join(sub_paths.for_hierarchy(&member.controllers));
            if member.controllers.is_empty() {
                way_in.clone_into = Some(v2::open_dir(&dir)?);
                continue;
            }
            let path = dir.join("tasks");
            let opened = OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(files::errno);
            let file: File = opened.map_err(|answer| tree::path_error("open", &path, answer))?;
            way_in.tasks.push(OwnedFd::from(file));
        }
        Ok(way_in)
    }

    pub(super) fn kill_all(&self, signal: Signal) -> Result<(), Error> {
        let Some(dir) = self.dir("freezer") else {
            return tree::signal_until_known(self.main_dir(), signal);
        };
        let was_frozen = freezer::is_frozen(dir)?;
        // A container that cannot be frozen is signalled all the same.
        let frozen = if was_frozen {
            Ok(())
        } else {
            freezer::freeze(dir)
        };
        let signalled = match frozen {
            Ok(()) => tree::signal_all(dir, signal),
            Err(_) => tree::signal_until_known(dir, signal),
        };
        // What is frozen cannot die of the signal, unless it was frozen on purpose and is
        // only to find the signal when it goes on.
        if !was_frozen || signal == Signal::SIGKILL {
            tree::ignore_gone(freezer::thaw(dir))?;
        }
        signalled
    }

    /// The directory of a controller.
    pub(super) fn dir(&self, controller: &str) -> Option<&Path> {
        let member = self.members.iter().find(|member| member.has(controller));
        member.map(|member| member.dir.as_path())
    }

    /// The directory that stands for the whole: that of the devices controller, without which
    /// only a rootless container is made.
    pub(super) fn main_dir(&self) -> &Path {
        self.dir("devices").unwrap_or_else(|| {
            self.members
                .first()
                .map_or(Path::new(""), |member| member.dir.as_path())
        })
    }

    pub(super) fn freezer_dir(&self) -> Result<&Path, Error> {
        self.dir("freezer").ok_or(Error::NoFreezer)
    }

    pub(super) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.members.iter().map(|member| member.dir.as_path())
    }

    pub(super) fn record(&self) -> Record {
        let mut record = Record::default();
        for member in &self.members {
            for name in member.names() {
                record.0.insert(name.to_owned(), member.dir.clone());
            }
        }
        record
    }

    pub(super) fn from_record(record: &Record) -> Self {
        let mut members: Vec<Member> = Vec::new();
        for (name, dir) in &record.0 {
            let name = (!name.is_empty()).then(|| name.clone());
            match members.iter_mut().find(|member| member.dir == *dir) {
                Some(member) => member.controllers.extend(name),
                None => members.push(Member {
                    controllers: name.into_iter().collect(),
                    dir: dir.clone(),
                }),
            }
        }
        Self {
            hold: Hold::Ours,
            has_device_rules: true,
            ..Self::of(members, Vec::new())
        }
    }
}

/// The container's place in each hierarchy that it has a part in.
fn members(layout: &Layout, place: &Place) -> Vec<Member> {
    layout
        .hierarchies()
        .iter()
        .filter(|hierarchy| hierarchy.controllers.is_empty() || Hierarchies::are_joined(hierarchy))
        .map(|hierarchy| Member {
            controllers: hierarchy.controllers.clone(),
            dir: place.dir(hierarchy, Kind::V1),
        })
        .collect()
}

const SYSTEMD: &str = "name=systemd";

impl Member {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// The controllers, or the empty name for cgroup2.
    fn names(&self) -> impl Iterator<Item = &str> {
        let cgroup2 = self.controllers.is_empty().then_some("");
        self.controllers.iter().map(String::as_str).chain(cgroup2)
    }
}

/// A limit as v1's files take it.
fn limit(limit: Limit) -> String {
    match limit {
        Limit::Unlimited => "-1".to_owned(),
        Limit::Max(max) => max.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cgroup;
    use super::super::detect::tests::{HYBRID_MOUNTS, HYBRID_OWN};
    use super::*;

    fn plan(path: &str) -> Cgroup {
        let layout = Layout::parse(HYBRID_OWN, HYBRID_MOUNTS).expect("has hierarchies");
        Cgroup::plan(&layout, Some(path), "web").expect("can be planned")
    }

    #[test]
    fn a_record_names_each_controller() {
        let planned = plan("/docker/web");
        let record = planned.record();
        let text = serde_json::to_value(&record).expect("is JSON");
        let expected = serde_json::json!({
            "": "/sys/fs/cgroup/unified/docker/web",
            "cpu": "/sys/fs/cgroup/cpu,cpuacct/docker/web",
            "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/docker/web",
            "devices": "/sys/fs/cgroup/devices/docker/web",
            "memory": "/sys/fs/cgroup/memory/docker/web",
            "name=systemd": "/sys/fs/cgroup/systemd/docker/web",
        });
        assert_eq!(text, expected);
        let read = Cgroup::from_record(&serde_json::from_value(text).expect("is a record"));
        assert_eq!(read.record(), record);
        assert_eq!(read.dirs().len(), 5);
    }

    #[test]
    fn relative_paths_lie_beneath_the_own_cgroup_of_each_hierarchy() {
        let Cgroup::V1(hierarchies) = plan("web") else {
            panic!("the layout is v1")
        };
        assert_eq!(
            hierarchies.dir("cpu"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/web"))
        );
        let memory = Path::new("/sys/fs/cgroup/memory/sessions/1/web");
        assert_eq!(hierarchies.dir("memory"), Some(memory));
    }

    #[test]
    fn what_is_not_mounted_is_refused_by_the_field() {
        let planned = plan("/web");
        let resources = |json| {
            let spec = serde_json::from_str(json).expect("is well-formed");
            Resources::from_spec(Some(&spec)).expect("is in range")
        };
        let table = [
            (
                r#"{"pids": {"limit": 3}}"#,
                "linux.resources.pids.limit: the cgroup v1 controller \"pids\" is not mounted",
            ),
            (
                r#"{"unified": {"memory.max": "3"}}"#,
                "linux.resources.unified[\"memory.max\"]: is a file of cgroup v2, \
                 and this machine has cgroup v1",
            ),
            (
                r#"{"cpu": {"shares": 1}}"#,
                "linux.resources.cpu.shares: 1 is not in 2 to 262144",
            ),
        ];
        for (json, expected) in table {
            let error = planned.check(&resources(json)).expect_err(json);
            assert_eq!(error.to_string(), expected);
        }
        planned
            .check(&resources(r#"{"memory": {"limit": 3}}"#))
            .expect("is mounted");
    }
}
