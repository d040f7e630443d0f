//! What a service manager gives to a runtime, and hears from it: `NOTIFY_SOCKET`, `LISTEN_FDS`.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::host::is_root;
use conformance::{
    Container, Kind, TestBundle, gocker_only, needs, peer_differs, run_command, runtime, wait_until,
};

/// The service manager's side.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(bundle: &TestBundle) -> Self {
        let path = bundle.scratch().join("manager.sock");
        let socket = UnixDatagram::bind(&path).expect("bind");
        let limit = Some(Duration::from_secs(20));
        socket.set_read_timeout(limit).expect("set a time limit");
        Self { socket, path }
    }

    /// Reads until both lines have come; each of them alone, or both in one message.
    fn hears(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0; 4096];
        while lines.len() < 2 {
            let length = self.socket.recv(&mut buffer).expect("a message in time");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            lines.extend(text.lines().map(str::to_owned));
        }
        lines.sort();
        lines
    }

    /// Reads the last message, whose descriptor is closed by not being taken: that is what the
    /// runtime waits for.
    fn hears_the_barrier(&self) {
        let mut buffer = [0; 64];
        let length = self.socket.recv(&mut buffer).expect("a message in time");
        assert_eq!(&buffer[..length], b"BARRIER=1");
    }

    /// The runtime, whose caller waits for the container to be ready.
    fn spawn(&self, mut command: Command) -> Caller {
        command
            .env("NOTIFY_SOCKET", &self.path)
            .stdin(Stdio::null())
            .process_group(0);
        Caller(command.spawn().expect("the runtime starts"))
    }
}

/// A runtime that is waited for; none is left when its test fails.
struct Caller(Child);

impl Caller {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("waits").is_some()
    }

    fn code(&mut self) -> Option<i32> {
        self.0.wait().expect("ends").code()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.0.kill().expect("is killed");
            self.0.wait().expect("ends");
        }
    }
}

/// The socket that the container is shown, once somebody listens there.
fn containers_socket(bundle: &TestBundle) -> PathBuf {
    let state = bundle.state_root().join(bundle.id());
    let path = state.join("notify/notify.sock");
    let is_there = || {
        let metadata = fs::metadata(&path);
        // The mode is the last thing that is done to it.
        metadata.is_ok_and(|found| {
            found.file_type().is_socket() && found.permissions().mode() & 0o777 == 0o777
        })
    };
    assert!(wait_until(Duration::from_secs(10), is_there), "{path:?}");
    path
}

fn say(socket: &Path, message: &str) {
    let client = UnixDatagram::unbound().expect("a socket");
    client.send_to(message.as_bytes(), socket).expect("sent");
}

const STAY: &str = "test -S $NOTIFY_SOCKET && touch $NOTIFY_SOCKET.x 2>/dev/null && exit 5
    exec sleep 1000";

#[test]
fn a_detached_run_returns_when_the_container_is_ready() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's do not pass it on");
    let bundle = TestBundle::shell(STAY);
    let manager = Manager::new(&bundle);
    let container = bundle.container();
    let mut child = manager.spawn(bundle.making("run", &["--detach"]));
    let socket = containers_socket(&bundle);
    container_pid(&container);
    say(&socket, "STATUS=not yet");
    assert!(!child.has_ended(), "waits for READY=1");
    say(&socket, "READY=1");
    let main = format!("MAINPID={}", container.pid());
    assert_eq!(manager.hears(), [main.as_str(), "READY=1"]);
    manager.hears_the_barrier();
    assert_eq!(child.code(), Some(0));
    assert_eq!(container.status(), "running");
}

#[test]
fn start_returns_when_the_container_is_ready() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's does not hear it in start");
    let bundle = TestBundle::shell(STAY);
    let manager = Manager::new(&bundle);
    let container = bundle.container();
    let mut create = bundle.making("create", &[]);
    run_command(create.env("NOTIFY_SOCKET", &manager.path)).success();
    let mut child = manager.spawn(container.command("start", &[]));
    let socket = containers_socket(&bundle);
    container.wait_for("running");
    assert!(!child.has_ended(), "waits for READY=1");
    say(&socket, "READY=1");
    let main = format!("MAINPID={}", container.pid());
    assert_eq!(manager.hears(), [main.as_str(), "READY=1"]);
    manager.hears_the_barrier();
    assert_eq!(child.code(), Some(0));
}

/// Nobody waits for what cannot be ready any more.
#[test]
fn a_container_that_ends_without_being_ready_ends_the_wait() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "it waits until the process is reaped");
    let bundle = TestBundle::new();
    let manager = Manager::new(&bundle);
    let _container = bundle.container();
    let mut child = manager.spawn(bundle.making("run", &["--detach"]));
    assert_eq!(child.code(), Some(0));
}

/// The service manager watches the process that it has started.
#[test]
fn a_run_in_the_foreground_names_itself_and_goes_on() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it passes on the socket itself");
    let bundle = TestBundle::shell("trap 'exit 7' TERM; while :; do sleep 0.05; done");
    let manager = Manager::new(&bundle);
    let container = bundle.container();
    let mut child = manager.spawn(bundle.making("run", &[]));
    let socket = containers_socket(&bundle);
    container_pid(&container);
    say(&socket, "READY=1");
    let main = format!("MAINPID={}", child.0.id());
    assert_eq!(manager.hears(), [main.as_str(), "READY=1"]);
    container.kill("TERM").success();
    assert_eq!(child.code(), Some(7));
}

/// From inside, by a program of the container; in a user namespace, too.
#[test]
fn the_container_reaches_the_socket_that_it_is_told() {
    needs!(is_root(), "needs root");
    gocker_only!();
    // logger(1) sends one message to /dev/log.
    let script = "ln -s $NOTIFY_SOCKET /dev/log && busybox logger \"x\nREADY=1\"; exec sleep 1000";
    for in_user_namespace in [false, true] {
        let mut bundle = TestBundle::shell(script);
        if in_user_namespace {
            bundle = bundle.user_namespace();
        }
        let manager = Manager::new(&bundle);
        let container = bundle.container();
        bundle.write_config();
        let mut child = manager.spawn(bundle.making("run", &["--detach"]));
        let main = format!("MAINPID={}", container_pid(&container));
        assert_eq!(manager.hears(), [main.as_str(), "READY=1"]);
        manager.hears_the_barrier();
        assert_eq!(child.code(), Some(0));
    }
}

/// The process of a container that somebody else is making.
fn container_pid(container: &Container<'_>) -> i32 {
    let is_there = || container.state_output().code() == 0;
    assert!(wait_until(Duration::from_secs(10), is_there));
    container.wait_for("running");
    container.pid()
}

/// A socket of long ago, of which the environment still tells.
#[test]
fn a_service_manager_that_is_gone_keeps_no_container_from_running() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::shell("ls -A /run/notify");
    let mut command = bundle.making("run", &[]);
    let output = run_command(command.env("NOTIFY_SOCKET", "/no/such/socket"));
    assert_eq!(output.success(), "notify.sock\n");
    bundle.assert_nothing_left();
}

/// The runtime with sockets, or what else, from 3 on, as a service manager starts it.
fn listening(bundle: &TestBundle, files: &str, pid: &str, options: &str) -> Command {
    bundle.write_config();
    let script = format!(
        "export LISTEN_FDS=2 LISTEN_FDNAMES=one:two LISTEN_PID={pid}
         exec \"$0\" --root \"$1\" run --bundle \"$2\" {options} \"$3\" {files}"
    );
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &script])
        .arg(&runtime().program)
        .arg(bundle.state_root())
        .arg(bundle.path())
        .arg(bundle.id());
    command
}

const LIST: &str = "cd /proc/self/fd; for f in *; do [ -e /proc/1/fd/$f ] && echo $f; done
    echo fds=$LISTEN_FDS pid=$LISTEN_PID names=$LISTEN_FDNAMES; true";

#[test]
fn sockets_of_a_service_manager_come_first_and_then_what_is_preserved() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it counts them otherwise");
    let bundle = TestBundle::shell(LIST);
    let files = "3</dev/null 4</dev/null 5</dev/null 6</dev/null";
    let output = run_command(&mut listening(&bundle, files, "$$", ""));
    let names = if runtime().kind == Kind::Gocker {
        "one:two"
    } else {
        ""
    };
    let told = format!("fds=2 pid=1 names={names}\n");
    assert_eq!(output.success(), format!("0\n1\n2\n3\n4\n{told}"));
    let output = run_command(&mut listening(&bundle, files, "$$", "--preserve-fds 1"));
    assert_eq!(output.success(), format!("0\n1\n2\n3\n4\n5\n{told}"));
}

/// They are another process's, whose variables have been handed down.
#[test]
fn sockets_for_another_process_are_not_the_containers() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it does not ask whose they are");
    let bundle = TestBundle::shell(LIST);
    let files = "3</dev/null 4</dev/null";
    let output = run_command(&mut listening(&bundle, files, "1", ""));
    assert_eq!(output.success(), "0\n1\n2\nfds= pid= names=\n");
}

#[test]
fn sockets_that_are_not_there_are_an_error() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::new();
    let output = run_command(&mut listening(&bundle, "3</dev/null", "$$", ""));
    let line = output.one_line_failure();
    assert!(
        line.contains("LISTEN_FDS=2") && line.contains("descriptor 4"),
        "{output}"
    );
    bundle.assert_nothing_left();
}
