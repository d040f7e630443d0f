//! Sockets that a caller names, and that do not behave: nobody accepts, the path is long, the
//! other side hangs up.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, run_command};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, listen, socket,
};
use serde_json::json;

fn create(bundle: &TestBundle, flag: &str, path: &Path) -> Command {
    let mut command = bundle.runtime();
    command.args(["create", "--bundle"]).arg(bundle.path());
    command.arg(flag).arg(path).arg(bundle.id());
    command
}

fn with_terminal() -> TestBundle {
    TestBundle::sleeper().set("/process/terminal", true.into())
}

/// A listener at a path that no address can hold, by the name that it had when it was bound.
fn move_away(bundle: &TestBundle, bound: &Path) -> PathBuf {
    let directory = bundle.scratch().join("d".repeat(150));
    fs::create_dir_all(&directory).expect("mkdir");
    let long = directory.join("s".repeat(200));
    fs::rename(bound, &long).expect("rename");
    long
}

/// Who listens there is stuck, and its queue full.
fn refuse_to_wait(bundle: &TestBundle, flag: &str) {
    let path = bundle.scratch().join("stuck.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    listen(&listener, Backlog::new(0).expect("a backlog")).expect("listen");
    let mut waiting = Vec::new();
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("socket");
        let address = UnixAddr::new(&path).expect("an address");
        match connect(client.as_raw_fd(), &address) {
            Err(Errno::EAGAIN) => break,
            connected => connected.expect("connect"),
        }
        waiting.push(client);
    }
    let output = run_command(&mut create(bundle, flag, &path));
    let line = output.one_line_failure();
    assert!(
        line.contains("stuck.sock") && line.contains("(ETIMEDOUT)"),
        "{output}"
    );
    bundle.assert_nothing_left();
}

#[test]
fn a_console_socket_that_nobody_accepts_at_is_not_waited_for_for_ever() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = with_terminal();
    let _container = bundle.container();
    refuse_to_wait(&bundle, "--console-socket");
}

#[test]
fn a_pidfd_socket_that_nobody_accepts_at_is_not_waited_for_for_ever() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let _container = bundle.container();
    refuse_to_wait(&bundle, "--pidfd-socket");
}

#[test]
fn sockets_at_long_paths_are_reached() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (flag, bundle) in [
        ("--console-socket", with_terminal()),
        ("--pidfd-socket", TestBundle::sleeper()),
    ] {
        let _container = bundle.container();
        let bound = bundle.scratch().join("s.sock");
        let listener = UnixListener::bind(&bound).expect("bind");
        let long = move_away(&bundle, &bound);
        run_command(&mut create(&bundle, flag, &long)).success();
        listener.set_nonblocking(true).expect("fcntl");
        listener.accept().expect("somebody has connected");
    }
}

#[test]
fn a_notify_socket_at_a_long_path_is_told() {
    needs!(is_root(), "needs root");
    gocker_only!();
    // busybox knows no AF_UNIX: the host speaks in the container's stead, at its socket.
    let bundle = TestBundle::sleeper();
    let container = bundle.container();
    let bound = bundle.scratch().join("manager.sock");
    let manager = UnixDatagram::bind(&bound).expect("bind");
    let long = move_away(&bundle, &bound);
    let mut create = bundle.runtime();
    create.args(["create", "--bundle"]).arg(bundle.path());
    create.env("NOTIFY_SOCKET", &long).arg(bundle.id());
    run_command(&mut create).success();
    let mut start = container.command("start", &[]);
    let mut start = start.env("NOTIFY_SOCKET", &long).spawn().expect("spawn");
    let theirs = bundle
        .state_root()
        .join(bundle.id())
        .join("notify/notify.sock");
    let client = UnixDatagram::unbound().expect("a socket");
    let said = conformance::wait_until(std::time::Duration::from_secs(10), || {
        client.send_to(b"READY=1", &theirs).is_ok()
    });
    assert!(said, "{theirs:?}");
    let mut buffer = [0; 64];
    let limit = Some(std::time::Duration::from_secs(20));
    manager.set_read_timeout(limit).expect("set a time limit");
    let length = manager.recv(&mut buffer).expect("a message in time");
    assert!(buffer[..length].starts_with(b"READY=1\n"), "{buffer:?}");
    // The barrier: its descriptor is closed by not being taken.
    manager.recv(&mut buffer).expect("a message in time");
    assert!(start.wait().expect("wait").success());
}

#[test]
fn a_console_socket_that_hangs_up_is_an_error_and_leaves_nothing() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = with_terminal();
    let (path, gone) = (
        bundle.scratch().join("s.sock"),
        bundle.scratch().join("gone"),
    );
    // The terminal is sent after the hook, which waits until nobody is there to take it.
    let script = format!("until test -e {gone:?}; do sleep 0.01; done");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20}]);
    let bundle = bundle.set("/hooks", json!({"createRuntime": hook}));
    let _container = bundle.container();
    let listener = UnixListener::bind(&path).expect("bind");
    let peer = thread::spawn(move || {
        drop(listener.accept().expect("accept"));
        fs::write(gone, "").expect("write");
    });
    let output = run_command(&mut create(&bundle, "--console-socket", &path));
    peer.join().expect("the peer");
    let line = output.one_line_failure();
    assert!(
        line.contains("console socket") && line.contains("(EPIPE)"),
        "{output}"
    );
    bundle.assert_nothing_left();
}
