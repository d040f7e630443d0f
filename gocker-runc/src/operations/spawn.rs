//! Makes the container process.
#![allow(
    unsafe_code,
    reason = "clone3 cannot be made safe: who calls it promises one thread"
)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, bail, ensure};
use bundles::config::linux::namespaces::Kind;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::cgroups::{Cgroup, WayIn};
use crate::init::intermediate::run_intermediate;
use crate::init::join::{self, JoinPlan};
use crate::init::{self, plan::InitPlan};
use crate::namespaces;
use crate::process::handshake::{FromInit, InitEnd, RuntimeEnd};
use crate::sys::caller::is_ordinary_user;
use crate::sys::clone3::{CloneArgs, Cloned, clone3};
use crate::sys::{Called, seqpacket};

/// The container process, as its maker holds it.
pub(super) struct Spawned {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) end: RuntimeEnd,
    /// Whether it waits to be moved into its cgroup.
    pub(super) awaits_cgroup: bool,
}

/// What to do where the caller may not put a process into the cgroup, as a user in a session
/// that lies beside the cgroups of the user's systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// Give up.
    Refused,
    /// systemd will move it.
    Moved,
}

impl Outside {
    /// With a unit of systemd's there is somebody who can.
    pub(super) fn when(has_unit: bool) -> Self {
        if has_unit { Self::Moved } else { Self::Refused }
    }
}

/// Clones, and runs `plan` in the child.
///
/// # Errors
/// The namespace that cannot be made or joined; a second thread in this process.
pub(super) fn spawn(
    mut plan: InitPlan,
    way_in: WayIn,
    listener: Option<OwnedFd>,
    outside: Outside,
) -> anyhow::Result<Spawned> {
    ensure!(has_one_thread()?, "the runtime has more than one thread");
    let (ours, theirs) = seqpacket::pair().context("socketpair")?;
    let (end, theirs) = (RuntimeEnd(ours), InitEnd(theirs));
    plan.way_in = way_in.tasks;
    let intermediate = plan.namespaces.intermediate;
    let flags = if intermediate {
        0
    } else {
        plan.namespaces.clone_flags
    };
    let own_pid_namespace = if intermediate {
        None
    } else {
        enter_pid_namespace(&mut plan)?
    };
    let cgroup = way_in.clone_into.as_ref().map(AsFd::as_fd);
    // SAFETY: this process has one thread, which was just counted.
    let mut cloned = unsafe { clone3(CloneArgs { flags, cgroup }) };
    if matches!(cloned, Err(Errno::EACCES)) && outside == Outside::Moved {
        plan.awaits_cgroup = true;
        let cgroup = None;
        // SAFETY: as before.
        cloned = unsafe { clone3(CloneArgs { flags, cgroup }) };
    }
    let awaits_cgroup = plan.awaits_cgroup;
    match cloned
        .called(|| format!("clone3({})", namespaces::clone_flag_names(flags)))
        .map_err(|error| {
            let step = plan.namespaces.failed_clone(error.errno);
            anyhow::Error::new(error).context(step)
        })? {
        // SAFETY: the child of a process with one thread has one.
        Cloned::Child if intermediate => unsafe { run_intermediate(plan, theirs, listener) },
        Cloned::Child => init::run(plan, theirs, listener),
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            if let Some(own) = own_pid_namespace {
                namespaces::enter(Kind::Pid, &own)?;
            }
            if intermediate {
                return adopt(pid, end, awaits_cgroup);
            }
            Ok(Spawned {
                pid,
                pidfd,
                end,
                awaits_cgroup,
            })
        }
    }
}

/// Clones, and has the child join the container that `plan` names. `elsewhere` is its init, whose
/// cgroup is entered where the container has divided its own.
///
/// # Errors
/// The call; a second thread in this process.
pub(super) fn spawn_further(
    mut plan: JoinPlan,
    way_in: WayIn,
    elsewhere: Option<Pid>,
    outside: Outside,
) -> anyhow::Result<Spawned> {
    ensure!(has_one_thread()?, "the runtime has more than one thread");
    let (ours, theirs) = seqpacket::pair().context("socketpair")?;
    let (end, theirs) = (RuntimeEnd(ours), InitEnd(theirs));
    plan.way_in = way_in.tasks;
    plan.process.cpu_affinity.begin()?;
    // The child inherits it: it is there before anybody in the container can see the child.
    prctl::set_dumpable(false).context("prctl(DUMPABLE)")?;
    // It works for the next child, the last one that this process has. An ordinary user has the
    // right to do it, and everything else that comes, only in the user namespace.
    let mut ahead = CloneFlags::CLONE_NEWPID;
    if is_ordinary_user() {
        ahead |= CloneFlags::CLONE_NEWUSER;
    }
    let ahead = plan.namespaces & ahead;
    plan.namespaces.remove(ahead);
    namespaces::join_those_of(&plan.init, ahead).context("join the container's namespaces")?;
    let clone = |cgroup: Option<&OwnedFd>| {
        let args = CloneArgs {
            flags: 0,
            cgroup: cgroup.map(AsFd::as_fd),
        };
        // SAFETY: this process has one thread, which was just counted.
        unsafe { clone3(args) }
    };
    let mut cloned = clone(way_in.clone_into.as_ref());
    if let (Err(Errno::EBUSY), Some(init)) = (&cloned, elsewhere) {
        cloned = clone(Some(&Cgroup::cgroup2_of(init)?));
    }
    if matches!(cloned, Err(Errno::EACCES)) && outside == Outside::Moved {
        plan.awaits_cgroup = true;
        cloned = clone(None);
    }
    let awaits_cgroup = plan.awaits_cgroup;
    match cloned.called(|| "clone3()".into())? {
        Cloned::Child => join::run(plan, theirs),
        Cloned::Parent { pid, pidfd } => Ok(Spawned {
            pid,
            pidfd,
            end,
            awaits_cgroup,
        }),
    }
}

/// Joining a PID namespace works for the next child; returns the way back.
fn enter_pid_namespace(plan: &mut InitPlan) -> anyhow::Result<Option<OwnedFd>> {
    let Some(joined) = plan.namespaces.joined_pid.take() else {
        return Ok(None);
    };
    let own = fs::File::open("/proc/self/ns/pid").context("open(/proc/self/ns/pid)")?;
    namespaces::enter(Kind::Pid, &joined)?;
    Ok(Some(own.into()))
}

/// Takes over init from the process in between, whose pid is `between`.
fn adopt(between: Pid, end: RuntimeEnd, awaits_cgroup: bool) -> anyhow::Result<Spawned> {
    let said = end.receive()?;
    waitpid(between, None).context("waitpid")?;
    match said {
        Some(FromInit::Cloned { pid, pidfd }) => Ok(Spawned {
            pid: Pid::from_raw(pid),
            pidfd,
            end,
            awaits_cgroup,
        }),
        Some(FromInit::Failed(why)) => bail!(why),
        _ => bail!("the process that joins namespaces ended early"),
    }
}

pub(super) fn has_one_thread() -> anyhow::Result<bool> {
    Ok(fs::read_dir("/proc/self/task")
        .context("list /proc/self/task")?
        .count()
        == 1)
}
