//! How children end, real-time signals included, which nix takes for errors.
#![allow(unsafe_code, reason = "nix's waitpid knows no real-time signals")]

use nix::errno::Errno;
use nix::unistd::Pid;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this exit status.
    Exited(i32),
    /// By the signal of this number.
    Killed(i32),
}

/// Waits until child `pid` has ended, and collects it.
///
/// # Errors
/// wait(2)'s.
pub(crate) fn wait_for(pid: Pid) -> Result<Ended, Errno> {
    loop {
        match wait(pid.as_raw(), 0) {
            Err(Errno::EINTR) | Ok(None) => {}
            Ok(Some((_, ended))) => return Ok(ended),
            Err(errno) => return Err(errno),
        }
    }
}

/// Collects a child that has ended; None where none has.
///
/// # Errors
/// wait(2)'s; ECHILD without any child.
pub(crate) fn collect_any() -> Result<Option<(Pid, Ended)>, Errno> {
    wait(-1, libc::WNOHANG)
}

fn wait(pid: i32, options: i32) -> Result<Option<(Pid, Ended)>, Errno> {
    let mut status = 0;
    // SAFETY: `status` is an int that outlives the call.
    let pid = Errno::result(unsafe { libc::waitpid(pid, &raw mut status, options) })?;
    let ended = if libc::WIFSIGNALED(status) {
        Ended::Killed(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    };
    Ok((pid > 0).then_some((Pid::from_raw(pid), ended)))
}
