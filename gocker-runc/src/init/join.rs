//! The `exec` way in: a process that joins a living container, and then goes the way that init
//! goes.
//!
//! ```text
//! runtime: PR_SET_DUMPABLE 0, setns(PID) ──clone3──> closes the runtime's descriptors
//!                                                    enters the cgroups
//!                                                    setns(all the others)
//!                                                    terminal, user, capabilities, execve
//! ```
//!
//! The runtime is made non-dumpable before it clones, and the clone inherits that: there is no
//! moment in which a process of the container could look into it (CVE-2016-9962).

use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::Context;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{chroot, fchdir, setsid};

use super::plan::ProcessPlan;
use super::{
    become_program, enter_cgroups, fail, give_console, join_keyring, prepare_program, with_home,
};
use crate::process::handshake::{FromInit, InitEnd, ToInit};
use crate::sys::in_root::RootFd;
use crate::sys::procfs::ProcFd;
use crate::sys::{self, Called};
use crate::{console, namespaces};

/// The plan of a further process.
#[derive(Debug)]
pub(crate) struct JoinPlan {
    /// The container's id, for the keyring's name.
    pub(crate) id: String,
    /// The container's init, as a pidfd.
    pub(crate) init: OwnedFd,
    /// Which of its namespaces are still to join.
    pub(crate) namespaces: CloneFlags,
    /// Whether it has a user namespace.
    pub(crate) in_user_namespace: bool,
    /// Its root directory, where it has no mount namespace that would bring it.
    pub(crate) root: Option<OwnedFd>,
    /// v1's files to write oneself into.
    pub(crate) way_in: Vec<OwnedFd>,
    /// Whether the runtime has it moved into the container's cgroup.
    pub(crate) awaits_cgroup: bool,
    /// Whether there is a session keyring of the container's.
    pub(crate) keyring: bool,
    /// Whether the runtime has something to set before the program is executed.
    pub(crate) awaits_runtime: bool,
    /// The program.
    pub(crate) process: ProcessPlan,
}

/// Joins, and becomes the process.
pub(crate) fn run(mut plan: JoinPlan, end: InitEnd) -> ! {
    match join(&mut plan, &end) {
        Err(error) => fail(&end.0, &error),
        Ok(never) => match never {},
    }
}

fn join(plan: &mut JoinPlan, end: &InitEnd) -> anyhow::Result<Infallible> {
    close_the_runtimes(plan, end)?;
    // If the runtime is killed meanwhile, so is this process.
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PDEATHSIG)")?;
    enter_cgroups(plan.awaits_cgroup, &mut plan.way_in, end)?;
    plan.process.cpu_affinity.settle()?;
    let labels = &plan.process.labels;
    // While /proc is the host's.
    let proc = labels.are_given().then(ProcFd::private).transpose()?;
    namespaces::join_those_of(&plan.init, plan.namespaces)
        .context("join the container's namespaces")?;
    if let Some(root) = &plan.root {
        fchdir(root).called(|| "fchdir(root)".into())?;
        chroot(".").called(|| "chroot(.)".into())?;
    }
    if plan.in_user_namespace {
        namespaces::user::become_root().context("take root's ids in the user namespace")?;
    }
    // A session of its own, so that no terminal of the caller's is the process's.
    setsid().context("setsid")?;
    if plan.keyring {
        join_keyring(&plan.id, proc.as_ref().map(|proc| (labels, proc)))?;
    }
    let process = &plan.process;
    let root = RootFd::open(Path::new("/"))?;
    let env = with_home(process, &root);
    if process.terminal {
        let console = console::open(&root, process.console_size).context("open a terminal")?;
        if let Some(console) = give_console(Some(console), end, process)? {
            console.attach().context("attach the terminal")?;
        }
    }
    drop(root);
    if plan.awaits_runtime {
        end.send(&FromInit::Prepared)?;
        end.expect(ToInit::Start)?;
    }
    let prepared = prepare_program(
        (process, env),
        (plan.in_user_namespace, false),
        proc.as_ref(),
        end,
    )?;
    Err(become_program(process, &prepared))
}

/// Closes every descriptor that is the runtime's own.
fn close_the_runtimes(plan: &JoinPlan, end: &InitEnd) -> anyhow::Result<()> {
    let own = plan.way_in.iter().chain(&plan.root);
    let mut kept: Vec<RawFd> = own.map(AsRawFd::as_raw_fd).collect();
    kept.extend([plan.init.as_raw_fd(), end.0.as_raw_fd()]);
    let first = 3 + i32::try_from(plan.process.preserve_fds).context("--preserve-fds")?;
    sys::close_range::close_all_but(first, kept).called(|| "close_range".into())?;
    Ok(())
}
