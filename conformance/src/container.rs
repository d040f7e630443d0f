//! One container of a test; it is deleted when it goes out of scope.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{Output, run_command, try_within, wait_until};
use crate::test_bundle::TestBundle;

/// How long the clean-up of a test may take: what it leaves is told anyway.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(10);

/// A container by its id; whether it exists is the runtime's affair.
#[derive(Debug)]
pub struct Container<'b> {
    bundle: &'b TestBundle,
    id: String,
}

impl<'b> Container<'b> {
    /// Names a container of a bundle; nothing is created.
    #[must_use]
    pub fn new(bundle: &'b TestBundle, id: &str) -> Self {
        Self {
            bundle,
            id: id.to_owned(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `RUNTIME --root DIR`, this subcommand, its options, the id.
    #[must_use]
    pub fn command(&self, subcommand: &str, options: &[&str]) -> Command {
        on(self.bundle, &self.id, subcommand, options)
    }

    /// `create`.
    #[track_caller]
    #[must_use]
    pub fn create(&self, options: &[&str]) -> Output {
        self.with_bundle("create", options)
    }

    /// `run`.
    #[track_caller]
    #[must_use]
    pub fn run(&self, options: &[&str]) -> Output {
        self.with_bundle("run", options)
    }

    /// `start`.
    #[track_caller]
    #[must_use]
    pub fn start(&self) -> Output {
        run_command(&mut self.command("start", &[]))
    }

    /// `kill ID SIGNAL`.
    #[track_caller]
    #[must_use]
    pub fn kill(&self, signal: &str) -> Output {
        run_command(self.command("kill", &[]).arg(signal))
    }

    /// `delete`.
    #[track_caller]
    #[must_use]
    pub fn delete(&self, options: &[&str]) -> Output {
        run_command(&mut self.command("delete", options))
    }

    /// `state`, as it answers.
    #[track_caller]
    #[must_use]
    pub fn state_output(&self) -> Output {
        run_command(&mut self.command("state", &[]))
    }

    /// `state`, which must succeed, as JSON.
    #[track_caller]
    #[must_use]
    pub fn state(&self) -> Value {
        let output = self.state_output();
        serde_json::from_str(output.success())
            .unwrap_or_else(|error| panic!("state is not JSON ({error}): {output}"))
    }

    /// The status that `state` tells.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> String {
        self.state()["status"]
            .as_str()
            .expect("a status")
            .to_owned()
    }

    /// The process id that `state` tells.
    ///
    /// # Panics
    /// When it is no number, or 0.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().expect("a pid");
        assert!(pid > 0, "{:?} should have a process", self.id);
        i32::try_from(pid).expect("a pid")
    }

    /// Waits for a status.
    ///
    /// # Panics
    /// When it does not come within 10 s.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        let mut last = String::new();
        let came = wait_until(Duration::from_secs(10), || {
            last = self.status();
            last == status
        });
        assert!(came, "{:?} should become {status}, is {last}", self.id);
    }

    /// Waits for the container's process, which must be a child of this one by
    /// way of a subreaper, and returns its exit code (128 + signal).
    ///
    /// # Panics
    /// When it does not end within 20 s.
    #[track_caller]
    #[must_use]
    pub fn wait_exit(&self, pid: i32) -> i32 {
        let mut code = None;
        wait_until(Duration::from_secs(20), || {
            match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, own)) => code = Some(own),
                Ok(WaitStatus::Signaled(_, signal, _)) => code = Some(128 + signal as i32),
                Ok(_) => {}
                Err(error) => panic!("wait for {pid}: {error}"),
            }
            code.is_some()
        });
        code.expect("the container's process should end")
    }

    /// A file of /proc about the container's process.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    #[must_use]
    pub fn proc_file(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.pid());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn with_bundle(&self, subcommand: &str, options: &[&str]) -> Output {
        run_command(&mut making(self.bundle, &self.id, subcommand, options))
    }
}

impl TestBundle {
    /// `RUNTIME --root DIR`, this subcommand, its options, the id of the bundle's container, which
    /// is left to somebody else to delete.
    #[must_use]
    pub fn command(&self, subcommand: &str, options: &[&str]) -> Command {
        on(self, self.id(), subcommand, options)
    }

    /// The same for `create` and `run`, which take the bundle's directory, too.
    #[must_use]
    pub fn making(&self, subcommand: &str, options: &[&str]) -> Command {
        making(self, self.id(), subcommand, options)
    }
}

fn on(bundle: &TestBundle, id: &str, subcommand: &str, options: &[&str]) -> Command {
    let mut command = bundle.runtime();
    command.arg(subcommand).args(options).arg(id);
    command
}

fn making(bundle: &TestBundle, id: &str, subcommand: &str, options: &[&str]) -> Command {
    let path = bundle.path();
    let bundle_option = ["--bundle", path.to_str().expect("a path")];
    on(bundle, id, subcommand, &[&bundle_option, options].concat())
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let mut command = self.command("delete", &["--force"]);
        command.stdin(Stdio::null());
        match try_within(&mut command, CLEAN_UP_LIMIT) {
            Ok(output) if output.code() == 0 => {}
            Ok(output) => eprintln!("clean-up: {output}"),
            Err(output) => eprintln!("clean-up took too long: {output}"),
        }
    }
}
