//! SCMP_ACT_NOTIFY: an agent decides over system calls: config-linux.md#containerprocessstate.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use conformance::host::is_root;
use conformance::ordinary_user::ID;
use conformance::{Output, TestBundle, gocker_only, needs, peer_differs, run_command, wait_until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

/// ioctl(2)s of a listener, include/uapi/linux/seccomp.h: takes each call, and has it fail with
/// the errno that is the argument, or go on for 0.
const AGENT: &str = r#"
while (1) {
    my $call = "\0" x 80;
    ioctl(STDIN, 0xC0502100, $call) or exit;
    my ($id) = unpack("Q", $call);
    my $answer = $ARGV[0] ? pack("QqlL", $id, 0, -$ARGV[0], 0) : pack("QqlL", $id, 0, 0, 1);
    ioctl(STDIN, 0xC0182101, $answer);
}
"#;

const ENOSPC: u32 = 28;

/// Who answers, and the socket by which it is reached.
struct Agent {
    path: PathBuf,
    socket: UnixListener,
}

/// Answers until it is dropped.
struct Answering(Child);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

impl Agent {
    fn new(bundle: &TestBundle) -> Self {
        let path = bundle.scratch().join("agent.sock");
        let socket = UnixListener::bind(&path).expect("bind");
        Self { path, socket }
    }

    /// Takes one state and its listener; the connection, too, which some keep for a while.
    fn receive(&self) -> (Value, OwnedFd, UnixStream) {
        self.socket.set_nonblocking(true).expect("set non-blocking");
        let mut stream = None;
        wait_until(Duration::from_secs(10), || {
            stream = self.socket.accept().ok();
            stream.is_some()
        });
        let (stream, _) = stream.expect("the runtime should connect");
        stream.set_nonblocking(false).expect("set blocking");
        let limit = Some(Duration::from_secs(10));
        stream.set_read_timeout(limit).expect("set a time limit");
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        while serde_json::from_slice::<Value>(&bytes).is_err() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(10))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut buffer = [0; 8192];
            let data = &mut [IoSliceMut::new(&mut buffer)];
            let message = recvmsg(&stream, data, &mut control, RecvFlags::CMSG_CLOEXEC);
            let message = message.expect("a message");
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = part {
                    fds.extend(received);
                }
            }
            assert!(message.bytes > 0, "{}", String::from_utf8_lossy(&bytes));
            bytes.extend(&buffer[..message.bytes]);
        }
        assert_eq!(fds.len(), 1, "{}", String::from_utf8_lossy(&bytes));
        let state = serde_json::from_slice(&bytes).expect("JSON");
        (state, fds.remove(0), stream)
    }

    fn answer(fd: OwnedFd, errno: u32) -> Answering {
        let mut perl = Command::new("perl");
        perl.args(["-e", AGENT, &errno.to_string()]).stdin(fd);
        Answering(perl.spawn().expect("start perl"))
    }

    /// Has `command` run while its calls are answered; returns what the agent was told, too.
    fn attend(&self, command: &mut Command, errno: u32) -> (Output, Value) {
        thread::scope(|scope| {
            let running = scope.spawn(|| run_command(command));
            let (state, fd, _connection) = self.receive();
            let answering = Self::answer(fd, errno);
            let output = running.join().expect("joined");
            drop(answering);
            (output, state)
        })
    }
}

/// An agent is asked for `names`; it is told "policy=x".
fn asking(bundle: TestBundle, names: &[&str], path: &str) -> TestBundle {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path, "listenerMetadata": "policy=x",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]});
    bundle.set("/linux/seccomp", profile)
}

/// A bundle whose mkdir(2) an agent decides on.
fn asking_for_mkdir(script: &str, no_new_privileges: bool) -> (TestBundle, Agent) {
    with_agent_for_mkdir(
        TestBundle::shell(script).set("/process/noNewPrivileges", json!(no_new_privileges)),
    )
}

fn with_agent_for_mkdir(bundle: TestBundle) -> (TestBundle, Agent) {
    let agent = Agent::new(&bundle);
    let path = agent.path.to_str().expect("a path").to_owned();
    (asking(bundle, &["mkdir", "mkdirat"], &path), agent)
}

/// `create` or `run` of the bundle.
fn make(bundle: &TestBundle, subcommand: &str) -> Command {
    bundle.making(subcommand, &[])
}

fn has_perl() -> bool {
    Command::new("perl")
        .args(["-e", "1"])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn an_agent_decides_and_is_told_of_the_container() {
    needs!(is_root(), "needs root");
    needs!(has_perl(), "needs perl");
    for no_new_privileges in [true, false] {
        for (errno, expected) in [(ENOSPC, "No space left on device"), (0, "")] {
            let script = "mkdir /tmp/a && test -d /tmp/a";
            let (bundle, agent) = asking_for_mkdir(script, no_new_privileges);
            let (output, state) = agent.attend(&mut make(&bundle, "run"), errno);
            assert_eq!(output.code(), i32::from(errno != 0), "{output}");
            assert!(output.stderr.contains(expected), "{output}");
            assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
            assert_eq!(state["metadata"], "policy=x", "{state}");
            assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
            assert!(state["ociVersion"].is_string(), "{state}");
            let inner = &state["state"];
            assert_eq!(inner["id"], bundle.container().id(), "{state}");
            assert_eq!(inner["pid"], state["pid"], "{state}");
            assert_eq!(inner["bundle"], bundle.path().to_str().expect("a path"));
        }
    }
}

/// The listener comes from a process that has rights in the container's user namespace alone.
#[test]
fn an_ordinary_users_agent_decides_over_the_users_container() {
    needs!(is_root(), "needs root");
    needs!(has_perl(), "needs perl");
    let script = "mkdir /tmp/a; test ! -d /tmp/a";
    let (bundle, agent) = with_agent_for_mkdir(TestBundle::shell(script).of_ordinary_user());
    chown(&agent.path, Some(ID), Some(ID)).expect("chown");
    let (output, state) = agent.attend(&mut make(&bundle, "run"), ENOSPC);
    output.success();
    assert!(output.stderr.contains("No space left"), "{output}");
    assert_eq!(state["state"]["id"], bundle.id(), "{state}");
    bundle.assert_nothing_left();
    // What may not be written to cannot be an agent's.
    let (bundle, agent) = with_agent_for_mkdir(TestBundle::shell(script).of_ordinary_user());
    fs::set_permissions(&agent.path, fs::Permissions::from_mode(0o700)).expect("chmod");
    let output = run_command(&mut make(&bundle, "run"));
    let line = output.one_line_failure();
    let path = agent.path.to_str().expect("a path");
    assert!(line.contains(path), "{output}");
    assert!(line.contains("ermission denied"), "{output}");
    bundle.assert_nothing_left();
}

/// Spec: config-linux.md#seccomp: exactly one state in each connection, which is closed.
#[test]
fn nothing_but_one_state_comes_in_a_connection() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "keeps it open");
    let (bundle, agent) = asking_for_mkdir("true", true);
    let mut command = make(&bundle, "run");
    thread::scope(|scope| {
        let running = scope.spawn(|| run_command(&mut command));
        let (_, _fd, mut connection) = agent.receive();
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).expect("end of file");
        assert!(rest.is_empty(), "{rest:?}");
        running.join().expect("joined").success();
    });
}

#[test]
fn create_hands_the_listener_over_and_exec_another_one() {
    needs!(is_root(), "needs root");
    needs!(has_perl(), "needs perl");
    peer_differs!(Crun, "Debian's tells nothing of an exec");
    let (bundle, agent) = asking_for_mkdir("mkdir /tmp/a; sleep 1000", true);
    let container = bundle.container();
    let (output, state) = agent.attend(&mut make(&bundle, "create"), ENOSPC);
    output.success();
    assert_eq!(state["state"]["status"], "creating", "{state}");
    assert_eq!(state["pid"], container.pid(), "{state}");
    container.start().success();
    let mut exec = bundle.runtime();
    exec.args(["exec", container.id(), "/bin/mkdir", "/tmp/b"]);
    let (output, state) = agent.attend(&mut exec, ENOSPC);
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains("No space left"), "{output}");
    assert_ne!(state["pid"], container.pid(), "{state}");
    assert_eq!(state["state"]["pid"], container.pid(), "{state}");
    assert_eq!(state["state"]["status"], "running", "{state}");
    assert!(!bundle.rootfs().join("tmp/b").exists());
}

/// What the runtime itself calls once the filter is there may be asked for, too.
#[test]
fn an_agent_may_be_asked_for_what_the_runtime_calls() {
    needs!(is_root(), "needs root");
    needs!(has_perl(), "needs perl");
    peer_differs!(Crun, "it asks while nobody has the listener");
    peer_differs!(Runc, "Debian's waits for what is asked for");
    for no_new_privileges in [true, false] {
        let names = [
            "read", "close", "execve", "sendmsg", "recvmsg", "capset", "prctl",
        ];
        let bundle = TestBundle::shell("echo done")
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        let agent = Agent::new(&bundle);
        let path = agent.path.to_str().expect("a path").to_owned();
        let bundle = asking(bundle, &names, &path);
        let (output, _) = agent.attend(&mut make(&bundle, "run"), 0);
        assert_eq!(output.success(), "done\n", "{no_new_privileges}");
    }
}

#[test]
fn an_agent_that_is_not_there_is_named_and_nothing_is_left() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let nowhere = bundle.scratch().join("nobody.sock");
    let deaf = bundle.scratch().join("deaf.sock");
    drop(UnixListener::bind(&deaf).expect("bind"));
    let file = bundle.scratch().join("file");
    fs::write(&file, "").expect("write");
    for path in [nowhere, deaf, file] {
        let path = path.to_str().expect("a path");
        let bundle = asking(TestBundle::new(), &["mkdir"], path);
        let output = bundle.run();
        let line = output.one_line_failure();
        assert!(line.contains(path), "{output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn the_call_that_hands_the_listener_over_cannot_be_asked_for() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it may be");
    let bundle = TestBundle::new();
    let agent = Agent::new(&bundle);
    let path = agent.path.to_str().expect("a path");
    let bundle = asking(bundle, &["mkdir", "write"], path);
    let line = bundle.run().one_line_failure().to_owned();
    assert!(
        line.contains("SCMP_ACT_NOTIFY cannot be used for"),
        "{line}"
    );
    bundle.assert_nothing_left();
}

#[test]
fn flags_go_with_a_listener() {
    needs!(is_root(), "needs root");
    needs!(has_perl(), "needs perl");
    gocker_only!();
    for flags in [
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]),
    ] {
        let (bundle, agent) = asking_for_mkdir("mkdir /tmp/a", true);
        let bundle = bundle.set("/linux/seccomp/flags", flags);
        let (output, _) = agent.attend(&mut make(&bundle, "run"), 0);
        output.success();
    }
}
