//! `process`: what to run, and as whom.
//!
//! Spec: config.md#process

use std::path::PathBuf;

use oci_spec::runtime::{
    ExecCPUAffinity, LinuxCapabilities, LinuxIOPriority, PosixRlimit, Process as SpecProcess,
    Scheduler,
};

use super::{no_nul, scheduling};
use crate::validate::FieldError;

/// The container process, or a further one (`exec`).
#[derive(Clone, Debug)]
pub struct Process {
    /// Whether a pseudo-terminal is attached.
    pub terminal: bool,
    /// The terminal's size in characters.
    pub console_size: Option<ConsoleSize>,
    /// Who runs it.
    pub user: User,
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value` strings.
    pub env: Vec<String>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// The five capability sets; None leaves what the user's switch leaves.
    pub capabilities: Option<LinuxCapabilities>,
    /// Resource limits, one for each type.
    pub rlimits: Vec<PosixRlimit>,
    /// Whether execve(2) may grant nothing more than the process has.
    pub no_new_privileges: bool,
    /// /proc/PID/oom_score_adj, -1000 to 1000; None inherits.
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile to change to at exec.
    pub apparmor_profile: Option<String>,
    /// The SELinux label to take at exec.
    pub selinux_label: Option<String>,
    /// ioprio_set(2).
    pub io_priority: Option<LinuxIOPriority>,
    /// sched_setattr(2).
    pub scheduler: Option<Scheduler>,
    /// The CPUs of a process that `exec` adds.
    pub exec_cpu_affinity: Option<ExecCPUAffinity>,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Credentials, as numbers inside the container's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// File mode creation mask; None keeps the runtime's.
    pub umask: Option<u32>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
}

impl Process {
    /// Resolves the `process` section.
    ///
    /// # Errors
    /// The field that is missing, out of range or cannot be carried by a system call.
    pub fn from_spec(process: &SpecProcess) -> Result<Self, FieldError> {
        let args = process.args().clone().unwrap_or_default();
        if args.is_empty() {
            return Err(FieldError::new("process.args", "is missing or empty"));
        }
        let env = process.env().clone().unwrap_or_default();
        for (index, text) in args.iter().enumerate() {
            no_nul(|| format!("process.args[{index}]"), text)?;
        }
        for (index, text) in env.iter().enumerate() {
            no_nul(|| format!("process.env[{index}]"), text)?;
            if !text.contains('=') {
                let problem = format!("{text:?} is not NAME=value");
                return Err(FieldError::new(format!("process.env[{index}]"), problem));
            }
        }
        let cwd = process.cwd().clone();
        if !cwd.is_absolute() {
            let problem = format!("{cwd:?} is not an absolute path");
            return Err(FieldError::new("process.cwd", problem));
        }
        no_nul(|| "process.cwd".into(), &cwd.to_string_lossy())?;
        if let Some(scheduler) = process.scheduler() {
            scheduling::check_scheduler(scheduler)?;
        }
        if let Some(priority) = process.io_priority() {
            scheduling::check_io_priority(priority)?;
        }
        let nonempty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(Self {
            terminal: process.terminal().unwrap_or(false),
            console_size: console_size(process)?,
            user: user(process)?,
            args,
            env,
            cwd,
            capabilities: process.capabilities().clone(),
            rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: oom_score_adj(process.oom_score_adj())?,
            apparmor_profile: nonempty(process.apparmor_profile()),
            selinux_label: nonempty(process.selinux_label()),
            io_priority: *process.io_priority(),
            scheduler: process.scheduler().clone(),
            exec_cpu_affinity: process.exec_cpu_affinity().clone(),
        })
    }
}

fn console_size(process: &SpecProcess) -> Result<Option<ConsoleSize>, FieldError> {
    let Some(size) = process.console_size() else {
        return Ok(None);
    };
    let side = |name: &str, value: u64| {
        u16::try_from(value).map_err(|_| {
            FieldError::new(
                format!("process.consoleSize.{name}"),
                format!("{value} is over 65535"),
            )
        })
    };
    let (height, width) = (side("height", size.height())?, side("width", size.width())?);
    // Engines send zeros for "not known yet".
    Ok((height != 0 || width != 0).then_some(ConsoleSize { height, width }))
}

fn user(process: &SpecProcess) -> Result<User, FieldError> {
    let user = process.user();
    // (uid_t)-1 means "unchanged" to the kernel: as an id it would silently do nothing.
    let id = |field: String, id: u32| {
        if id == u32::MAX {
            return Err(FieldError::new(field, format!("{id} is not an id")));
        }
        Ok(id)
    };
    let additional_gids = user.additional_gids().clone().unwrap_or_default();
    for (index, gid) in additional_gids.iter().enumerate() {
        id(format!("process.user.additionalGids[{index}]"), *gid)?;
    }
    if let Some(umask) = user.umask().filter(|umask| *umask > 0o777) {
        let problem = format!("{umask:#o} is over 0777");
        return Err(FieldError::new("process.user.umask", problem));
    }
    Ok(User {
        uid: id("process.user.uid".into(), user.uid())?,
        gid: id("process.user.gid".into(), user.gid())?,
        umask: user.umask(),
        additional_gids,
    })
}

fn rlimits(rlimits: &[PosixRlimit]) -> Result<Vec<PosixRlimit>, FieldError> {
    for (index, rlimit) in rlimits.iter().enumerate() {
        let field = || format!("process.rlimits[{index}]");
        if rlimits[..index]
            .iter()
            .any(|earlier| earlier.typ() == rlimit.typ())
        {
            return Err(FieldError::new(
                field(),
                format!("{} is given twice", rlimit.typ()),
            ));
        }
        if rlimit.soft() > rlimit.hard() {
            let problem = format!("soft {} is over hard {}", rlimit.soft(), rlimit.hard());
            return Err(FieldError::new(field(), problem));
        }
    }
    Ok(rlimits.to_vec())
}

fn oom_score_adj(value: Option<i32>) -> Result<Option<i32>, FieldError> {
    match value {
        Some(value) if !(-1000..=1000).contains(&value) => Err(FieldError::new(
            "process.oomScoreAdj",
            format!("{value} is outside -1000 to 1000"),
        )),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_named() {
        let cases = [
            (
                r#"{"cwd":"/","user":{}}"#,
                "process.args: is missing or empty",
            ),
            (
                r#"{"cwd":"/","user":{},"args":[]}"#,
                "process.args: is missing or empty",
            ),
            (r#"{"cwd":"tmp","user":{},"args":["x"]}"#, "process.cwd: "),
            (
                r#"{"cwd":"/","user":{},"args":["x"],"env":["A"]}"#,
                "process.env[0]: ",
            ),
            (
                r#"{"cwd":"/","user":{"uid":4294967295},"args":["x"]}"#,
                "process.user.uid: ",
            ),
            (
                r#"{"cwd":"/","user":{"umask":512},"args":["x"]}"#,
                "process.user.umask: ",
            ),
            (
                r#"{"cwd":"/","user":{},"args":["x"],"oomScoreAdj":1001}"#,
                "process.oomScoreAdj: ",
            ),
            (
                r#"{"cwd":"/","user":{},"args":["x"],"rlimits":[{"type":"RLIMIT_AS","soft":2,"hard":1}]}"#,
                "process.rlimits[0]: soft 2 is over hard 1",
            ),
        ];
        for (text, expected) in cases {
            let process: SpecProcess = serde_json::from_str(text).expect(text);
            let error = Process::from_spec(&process).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
