//! Joining the namespaces of a process by their files, before Linux 5.8.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use super::NEW_TIME;
use crate::sys::{CallError, Called};

/// The names in `/proc/PID/ns`, the mount namespace last: it takes `/proc` away.
const FILES: &[(CloneFlags, &str)] = &[
    (CloneFlags::CLONE_NEWUSER, "user"),
    (CloneFlags::CLONE_NEWPID, "pid"),
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
    (NEW_TIME, "time"),
    (CloneFlags::CLONE_NEWNS, "mnt"),
];

/// Moves the calling process into those of `flags` that the process has which `pidfd` means.
///
/// # Errors
/// open(2)'s and setns(2)'s; ESRCH when the process has ended.
pub(super) fn join_those_of(pidfd: &OwnedFd, flags: CloneFlags) -> Result<(), CallError> {
    let pid = pid_of(pidfd)?;
    let mut files = Vec::new();
    for (flag, name) in FILES.iter().filter(|(flag, _)| flags.contains(*flag)) {
        let path = format!("/proc/{pid}/ns/{name}");
        let file = File::open(&path).called(|| format!("open({path:?})"))?;
        files.push((*flag, *name, file));
    }
    // Only a process that lives now has had its own number all the time.
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ended, PollTimeout::ZERO).called(|| "poll(pidfd)".into())? != 0 {
        return Err(gone());
    }
    // Those that the host's root owns before the user namespace, the others after it.
    let (user, others): (Vec<_>, Vec<_>) = files
        .iter()
        .partition(|(flag, ..)| *flag == CloneFlags::CLONE_NEWUSER);
    let mut later = Vec::new();
    for one in others {
        match setns(one.2.as_fd(), one.0) {
            Err(Errno::EPERM) if !user.is_empty() => later.push(one),
            done => done.called(|| format!("setns({})", one.1))?,
        }
    }
    for (flag, name, file) in user.into_iter().chain(later) {
        setns(file.as_fd(), *flag).called(|| format!("setns({name})"))?;
    }
    Ok(())
}

/// The number that the process of `pidfd` has in this procfs.
fn pid_of(pidfd: &OwnedFd) -> Result<i32, CallError> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = fs::read_to_string(&path).called(|| format!("read({path:?})"))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    match pid.and_then(|pid| pid.trim().parse().ok()) {
        Some(pid) if pid > 0 => Ok(pid),
        _ => Err(gone()),
    }
}

fn gone() -> CallError {
    CallError {
        call: "setns(pidfd)".into(),
        errno: Errno::ESRCH,
    }
}
