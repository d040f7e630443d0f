//! Namespaces as `/proc` shows them, and processes that have some of their own.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::wait_until;
use crate::container::Container;

/// Every kind, by its name in config.json, and its file in `/proc/PID/ns`.
pub const KINDS: [(&str, &str); 8] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("user", "user"),
    ("uts", "uts"),
];

/// The file of a process's namespace.
///
/// # Panics
/// When there is no such kind.
#[must_use]
pub fn path_of(process: &str, kind: &str) -> String {
    let name = KINDS.iter().find(|(known, _)| *known == kind);
    let (_, name) = name.unwrap_or_else(|| panic!("{kind} is no kind of namespaces"));
    format!("/proc/{process}/ns/{name}")
}

/// Which namespace of a kind a process is in.
///
/// # Panics
/// When the process has ended.
#[must_use]
pub fn link_of(process: &str, kind: &str) -> String {
    let path = path_of(process, kind);
    let target = fs::read_link(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    target.to_string_lossy().into_owned()
}

/// An entry of `linux.namespaces` that joins a process's.
#[must_use]
pub fn joined(kind: &str, process: &str) -> Value {
    json!({"type": kind, "path": path_of(process, kind)})
}

impl Container<'_> {
    /// Which namespace of a kind the container's process is in.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    #[must_use]
    pub fn namespace(&self, kind: &str) -> String {
        link_of(&self.pid().to_string(), kind)
    }

    /// An entry of `linux.namespaces` that joins the container's.
    #[track_caller]
    #[must_use]
    pub fn joined(&self, kind: &str) -> Value {
        joined(kind, &self.pid().to_string())
    }
}

/// A process that only holds namespaces, until it goes out of scope.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Starts it by this command, which must end up as `sleep`: `unshare --mount sleep 1000`.
    ///
    /// # Panics
    /// When it does not come to that.
    #[must_use]
    pub fn new(command: &[&str]) -> Self {
        let child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let holder = Self(child);
        let comm = format!("/proc/{}/comm", holder.pid());
        let is_ready = || fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n");
        let limit = Duration::from_secs(10);
        assert!(wait_until(limit, is_ready), "{command:?} does not sleep");
        holder
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("clean-up: a holder of namespaces: {error}");
        }
    }
}
