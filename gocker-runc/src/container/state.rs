//! `state.json`: what a later invocation must know about a container.

use std::collections::HashMap;
use std::path::PathBuf;

use bundles::config::hooks::Hooks;
use bundles::config::linux::seccomp::Listener;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxPersonalityDomain, Process as SpecProcess};
use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::cgroups::systemd::Unit;
use crate::intel_rdt::Groups;
use crate::memory_policy::MemoryPolicy;

/// The file's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State<CgroupRecord> {
    /// `ociVersion` of the configuration.
    pub(crate) oci_version: String,
    /// The container's id.
    pub(crate) id: String,
    /// Init's process id in the runtime's PID namespace; None while it is being made.
    pub(crate) init: Option<Process>,
    /// Where its cgroup is. It and `init` come early: what a deletion needs is there even in a
    /// file that was cut short.
    pub(crate) cgroup: CgroupRecord,
    /// The unit, where systemd has made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
    /// The bundle's directory.
    pub(crate) bundle: PathBuf,
    /// The root filesystem on the host.
    pub(crate) rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub(crate) created: String,
    /// The configuration's annotations.
    pub(crate) annotations: HashMap<String, String>,
    /// Who made it.
    pub(crate) owner: String,
    /// Its resctrl groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdt: Option<Groups>,
    /// Whether it has a PID namespace that ends with init.
    pub(crate) own_pid_namespace: bool,
    /// The hooks that later commands run.
    pub(crate) hooks: Hooks,
    /// What `exec` starts from.
    pub(crate) template: Template,
}

/// What a further process takes over from the configuration. It is kept because the bundle may
/// have changed when `exec` comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Template {
    /// `process`, without its arguments.
    pub(crate) process: SpecProcess,
    /// `CLONE_NEW*` of the namespaces that are not the runtime's, made or joined.
    pub(crate) namespaces: i32,
    /// Whether there is a session keyring of the container's.
    pub(crate) keyring: bool,
    /// Whether a seccomp filter is kept beside this file.
    pub(crate) seccomp: bool,
    /// `linux.memoryPolicy`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// The execution domain of the container's processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) personality: Option<LinuxPersonalityDomain>,
    /// Who answers for the filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp_listener: Option<Listener>,
}

/// A process that no later one of the same id can be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Process id.
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks from boot to its start.
    pub(crate) start_time: u64,
}

/// The JSON that `state` prints and hooks read.
///
/// Spec: runtime.md#state
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) pid: i32,
    pub(crate) status: Status,
    pub(crate) bundle: &'a PathBuf,
    pub(crate) rootfs: &'a PathBuf,
    pub(crate) created: &'a str,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub(crate) annotations: &'a HashMap<String, String>,
    pub(crate) owner: &'a str,
}

impl<CgroupRecord> State<CgroupRecord> {
    /// What is told to others when the container is in `status`.
    pub(crate) fn report(&self, status: Status) -> Report<'_> {
        let pid = match (status, self.init) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(process)) => process.pid,
        };
        Report {
            oci_version: &self.oci_version,
            id: &self.id,
            pid,
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner: &self.owner,
        }
    }
}

impl Process {
    /// The process that has `pid` now; None when there is none.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, start_time) = parse_stat(&stat)?;
        Some(Self {
            pid: pid.as_raw(),
            start_time,
        })
    }

    /// Whether this very process still runs; a zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        self.name().is_some()
    }

    /// What it calls itself; None when it runs no more.
    pub(crate) fn name(self) -> Option<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let (state, start) = parse_stat(&stat)?;
        let is_alive = !matches!(state, 'Z' | 'X') && start == self.start_time;
        let name = stat.get(stat.find('(')? + 1..stat.rfind(')')?)?;
        is_alive.then(|| name.to_owned())
    }
}

/// State letter and start time of /proc/PID/stat. The name in parentheses may hold anything.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let fields = &stat[stat.rfind(')')? + 1..];
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line = "12 (a) b) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(parse_stat(line), Some(('S', 4711)));
        assert_eq!(parse_stat("12 (x"), None);
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let own = Process::of(Pid::this()).expect("runs");
        assert!(own.is_alive());
        let recycled = Process {
            start_time: own.start_time + 1,
            ..own
        };
        assert!(!recycled.is_alive());
    }
}
