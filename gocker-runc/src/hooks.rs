//! Runs hooks: the container's state on stdin, one after the other, each within its time.
//!
//! Spec: config.md#posix-platform-hooks, runtime.md#lifecycle

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bundles::config::hooks::Hook;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sys::pidfd::pidfd_open;
use crate::sys::process::start_with_default_signals;

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be run.
    #[error("hook {kind}[{index}] {path:?}")]
    Run {
        /// The list's name.
        kind: &'static str,
        /// Its place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It ended with something else than 0.
    #[error("hook {kind}[{index}] {path:?}: {status}{output}")]
    Status {
        /// The list's name.
        kind: &'static str,
        /// Its place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it printed, after `: `.
        output: String,
    },
    /// It took longer than it may, and was killed.
    #[error("hook {kind}[{index}] {path:?}: still running after {} s, killed", timeout.as_secs())]
    Timeout {
        /// The list's name.
        kind: &'static str,
        /// Its place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// Its limit.
        timeout: Duration,
    },
}

/// The longest output that an error repeats, in bytes.
const MAX_OUTPUT: usize = 1024;

/// Runs `hooks`, the list called `kind` in config.json, and stops at the first that fails.
///
/// # Errors
/// The hook that failed.
pub(crate) fn run(kind: &'static str, hooks: &[Hook], state_json: &[u8]) -> Result<(), Error> {
    hooks
        .iter()
        .enumerate()
        .try_for_each(|(index, hook)| run_one(kind, index, hook, state_json))
}

fn run_one(kind: &'static str, index: usize, hook: &Hook, state_json: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Run {
        kind,
        index,
        path: hook.path.clone(),
        source,
    };
    // Files in memory, not pipes: a hook that reads nothing or leaves a daemon behind with
    // its output open must not hold us up.
    let output = memory_file(&[]).map_err(failed)?;
    let mut child = spawn(hook, state_json, &output).map_err(failed)?;
    let Some(status) = wait(&mut child, hook.timeout).map_err(failed)? else {
        kill_group(&child).map_err(failed)?;
        child.wait().map_err(failed)?;
        let timeout = hook.timeout.unwrap_or_default();
        return Err(Error::Timeout {
            kind,
            index,
            path: hook.path.clone(),
            timeout,
        });
    };
    if status.success() {
        return Ok(());
    }
    let output = printed(output).map_err(failed)?;
    Err(Error::Status {
        kind,
        index,
        path: hook.path.clone(),
        status,
        output,
    })
}

fn spawn(hook: &Hook, state_json: &[u8], output: &File) -> io::Result<Child> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for pair in &hook.env {
        if let Some((name, value)) = pair.split_once('=') {
            command.env(name, value);
        }
    }
    // A foreground `run` blocks signals, to hand them on; a hook is to have none blocked.
    start_with_default_signals(&mut command);
    command
        // Of its own, so that all of it can be killed.
        .process_group(0)
        .stdin(memory_file(state_json)?)
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(output.try_clone()?))
        .spawn()
}

/// Waits for `child`; None when its time is over.
fn wait(child: &mut Child, timeout: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    if let Some(timeout) = timeout {
        let pidfd = pidfd_open(pid_of(child)?)?;
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], left) {
                Ok(0) if Instant::now() >= end => return Ok(None),
                Ok(0) | Err(Errno::EINTR) => {}
                ended => {
                    ended?;
                    break;
                }
            }
        }
    }
    child.wait().map(Some)
}

/// Kills the hook and every process that it has started and that has not left its group.
fn kill_group(child: &Child) -> io::Result<()> {
    match killpg(pid_of(child)?, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(io::Error::other)
}

fn memory_file(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"hook", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn printed(mut output: File) -> io::Result<String> {
    let mut text = Vec::new();
    output.seek(SeekFrom::Start(0))?;
    output.take(MAX_OUTPUT as u64).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    Ok(if text.is_empty() {
        String::new()
    } else {
        format!(": {}", text.replace('\n', "; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["WORD=yes".into()],
            timeout: timeout.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment() {
        let script = "test \"$(cat)\" = state && test \"$WORD\" = yes && test -z \"$CARGO\"";
        run("poststop", &[shell(script, Some(10))], b"state").expect("succeeds");
    }

    #[test]
    fn a_failing_hook_is_named_with_its_output() {
        let hooks = [shell("true", None), shell("echo no; exit 3", None)];
        let error = run("poststop", &hooks, b"{}")
            .expect_err("fails")
            .to_string();
        assert_eq!(error, "hook poststop[1] \"/bin/sh\": exit status: 3: no");
    }

    #[test]
    fn a_slow_hook_is_killed() {
        let error = run("prestart", &[shell("sleep 60", Some(1))], b"{}").expect_err("is slow");
        assert!(
            error
                .to_string()
                .ends_with("still running after 1 s, killed"),
            "{error}"
        );
    }
}
