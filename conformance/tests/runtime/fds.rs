//! Descriptors: what the caller has open stays outside, but for what
//! `--preserve-fds` names.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::process::Command;

use conformance::host::is_root;
use conformance::{Container, TestBundle, gocker_only, needs, run_command};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// The runtime, run by a shell that has opened descriptors first.
fn with_descriptors(bundle: &TestBundle, redirections: &str, options: &[&str]) -> Command {
    bundle.write_config();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("exec \"$@\" {redirections}"), "sh"])
        .arg(&conformance::runtime().program)
        .arg("--root")
        .arg(bundle.state_root())
        .arg("run")
        .args(options)
        .arg("--bundle")
        .arg(bundle.path())
        .arg(bundle.id());
    command
}

const LIST: &str = "cd /proc/self/fd; for f in *; do [ -e /proc/1/fd/$f ] && echo $f; done; true";

#[test]
fn the_process_has_only_stdin_stdout_and_stderr() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(LIST);
    assert_eq!(bundle.run_ok(), "0\n1\n2\n");
}

#[test]
fn descriptors_that_the_caller_leaks_are_not_inherited() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(LIST);
    let mut command =
        with_descriptors(&bundle, "3</etc/passwd 4</ 5</proc 7>/dev/null 9</etc", &[]);
    assert_eq!(run_command(&mut command).success(), "0\n1\n2\n");
}

#[test]
fn descriptors_named_by_preserve_fds_are_inherited() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(&format!("cat <&3; {LIST}"));
    let file = bundle.scratch().join("file");
    std::fs::write(&file, "preserved\n").expect("write");
    let redirections = format!("3<{} 4</dev/null 5</dev/null", file.display());
    let mut command = with_descriptors(&bundle, &redirections, &["--preserve-fds", "2"]);
    assert_eq!(
        run_command(&mut command).success(),
        "preserved\n0\n1\n2\n3\n4\n"
    );
}

#[test]
fn descriptors_that_are_not_there_cannot_be_preserved() {
    needs!(is_root(), "needs root");
    conformance::peer_differs!(Runc | Crun, "they do not look");
    let bundle = TestBundle::new();
    bundle
        .container()
        .run(&["--preserve-fds", "3"])
        .one_line_failure();
    bundle.assert_nothing_left();
}

/// While it waits for `start`, too, the init has nothing of the host that the
/// process could come by.
#[test]
fn a_created_process_holds_no_directory_of_the_host() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let pid = container.pid();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("read")
        .flatten()
    {
        let target = std::fs::read_link(entry.path()).expect("readlink");
        let metadata = std::fs::metadata(entry.path());
        let is_directory = metadata.is_ok_and(|metadata| metadata.is_dir());
        let name = target.to_string_lossy();
        // The state directory, for the fifo that `start` opens, was the one way out
        // of CVE-2024-21626 that closing at execve does not close.
        assert!(!is_directory || name == "/", "{name}");
    }
}

/// Runs `SUBCOMMAND --pidfd-socket`, and returns the process that the descriptor means.
fn pid_by_socket(container: &Container<'_>, bundle: &TestBundle, command: &[&str]) -> i32 {
    let path = bundle.scratch().join("pidfd.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let socket = path.to_str().expect("a path");
    let mut call = container.command(command[0], &["--pidfd-socket", socket, "--detach"]);
    match command[0] {
        "exec" => call.args(&command[1..]),
        _ => call.arg("--bundle").arg(bundle.path()),
    };
    run_command(&mut call).success();
    let (stream, _) = listener.accept().expect("accept");
    std::fs::remove_file(&path).expect("remove");
    let mut bytes = [0; 4096];
    let mut data = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!([i32; 2]);
    let fd = stream.as_raw_fd();
    let message = recvmsg::<()>(fd, &mut data, Some(&mut control), MsgFlags::empty());
    let message = message.expect("recvmsg");
    assert!(message.bytes > 0, "at least one byte");
    let fds: Vec<i32> = message
        .cmsgs()
        .expect("control messages")
        .flat_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds,
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(fds.len(), 1, "one descriptor");
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fds[0])).expect("fdinfo");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    pid.expect("a pidfd").trim().parse().expect("a pid")
}

#[test]
fn the_pidfd_socket_gets_a_pidfd_of_the_process() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    bundle.write_config();
    let container = bundle.container();
    assert_eq!(
        pid_by_socket(&container, &bundle, &["run"]),
        container.pid()
    );
    let further = pid_by_socket(&container, &bundle, &["exec", "sleep", "1000"]);
    assert_ne!(further, container.pid());
    let name = std::fs::read_to_string(format!("/proc/{further}/comm")).expect("comm");
    assert_eq!(name, "sleep\n");
}
