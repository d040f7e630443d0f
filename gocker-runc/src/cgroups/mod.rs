//! The control group of a container: made, limited, entered, watched, removed.
//!
//! ```text
//! detect::Layout ──┐
//! cgroupsPath, id ─┴─ Cgroup::plan ── check ── create ── apply_before_entry ── way_in ── apply
//!                     (pure)       (refuses)     └── undo_create               (a process enters)
//!
//! record ── state.json ── from_record ── processes, kill_all, freeze, update, stats, delete
//! ```
//!
//! Two layouts are served. On *v2* there is one directory. On *v1* there is one in each
//! hierarchy; a *hybrid* machine is v1 with one cgroup2 hierarchy beside the others, where the
//! container has a directory too. A *shared* one is none: the container of a user who may make
//! none stays where the runtime is.
//!
//! Spec: config-linux.md#configLinuxCgroups

pub(crate) mod detect;
pub(crate) mod device_rules;
mod error;
mod files;
pub(crate) mod mounts;
pub(crate) mod oom;
mod path;
mod refusals;
mod shared;
pub(crate) mod stats;
pub(crate) mod sub_paths;
pub(crate) mod systemd;
mod tree;
mod v1;
mod v2;
mod way_in;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bundles::config::linux::resources::Resources;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};
use serde::{Deserialize, Serialize};

use detect::{Kind, Layout};
pub(crate) use error::Error;
use mounts::{CgroupMounts, View};
use oom::OomWatch;
use shared::Shared;
use stats::Stats;
use sub_paths::SubPaths;
pub(crate) use way_in::WayIn;

/// One container's cgroup, made or still to be made.
#[derive(Debug)]
pub(crate) enum Cgroup {
    /// A directory in each hierarchy.
    V1(v1::Hierarchies),
    /// One directory.
    V2(v2::Unified),
    /// None of its own.
    Shared(Shared),
}

/// What `state.json` keeps: the directory of each controller, and on v2 the one directory
/// under the empty name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Record(pub BTreeMap<String, PathBuf>);

/// Whether the directories are the container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Not yet; they may be somebody else's.
    Planned,
    /// They were made, or found empty, for it.
    Ours,
}

impl Cgroup {
    /// Decides where the cgroup of container `id` lies. Makes nothing.
    ///
    /// # Errors
    /// A `cgroups_path` that climbs out, or a machine without the controller for devices.
    pub(crate) fn plan(
        layout: &Layout,
        cgroups_path: Option<&str>,
        id: &str,
    ) -> Result<Self, Error> {
        let place = path::Place::parse(cgroups_path, id)?;
        match layout.kind() {
            Kind::V1 => Ok(Self::V1(v1::Hierarchies::plan(layout, &place)?)),
            Kind::V2 => Ok(Self::V2(v2::Unified::plan(layout, &place)?)),
        }
    }

    /// The same for a rootless container that asked for no place: what this user may not make is
    /// left out, and perhaps nothing remains.
    ///
    /// # Errors
    /// An id that cannot be a cgroup's name.
    pub(crate) fn plan_rootless(layout: Option<&Layout>, id: &str) -> Result<Self, Error> {
        let place = path::Place::parse(None, id)?;
        let refused = match layout.map(|layout| (layout, layout.kind())) {
            None => None,
            Some((layout, Kind::V1)) => match v1::Hierarchies::plan_rootless(layout, &place) {
                Ok(hierarchies) => return Ok(Self::V1(hierarchies)),
                Err(refused) => refused,
            },
            Some((layout, Kind::V2)) => {
                let unified = v2::Unified::plan(layout, &place)?;
                if tree::may_make(unified.dir()) && tree::may_move(unified.dir()) {
                    return Ok(Self::V2(unified));
                }
                Some(unified.dir().to_owned())
            }
        };
        Ok(Self::Shared(Shared { refused }))
    }

    /// Refuses what cannot be applied to a new cgroup on this machine, before anything is made.
    ///
    /// # Errors
    /// Names the field; a cgroup of this path that is in use.
    pub(crate) fn check(&self, resources: &Resources) -> Result<(), Error> {
        refusals::check_new(resources)?;
        match self {
            Self::V1(hierarchies) => {
                tree::check_unused(hierarchies.main_dir())?;
                hierarchies.check(resources)
            }
            Self::V2(unified) => {
                tree::check_unused(unified.dir())?;
                unified.check(resources)
            }
            Self::Shared(shared) => Ok(shared.check(resources)?),
        }
    }

    /// Makes the directories. What it made, it takes away again when it fails.
    ///
    /// A directory that was there before is used if nobody is in it.
    ///
    /// # Errors
    /// The kernel's answer; a cgroup that is in use or frozen.
    pub(crate) fn create(&mut self) -> Result<(), Error> {
        let created = match self {
            Self::V1(hierarchies) => hierarchies.create(),
            Self::V2(unified) => unified.create(),
            Self::Shared(_) => Ok(()),
        };
        match created {
            Ok(()) => {
                self.take_hold();
                Ok(())
            }
            // The first error is the one to tell; the directories are empty.
            Err(error) => match self.undo_create() {
                Ok(()) | Err(_) => Err(error),
            },
        }
    }

    /// Whether a process has to be put into it when systemd has started its unit: on v1
    /// systemd clears away what is empty beneath a slice, whenever it starts or stops a unit there.
    pub(crate) fn is_entered_late(&self) -> bool {
        matches!(self, Self::V1(_))
    }

    /// Puts the first process into a cgroup that is entered late.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn complete(&mut self, pid: Pid) -> Result<(), Error> {
        match self {
            Self::V1(hierarchies) => hierarchies.complete(pid),
            Self::V2(_) | Self::Shared(_) => Ok(()),
        }
    }

    /// Removes what [`Self::create`] made, parents too.
    ///
    /// # Errors
    /// A directory that somebody is in.
    pub(crate) fn undo_create(&mut self) -> Result<(), Error> {
        let own: Vec<PathBuf> = self.dirs().into_iter().map(Path::to_owned).collect();
        let made = match self {
            Self::V1(hierarchies) => hierarchies.take_made(),
            Self::V2(unified) => unified.take_made(),
            Self::Shared(_) => Vec::new(),
        };
        tree::remove_made(made, &own)
    }

    /// Does what cannot wait until a process is in: device rules of v1 come one by one after
    /// all is denied, and a process would meet that moment. Without this call
    /// [`Self::apply`] does it.
    ///
    /// # Errors
    /// The field, the file and the kernel's answer.
    pub(crate) fn apply_before_entry(&mut self, resources: &Resources) -> Result<(), Error> {
        match self {
            Self::V1(hierarchies) => hierarchies.apply_before_entry(resources),
            // A program is attached in one step.
            Self::V2(_) | Self::Shared(_) => Ok(()),
        }
    }

    /// Sets the limits and device rules of a new cgroup.
    ///
    /// # Errors
    /// The field, the file and the kernel's answer.
    pub(crate) fn apply(&self, resources: &Resources) -> Result<(), Error> {
        match self {
            Self::V1(hierarchies) => hierarchies.apply(resources),
            Self::V2(unified) => unified.apply(resources),
            // `check` has refused every limit.
            Self::Shared(_) => Ok(()),
        }
    }

    /// Changes the limits of a living container; `unit` is systemd's, where it has made the
    /// cgroup, and is told first, since it writes what it knows over what is there. Device rules are replaced where `resources`
    /// has any, and stay where it has none.
    ///
    /// # Errors
    /// A field that this machine cannot serve; the field, the file and the kernel's answer.
    pub(crate) fn update(
        &self,
        resources: &Resources,
        unit: Option<&systemd::Unit>,
    ) -> Result<(), Error> {
        match self {
            Self::V1(hierarchies) => {
                hierarchies.check(resources)?;
                let tell =
                    |unit: &systemd::Unit| unit.update(&self.with_period(resources), Kind::V1);
                hierarchies.update(resources, unit.map(|unit| move || tell(unit)))
            }
            Self::V2(unified) => {
                unified.check(resources)?;
                v2::memory::check_before(unified.dir(), &resources.memory)?;
                if let Some(unit) = unit {
                    unit.update(&self.with_period(resources), Kind::V2)?;
                }
                unified.update(resources)
            }
            Self::Shared(shared) => Ok(shared.check(resources)?),
        }
    }

    /// With the period that the quota is for: systemd keeps their ratio.
    fn with_period(&self, resources: &Resources) -> Resources {
        let mut resources = resources.clone();
        if resources.cpu.quota_us.is_some() && resources.cpu.period_us.is_none() {
            resources.cpu.period_us = match self {
                Self::V1(hierarchies) => hierarchies.dir("cpu").and_then(v1::cpu::period_us),
                Self::V2(unified) => v2::cpu::period_us(unified.dir()),
                Self::Shared(_) => None,
            };
        }
        resources
    }

    /// Opens what a new process needs to enter.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn way_in(&self) -> Result<WayIn, Error> {
        self.way_in_beneath(&SubPaths::default())
    }

    /// The same for places beneath the container's cgroup, which must be there.
    ///
    /// # Errors
    /// A place that is not there, or that this machine's cgroups do not know.
    pub(crate) fn way_in_beneath(&self, sub_paths: &SubPaths) -> Result<WayIn, Error> {
        match self {
            Self::V1(hierarchies) => hierarchies.way_in(sub_paths),
            Self::V2(unified) => unified.way_in(sub_paths),
            Self::Shared(_) if sub_paths.are_given() => Err(Error::Shared),
            Self::Shared(_) => Ok(WayIn {
                clone_into: None,
                tasks: Vec::new(),
            }),
        }
    }

    /// Opens the cgroup2 directory that process `pid` is in. Once a container has divided its
    /// cgroup, nobody can enter the top of it (EBUSY), and its init tells where to go instead.
    ///
    /// # Errors
    /// No cgroup2 is mounted, or the kernel's answer.
    pub(crate) fn cgroup2_of(pid: Pid) -> Result<OwnedFd, Error> {
        let layout = Layout::detect(Path::new("/proc"))?;
        let hierarchy = layout.cgroup2().ok_or(Error::NotMounted)?;
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = files::read(&path).map_err(|answer| tree::path_error("read", &path, answer))?;
        let place = text.lines().find_map(|line| line.strip_prefix("0::"));
        let place = place.ok_or(Error::NotMounted)?;
        v2::open_dir(&hierarchy.dir_of(place))
    }

    /// Gives the cgroup to `owner`, so that the container can divide it among its own
    /// sub-cgroups. Where the container has a cgroup namespace and a writable mount of it.
    /// Only v2 can be delegated safely; on v1 nothing changes hands.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn delegate(&self, owner: Uid) -> Result<(), Error> {
        match self {
            Self::V1(_) | Self::Shared(_) => Ok(()),
            Self::V2(unified) => unified.delegate(owner),
        }
    }

    /// All processes of the container, those in its sub-cgroups too. None when it is gone.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn processes(&self) -> Result<Vec<Pid>, Error> {
        match self {
            Self::V1(hierarchies) => tree::processes(hierarchies.main_dir()),
            Self::V2(unified) => tree::processes(unified.dir()),
            Self::Shared(_) => Ok(Vec::new()),
        }
    }

    /// Whether the container has none of its own, and so nothing here tells its processes.
    #[must_use]
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Sends `signal` to every process of the container, in a way that none escapes by
    /// forking. SIGKILL reaches a frozen container too. A cgroup that was only planned, or
    /// whose making failed, may be somebody else's: nobody is signalled there.
    ///
    /// # Errors
    /// A signal that was not delivered, or a freezer that did not obey.
    pub(crate) fn kill_all(&self, signal: Signal) -> Result<(), Error> {
        if self.hold() == Hold::Planned {
            return Ok(());
        }
        match self {
            Self::V1(hierarchies) => hierarchies.kill_all(signal),
            Self::V2(unified) => unified.kill_all(signal),
            Self::Shared(_) => Ok(()),
        }
    }

    /// Stops every process of the container, and returns when all stand still.
    ///
    /// # Errors
    /// No freezer, or not all stood still in time; then they run again.
    pub(crate) fn freeze(&self) -> Result<(), Error> {
        match self {
            Self::V1(hierarchies) => v1::freezer::freeze(hierarchies.freezer_dir()?),
            Self::V2(unified) => v2::freezer::freeze(unified.dir()),
            Self::Shared(_) => Err(Error::Shared),
        }
    }

    /// The directory of the freezer; None where there is none.
    #[must_use]
    pub(crate) fn freezer_dir(&self) -> Option<&Path> {
        match self {
            Self::V1(hierarchies) => hierarchies.freezer_dir().ok(),
            Self::V2(unified) => Some(unified.dir()),
            Self::Shared(_) => None,
        }
    }

    /// Lets every process of the container go on.
    ///
    /// # Errors
    /// No freezer, or the kernel's answer.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        match self {
            Self::V1(hierarchies) => v1::freezer::thaw(hierarchies.freezer_dir()?),
            Self::V2(unified) => v2::freezer::thaw(unified.dir()),
            Self::Shared(_) => Err(Error::Shared),
        }
    }

    /// Whether the container was frozen. One that is gone, or has no freezer, is not.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn is_frozen(&self) -> Result<bool, Error> {
        match self {
            Self::V1(hierarchies) => hierarchies
                .freezer_dir()
                .ok()
                .map_or(Ok(false), v1::freezer::is_frozen),
            Self::V2(unified) => v2::freezer::is_frozen(unified.dir()),
            Self::Shared(_) => Ok(false),
        }
    }

    /// Begins to watch for processes that the kernel kills for want of memory; None where
    /// nobody counts them.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn watch_oom(&self) -> Result<Option<OomWatch>, Error> {
        match self {
            Self::V1(hierarchies) => hierarchies.dir("memory").map(OomWatch::on_v1).transpose(),
            Self::V2(unified) => OomWatch::on_v2(unified.dir()),
            Self::Shared(_) => Err(Error::Shared),
        }
    }

    /// What the container uses at this moment.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn stats(&self) -> Result<Stats, Error> {
        match self {
            Self::V1(hierarchies) => stats::read_v1(hierarchies),
            Self::V2(unified) => stats::read_v2(unified.dir()),
            Self::Shared(_) => Err(Error::Shared),
        }
    }

    /// Removes the container's cgroup and every sub-cgroup that it made; its parents stay.
    /// What is already gone is no error. Processes that are about to vanish are waited for.
    /// As with [`Self::kill_all`], what was only planned is left alone.
    ///
    /// # Errors
    /// A directory that somebody is still in.
    pub(crate) fn delete(&self) -> Result<(), Error> {
        if self.hold() == Hold::Planned {
            return Ok(());
        }
        // All of them are tried; one that is busy does not keep the others.
        let removals: Vec<_> = self
            .dirs()
            .iter()
            .map(|dir| tree::remove_tree(dir))
            .collect();
        removals.into_iter().collect()
    }

    /// What to keep in `state.json`.
    #[must_use]
    pub(crate) fn record(&self) -> Record {
        match self {
            Self::V1(hierarchies) => hierarchies.record(),
            Self::V2(unified) => Record([(String::new(), unified.dir().to_owned())].into()),
            Self::Shared(_) => Record::default(),
        }
    }

    /// The cgroup of a container that was made before.
    #[must_use]
    pub(crate) fn from_record(record: &Record) -> Self {
        match record.0.get("") {
            Some(dir) if record.0.len() == 1 => Self::V2(v2::Unified::from_dir(dir.clone())),
            None if record.0.is_empty() => Self::Shared(Shared::default()),
            _ => Self::V1(v1::Hierarchies::from_record(record)),
        }
    }

    /// What a mount of type `cgroup` shows in the container.
    #[must_use]
    pub(crate) fn mount_list(&self, layout: Option<&Layout>, view: View) -> CgroupMounts {
        mounts::list(self, layout, view)
    }

    fn hold(&self) -> Hold {
        match self {
            Self::V1(hierarchies) => hierarchies.hold,
            Self::V2(unified) => unified.hold,
            Self::Shared(_) => Hold::Planned,
        }
    }

    fn take_hold(&mut self) {
        match self {
            Self::V1(hierarchies) => hierarchies.hold = Hold::Ours,
            Self::V2(unified) => unified.hold = Hold::Ours,
            Self::Shared(_) => (),
        }
    }

    fn dirs(&self) -> Vec<&Path> {
        match self {
            Self::V1(hierarchies) => hierarchies.dirs().collect(),
            Self::V2(unified) => vec![unified.dir()],
            Self::Shared(_) => Vec::new(),
        }
    }
}
