//! The process in between, which only a joined PID or user namespace costs: it joins, makes init
//! beside itself, and ends.

use std::os::fd::OwnedFd;

use anyhow::Context;
use bundles::config::linux::namespaces::Kind;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::unistd::{Pid, pipe2, read};

use super::plan::InitPlan;
use super::{enter_cgroups, fail, run, set_own_oom_score};
use crate::namespaces;
use crate::process::handshake::{FromInit, InitEnd};
use crate::sys::CallError;
use crate::sys::clone3::{CloneArgs, Cloned, clone3};

/// The process in between: joins, makes init beside itself, and ends.
///
/// # Safety
/// As [`clone3`]: the calling process has one thread.
#[allow(
    unsafe_code,
    reason = "the second clone, which only the process in between can make"
)]
pub(crate) unsafe fn run_intermediate(
    mut plan: InitPlan,
    end: InitEnd,
    listener: Option<OwnedFd>,
) -> ! {
    let join = |plan: &mut InitPlan| -> anyhow::Result<()> {
        enter_cgroups(false, &mut plan.way_in, &end)?;
        set_own_oom_score(plan)?;
        let time = plan.namespaces.open_time()?;
        // No process of a joined namespace may look into this one (CVE-2016-9962).
        prctl::set_dumpable(false).context("prctl(DUMPABLE)")?;
        if let Some(pid) = plan.namespaces.joined_pid.take() {
            plan.namespaces.joined.push((Kind::Pid, pid));
        }
        plan.namespaces.join()?;
        if plan.namespaces.joined_user().is_some() {
            // The clocks are that user namespace's. Otherwise the new one is still to come.
            plan.namespaces.make_time(time.as_ref())?;
        }
        plan.namespaces.joined.clear();
        Ok(())
    };
    let piped = join(&mut plan).and_then(|()| pipe2(OFlag::O_CLOEXEC).context("pipe2"));
    let (told, teller) = match piped {
        Ok(piped) => piped,
        Err(error) => fail(&end.0, &error),
    };
    let flags = plan.namespaces.clone_flags | u64::from(libc::CLONE_PARENT.cast_unsigned());
    // SAFETY: the caller promises one thread; this process has made none since its own clone.
    match unsafe {
        clone3(CloneArgs {
            flags,
            cgroup: None,
        })
    } {
        Ok(Cloned::Child) => {
            // Init says nothing before its maker has said who it is; that one ends then.
            drop(teller);
            while read(&told, &mut [0]) == Err(Errno::EINTR) {}
            drop(told);
            run(plan, end, listener)
        }
        Ok(Cloned::Parent { pid, pidfd }) => {
            let sent = end.send(&FromInit::Cloned {
                pid: Pid::as_raw(pid),
                pidfd,
            });
            std::process::exit(i32::from(sent.is_err()))
        }
        Err(errno) => {
            let error = CallError {
                call: format!("clone3({})", namespaces::clone_flag_names(flags)),
                errno,
            };
            let step = plan.namespaces.failed_clone(errno);
            fail(&end.0, &anyhow::Error::new(error).context(step))
        }
    }
}
