//! Runs a program to its end, within a time limit.
//!
//! Output goes to unnamed files, not to pipes: a container that outlives
//! `create` keeps its end open, and a pipe would have its reader wait for it.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long one command may take before its process group is killed.
pub const TIME_LIMIT: Duration = Duration::from_secs(40);

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it, and what it started, had written to stdout when it ended.
    pub stdout: String,
    /// The same for stderr.
    pub stderr: String,
    stdout_file: File,
}

impl Output {
    /// The exit code; 128 + signal when it was killed.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1)
    }

    /// Standard output as it is now: a container that lives on still writes.
    #[must_use]
    pub fn stdout_now(&self) -> String {
        read_all(&self.stdout_file)
    }

    /// Panics unless the program exited with 0; returns its stdout.
    #[track_caller]
    pub fn success(&self) -> &str {
        assert!(self.code() == 0, "should succeed: {self}");
        &self.stdout
    }

    /// What a command that succeeded has written, as JSON.
    ///
    /// # Panics
    /// When it failed, or wrote no JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let text = self.success();
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Panics unless the program exited with another code than 0; returns its
    /// stderr.
    #[track_caller]
    pub fn failure(&self) -> &str {
        assert!(self.code() != 0, "should fail: {self}");
        assert!(self.status.code().is_some(), "should not be killed: {self}");
        &self.stderr
    }

    /// Panics unless the program failed with one clear line on stderr (and, at
    /// most, a hint); returns that line.
    #[track_caller]
    pub fn one_line_failure(&self) -> &str {
        let stderr = self.failure().trim_end();
        assert!(!stderr.is_empty(), "should say why: {self}");
        assert!(!stderr.contains("panicked at"), "should not panic: {self}");
        let lines: Vec<&str> = stderr.lines().filter(|line| !is_aside(line)).collect();
        assert!(lines.len() == 1, "should say it in one line: {self}");
        lines[0]
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n  exit: {}\n  stdout: {}\n  stderr: {}",
            self.command,
            self.code(),
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}

/// Whether a line is neither the error nor part of it.
fn is_aside(line: &str) -> bool {
    line.starts_with("hint: ") || (line.starts_with("time=") && line.contains(" level=warning "))
}

/// Runs a program with an empty stdin, unless the caller gave one.
///
/// # Panics
/// When it cannot be started, or when it does not end within [`TIME_LIMIT`].
#[track_caller]
pub fn run_command(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    run_with_stdin(command)
}

/// As [`run_command`], with the stdin that the command already has.
///
/// # Panics
/// As [`run_command`].
#[track_caller]
pub fn run_with_stdin(command: &mut Command) -> Output {
    run_within(command, TIME_LIMIT)
}

/// As [`run_with_stdin`], with a limit of its own.
///
/// # Panics
/// As [`run_command`].
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> Output {
    try_within(command, limit)
        .unwrap_or_else(|output| panic!("took longer than {limit:?}: {output}"))
}

/// As [`run_within`]; what was killed because it took too long is the error.
///
/// # Errors
/// The output of a program that took too long.
///
/// # Panics
/// When it cannot be started.
pub fn try_within(command: &mut Command, limit: Duration) -> Result<Output, Box<Output>> {
    let stdout = tempfile::tempfile().expect("a file for stdout");
    let stderr = tempfile::tempfile().expect("a file for stderr");
    let line = format!("{command:?}").replace('"', "");
    let mut child = command
        .stdout(Stdio::from(
            stdout.try_clone().expect("stdout's descriptor"),
        ))
        .stderr(Stdio::from(
            stderr.try_clone().expect("stderr's descriptor"),
        ))
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let group = process_id(child.id());
    let mut ended = None;
    let in_time = wait_until(limit, || {
        ended = child.try_wait().expect("wait for a child");
        ended.is_some()
    });
    if !in_time {
        killpg(group, Signal::SIGKILL).expect("kill a process group");
        ended = Some(child.wait().expect("wait for a child"));
    }
    let output = Box::new(Output {
        command: line,
        status: ended.expect("a status"),
        stdout: read_all(&stdout),
        stderr: read_all(&stderr),
        stdout_file: stdout,
    });
    if in_time { Ok(*output) } else { Err(output) }
}

/// Asks again and again until the answer is yes or the time is over; returns
/// the last answer. On a slow machine `GOCKER_PATIENCE=5` makes every limit five
/// times longer.
pub fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let patience = env::var("GOCKER_PATIENCE").ok();
    let patience = patience.and_then(|times| times.parse().ok()).unwrap_or(1);
    let end = Instant::now() + limit * patience;
    let mut pause = Duration::from_micros(500);
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// How a child ends within the limit; None when it had to be killed.
///
/// # Panics
/// When it cannot be waited for.
pub fn end_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    let in_time = wait_until(limit, || {
        status = child.try_wait().expect("wait for a child");
        status.is_some()
    });
    if !in_time {
        child.kill().expect("kill a child");
        child.wait().expect("wait for a child");
    }
    status
}

/// Starts a command with its standard descriptors on a terminal, whose own side is not kept in
/// `command`: the terminal ends with the program.
///
/// # Panics
/// When it cannot be started.
pub fn spawn_on(terminal: BorrowedFd<'_>, command: &mut Command) -> Child {
    let side = || Stdio::from(terminal.try_clone_to_owned().expect("dup"));
    let child = command.stdin(side()).stdout(side()).stderr(side()).spawn();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    child.expect("spawn")
}

/// A child's id as the kernel interfaces want it.
#[must_use]
pub fn process_id(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("a process id"))
}

/// Reads a file from its beginning without moving the offset that its writers
/// share.
fn read_all(file: &File) -> String {
    let mut bytes = Vec::new();
    FromStart { file, offset: 0 }
        .read_to_end(&mut bytes)
        .expect("read an output file");
    String::from_utf8_lossy(&bytes).into_owned()
}

struct FromStart<'f> {
    file: &'f File,
    offset: u64,
}

impl std::io::Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
