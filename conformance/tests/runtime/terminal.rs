//! Terminals in the foreground: what happens to the caller's, and what reaches the container's
//! (runc's docs/terminals.md).

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::command::{end_within, process_id};
use conformance::host::is_root;
use conformance::{Container, TestBundle, needs, peer_differs, wait_until};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;

use super::console::{read_terminal, with_terminal};

/// A command on a terminal of the test's, both sides of which the test keeps.
pub(super) struct OnTerminal<'b> {
    pub(super) child: Child,
    // Deleted when the child is gone.
    _container: Container<'b>,
    master: Option<File>,
    slave: OwnedFd,
    before: Termios,
}

impl<'b> OnTerminal<'b> {
    /// Starts the command, with these standard descriptors on the terminal.
    pub(super) fn start(bundle: &'b TestBundle, mut command: Command, on_it: [bool; 3]) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("openpty");
        for side in [&pty.master, &pty.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("fcntl");
        }
        let before = tcgetattr(&pty.slave).expect("tcgetattr");
        let slave = || Stdio::from(pty.slave.try_clone().expect("dup"));
        if on_it[0] {
            command.stdin(slave());
        }
        if on_it[1] {
            command.stdout(slave());
        }
        if on_it[2] {
            command.stderr(slave());
        }
        let child = command.spawn().expect("spawn");
        // What the command holds is the test's no more.
        drop(command);
        Self {
            child,
            _container: bundle.container(),
            master: Some(File::from(pty.master)),
            slave: pty.slave,
            before,
        }
    }

    pub(super) fn run(bundle: &'b TestBundle) -> Self {
        Self::start(bundle, run(bundle), [true; 3])
    }

    fn pid(&self) -> Pid {
        process_id(self.child.id())
    }

    pub(super) fn send(&self, signal: Signal) {
        kill(self.pid(), signal).expect("kill");
    }

    pub(super) fn wait_for(&mut self, text: &str) {
        let read = read_terminal(self.master.as_mut().expect("a master"), Some(text));
        assert!(read.contains(text), "{text:?} should come: {read:?}");
    }

    fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.slave).expect("tcgetattr");
        !now.local_flags.contains(LocalFlags::ICANON)
    }

    #[track_caller]
    pub(super) fn assert_restored(&self) {
        let now = tcgetattr(&self.slave).expect("tcgetattr");
        assert_eq!(now.local_flags, self.before.local_flags);
        assert_eq!(now.input_flags, self.before.input_flags);
        assert_eq!(now.output_flags, self.before.output_flags);
        assert_eq!(now.control_chars, self.before.control_chars);
    }

    /// How it ended, as a shell tells it.
    #[track_caller]
    pub(super) fn code(&mut self) -> i32 {
        let status = end_within(&mut self.child, Duration::from_secs(20));
        let status = status.expect("the runtime should end");
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(127))
    }
}

impl Drop for OnTerminal<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `run` in the foreground.
pub(super) fn run(bundle: &TestBundle) -> Command {
    let mut command = bundle.runtime();
    command
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(bundle.id());
    command
}

#[test]
fn the_terminal_is_raw_while_the_process_runs_and_restored_when_it_ends() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal("echo ready; read x; exit 4");
    let mut run = OnTerminal::run(&bundle);
    run.wait_for("ready");
    assert!(wait_until(Duration::from_secs(10), || run.is_raw()));
    run.master
        .as_mut()
        .expect("a master")
        .write_all(b"\n")
        .expect("write");
    assert_eq!(run.code(), 4);
    run.assert_restored();
    bundle.assert_nothing_left();
}

#[test]
fn the_terminal_is_restored_when_the_container_is_killed() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal("echo ready; sleep 1000");
    let mut run = OnTerminal::run(&bundle);
    run.wait_for("ready");
    assert!(wait_until(Duration::from_secs(10), || run.is_raw()));
    let container = bundle.container();
    container.kill("KILL").success();
    assert_eq!(run.code(), 137);
    run.assert_restored();
    bundle.assert_nothing_left();
}

#[test]
fn the_terminal_is_restored_when_create_fails() {
    needs!(is_root(), "needs root");
    for bundle in [
        with_terminal("true").args(&["/no/such/program"]),
        with_terminal("true").set("/root/path", "nowhere".into()),
    ] {
        let mut run = OnTerminal::run(&bundle);
        assert_ne!(run.code(), 0);
        run.assert_restored();
        bundle.assert_nothing_left();
    }
}

#[test]
fn signals_that_end_the_process_leave_the_terminal_restored() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they lose some that come early, or the status");
    let names = ["TERM", "INT", "HUP", "QUIT", "USR1"];
    for (name, code) in names.iter().zip(11..) {
        let bundle = with_terminal(&format!(
            "trap 'exit {code}' {name}; echo ready; while :; do sleep 0.05; done"
        ));
        let mut run = OnTerminal::run(&bundle);
        run.wait_for("ready");
        assert!(wait_until(Duration::from_secs(10), || run.is_raw()));
        run.send(format!("SIG{name}").parse().expect("a signal"));
        assert_eq!(run.code(), code, "{name}");
        run.assert_restored();
        bundle.assert_nothing_left();
    }
}

/// A shell's job control: stopped, the caller has its terminal back; continued, it is raw.
#[test]
fn a_runtime_that_is_stopped_gives_the_terminal_back_and_takes_it_again() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they do not stop");
    let bundle = with_terminal("echo ready; while read x; do echo got $x; done");
    let mut command = run(&bundle);
    // A group with a parent of the same session elsewhere: not an orphaned one.
    command.process_group(0);
    let mut run = OnTerminal::start(&bundle, command, [true; 3]);
    run.wait_for("ready");
    assert!(wait_until(Duration::from_secs(10), || run.is_raw()));
    run.send(Signal::SIGTSTP);
    let stat = format!("/proc/{}/stat", run.pid());
    let is_stopped = || {
        let stat = fs::read_to_string(&stat).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" T"))
    };
    assert!(wait_until(Duration::from_secs(10), is_stopped));
    run.assert_restored();
    run.send(Signal::SIGCONT);
    assert!(wait_until(Duration::from_secs(10), || run.is_raw()));
    let master = run.master.as_mut().expect("a master");
    master.write_all(b"typed\n").expect("write");
    run.wait_for("got typed");
    bundle.container().kill("KILL").success();
    assert_eq!(run.code(), 137);
    run.assert_restored();
}

/// A user who closes the window hangs up the container's terminal, too.
#[test]
fn a_terminal_that_is_closed_hangs_up_the_containers() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they stay");
    let bundle = with_terminal(
        "trap 'echo hup > /hup; exit 3' HUP; echo ready; while :; do sleep 0.05; done",
    );
    let mut run = OnTerminal::run(&bundle);
    run.wait_for("ready");
    assert!(wait_until(Duration::from_secs(10), || run.is_raw()));
    drop(run.master.take());
    assert_eq!(run.code(), 3);
    assert!(bundle.rootfs().join("hup").exists());
    bundle.assert_nothing_left();
}
