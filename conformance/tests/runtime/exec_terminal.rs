//! `exec` with a terminal, in the foreground and by a console socket.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;

use conformance::host::is_root;
use conformance::{TestBundle, needs, peer_differs};
use nix::sys::prctl::set_child_subreaper;

use super::console::{on_a_terminal, read_terminal, receive};
use super::exec::{exec, exec_shell};

#[test]
fn an_exec_with_a_terminal_has_one_of_the_containers() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let mut command = container.command("exec", &["--tty"]);
    let script = "tty; echo x > /dev/tty; read line; echo got $line; exit 6";
    command.args(["sh", "-c", script]);
    let mut foreground = on_a_terminal(command, 33, 77);
    let mut text = read_terminal(&mut foreground.master, Some("x\n"));
    foreground.master.write_all(b"typed\n").expect("write");
    let (code, rest) = foreground.finish();
    text.push_str(&rest);
    assert!(text.starts_with("/dev/pts/0\nx\n"), "{text:?}");
    assert!(text.ends_with("got typed\n"), "{text:?}");
    assert_eq!(code, 6);
}

#[test]
fn the_terminal_of_an_exec_has_the_size_of_the_callers() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they set it late");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let mut command = container.command("exec", &["--tty"]);
    command.args(["sh", "-c", "sleep 0.3; stty size"]);
    let (code, text) = on_a_terminal(command, 33, 77).finish();
    assert_eq!((code, text.as_str()), (0, "33 77\n"));
}

#[test]
fn a_console_socket_receives_the_terminal_of_a_detached_exec() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "the terminal stays root's");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let socket = bundle.scratch().join("console");
    let listener = UnixListener::bind(&socket).expect("bind");
    let path = socket.to_str().expect("a path");
    set_child_subreaper(true).expect("become a subreaper");
    let pid_file = bundle.scratch().join("pid");
    let mut options = vec![
        "--tty",
        "--detach",
        "--user",
        "1000",
        "--console-socket",
        path,
    ];
    options.extend(["--pid-file", pid_file.to_str().expect("a path")]);
    let script = "stat -c %u:%a $(tty); test -t 0 && echo yes; read line";
    exec_shell(&container, &options, script).success();
    let (bytes, mut descriptors) = receive(&listener);
    assert_eq!(descriptors.len(), 1);
    assert!(!bytes.is_empty() && bytes.len() < 4096, "{bytes:?}");
    let mut master = fs::File::from(descriptors.remove(0));
    assert_eq!(read_terminal(&mut master, Some("yes\n")), "1000:620\nyes\n");
    master.write_all(b"\n").expect("write");
    let pid = fs::read_to_string(&pid_file).expect("a pid file");
    assert_eq!(container.wait_exit(pid.parse().expect("a pid")), 0);
}

#[test]
fn a_terminal_without_anybody_for_it_is_an_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it checks fewer of them");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for options in [
        &["--tty"][..],
        &["--tty", "--detach"],
        &["--console-socket", "/no/such/socket"],
        &["--tty", "--detach", "--console-socket", "/no/such/socket"],
    ] {
        exec(&container, options, &["true"]).failure();
    }
}
