//! Terminals: config.md#process `terminal`, and runc's docs/terminals.md.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use conformance::command::spawn_on;
use conformance::host::is_root;
use conformance::{Output, TestBundle, needs, peer_differs, run_command, wait_until};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

pub(super) fn with_terminal(script: &str) -> TestBundle {
    TestBundle::shell(script).set("/process/terminal", json!(true))
}

/// `run` on a terminal of script(1)'s, to the end.
pub(super) fn run_in_script(bundle: &TestBundle) -> Output {
    let command = bundle.runtime();
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let path = bundle.path();
    let line = format!(
        "{} run --bundle {} {}",
        words.join(" "),
        path.display(),
        bundle.id()
    );
    run_command(Command::new("script").args(["-qec", &line, "/dev/null"]))
}

/// What a foreground run wrote to a terminal of this size.
pub(crate) struct Foreground {
    child: Child,
    pub(crate) master: File,
}

fn run_on_a_terminal(bundle: &TestBundle, rows: u16, columns: u16) -> Foreground {
    on_a_terminal(bundle.making("run", &[]), rows, columns)
}

/// Runs a command on a terminal of this size.
pub(crate) fn on_a_terminal(mut command: Command, rows: u16, columns: u16) -> Foreground {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).expect("openpty");
    Foreground {
        child: spawn_on(pty.slave.as_fd(), &mut command),
        master: File::from(pty.master),
    }
}

/// Reads until the terminal's last holder closes it, or the text ends so.
pub(crate) fn read_terminal(master: &mut File, until: Option<&str>) -> String {
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&*master, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("fcntl");
    let mut text = String::new();
    let end = Instant::now() + Duration::from_secs(15);
    let mut buffer = [0_u8; 4096];
    while Instant::now() < end {
        match master.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                text.push_str(&String::from_utf8_lossy(&buffer[..count]).replace('\r', ""))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            // EIO: nobody has the other side.
            Err(_) => break,
        }
        if until.is_some_and(|end| text.contains(end)) {
            break;
        }
    }
    text
}

impl Foreground {
    /// Gives the terminal another size and tells the program so.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.master, size).expect("set the size");
        let pid = conformance::command::process_id(self.child.id());
        kill(pid, Signal::SIGWINCH).expect("kill");
    }

    pub(crate) fn finish(mut self) -> (i32, String) {
        let text = read_terminal(&mut self.master, None);
        let status = self.child.wait().expect("wait");
        (status.code().unwrap_or(-1), text)
    }
}

#[test]
fn a_foreground_run_has_a_terminal_of_its_own() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal(
        "tty; for f in 0 1 2; do test -t $f && echo $f; done; test -c /dev/console && echo console
         stat -c %t /dev/console $(tty); exit 6",
    );
    let (code, text) = run_on_a_terminal(&bundle, 24, 80).finish();
    assert_eq!(text, "/dev/pts/0\n0\n1\n2\nconsole\n88\n88\n");
    assert_eq!(code, 6);
    bundle.assert_nothing_left();
}

#[test]
fn a_foreground_terminal_has_the_size_of_the_callers() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it sets it late");
    let bundle = with_terminal("sleep 0.3; stty size");
    let (code, text) = run_on_a_terminal(&bundle, 33, 77).finish();
    assert_eq!((code, text.as_str()), (0, "33 77\n"));
}

#[test]
fn input_reaches_a_foreground_terminal() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal("echo ready; read line; echo got $line");
    let mut foreground = run_on_a_terminal(&bundle, 24, 80);
    let mut text = read_terminal(&mut foreground.master, Some("ready\n"));
    std::io::Write::write_all(&mut foreground.master, b"typed\n").expect("write");
    text.push_str(&read_terminal(&mut foreground.master, Some("got typed\n")));
    assert!(text.ends_with("got typed\n"), "{text:?}");
    let (code, _) = foreground.finish();
    assert_eq!(code, 0);
}

/// A shell on the terminal needs it as its controlling one.
#[test]
fn the_terminal_controls_the_process() {
    needs!(is_root(), "needs root");
    let bundle =
        with_terminal("echo to tty > /dev/tty; trap 'exit 5' INT; echo ready; read x; read x");
    let mut foreground = run_on_a_terminal(&bundle, 24, 80);
    let text = read_terminal(&mut foreground.master, Some("ready\n"));
    assert!(text.contains("to tty\n"), "{text:?}");
    // Control-C, by way of the line discipline.
    std::io::Write::write_all(&mut foreground.master, b"\x03").expect("write");
    let (code, text) = foreground.finish();
    assert_eq!(code, 5, "{text:?}");
}

#[test]
fn a_change_of_size_reaches_a_foreground_terminal() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it does not set the size");
    let bundle = with_terminal(
        "echo ready; i=0; while [ $i -lt 100 ]; do [ \"$(stty size)\" = '40 90' ] && echo resized && exit; \
         i=$((i+1)); sleep 0.1; done",
    );
    let mut foreground = run_on_a_terminal(&bundle, 24, 80);
    read_terminal(&mut foreground.master, Some("ready\n"));
    foreground.resize(40, 90);
    let (_, text) = foreground.finish();
    assert!(text.contains("resized\n"), "{text:?}");
}

#[test]
fn the_callers_terminal_is_left_as_it_was() {
    needs!(is_root(), "needs root");
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).expect("openpty");
    let before = nix::sys::termios::tcgetattr(&pty.slave).expect("tcgetattr");
    let bundle = with_terminal("true");
    let mut command = bundle.making("run", &[]);
    let status = spawn_on(pty.slave.as_fd(), &mut command)
        .wait()
        .expect("wait");
    assert!(status.success());
    let after = nix::sys::termios::tcgetattr(&pty.slave).expect("tcgetattr");
    assert_eq!(before.local_flags, after.local_flags);
    assert_eq!(before.input_flags, after.input_flags);
    assert_eq!(before.output_flags, after.output_flags);
}

/// All that comes over a console socket: the bytes, and the descriptors.
pub(super) fn receive(listener: &UnixListener) -> (Vec<u8>, Vec<OwnedFd>) {
    listener.set_nonblocking(true).expect("set non-blocking");
    let mut stream = None;
    wait_until(Duration::from_secs(10), || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let (stream, _) = stream.expect("somebody should connect");
    stream.set_nonblocking(false).expect("set blocking");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set a time limit");
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(10))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0_u8; 8192];
        let message = recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            RecvFlags::empty(),
        )
        .expect("a message, and after it the end: nobody keeps the socket");
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        if message.bytes == 0 {
            return (bytes, descriptors);
        }
        bytes.extend(&buffer[..message.bytes]);
    }
}

#[test]
fn a_console_socket_receives_exactly_one_terminal() {
    needs!(is_root(), "needs root");
    for subcommand in ["create", "run"] {
        let bundle = with_terminal("tty; test -t 0 && echo yes; sleep 1000");
        let socket = bundle.scratch().join("console");
        let listener = UnixListener::bind(&socket).expect("bind");
        let path = socket.to_str().expect("a path");
        let container = bundle.container();
        match subcommand {
            "create" => container.create(&["--console-socket", path]),
            _ => container.run(&["--detach", "--console-socket", path]),
        }
        .success();
        let (bytes, mut descriptors) = receive(&listener);
        assert_eq!(descriptors.len(), 1);
        assert!(!bytes.is_empty() && bytes.len() < 4096, "{bytes:?}");
        if subcommand == "create" {
            container.start().success();
        }
        let mut master = File::from(descriptors.remove(0));
        let text = read_terminal(&mut master, Some("yes\n"));
        assert_eq!(text, "/dev/pts/0\nyes\n");
        assert!(
            fs::metadata(container_dev(container.pid()))
                .expect("stat")
                .file_type()
                .is_char_device()
        );
    }
}

fn container_dev(pid: i32) -> String {
    format!("/proc/{pid}/root/dev/console")
}

#[test]
fn a_terminal_has_the_configured_size() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal("stty size; sleep 1000")
        .set("/process/consoleSize", json!({"height": 31, "width": 61}));
    let socket = bundle.scratch().join("console");
    let listener = UnixListener::bind(&socket).expect("bind");
    let container = bundle.container();
    container
        .create(&["--console-socket", socket.to_str().expect("a path")])
        .success();
    container.start().success();
    let (_, mut descriptors) = receive(&listener);
    let mut master = File::from(descriptors.remove(0));
    assert_eq!(read_terminal(&mut master, Some("\n")), "31 61\n");
}

#[test]
fn a_terminal_belongs_to_the_user() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal("stat -c %u:%a $(tty)")
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (code, text) = run_on_a_terminal(&bundle, 24, 80).finish();
    assert_eq!((code, text.as_str()), (0, "1000:620\n"));
}

#[test]
fn a_terminal_works_in_a_user_namespace() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal("tty; echo x > /dev/console").user_namespace();
    let (code, text) = run_on_a_terminal(&bundle, 24, 80).finish();
    assert_eq!((code, text.as_str()), (0, "/dev/pts/0\nx\n"));
}

/// Whoever detaches must say where the terminal goes, and who does not detach
/// or has no terminal must not.
#[test]
fn a_terminal_and_a_console_socket_come_together_or_not_at_all() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it checks fewer of them");
    let socket_of = |bundle: &TestBundle| {
        let path = bundle.scratch().join("console");
        let listener = UnixListener::bind(&path).expect("bind");
        (path.to_str().expect("a path").to_owned(), listener)
    };
    let bundle = with_terminal("true");
    bundle.container().create(&[]).one_line_failure();
    bundle.container().run(&["--detach"]).one_line_failure();
    let (socket, _listener) = socket_of(&bundle);
    bundle
        .container()
        .run(&["--console-socket", &socket])
        .one_line_failure();
    bundle.assert_nothing_left();

    let bundle = TestBundle::new();
    let (socket, _listener) = socket_of(&bundle);
    bundle
        .container()
        .create(&["--console-socket", &socket])
        .one_line_failure();
    bundle
        .container()
        .run(&["--detach", "--console-socket", &socket])
        .one_line_failure();
    bundle.assert_nothing_left();
}

#[test]
fn a_console_socket_that_nobody_listens_to_is_an_error() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal("true");
    let missing = bundle.scratch().join("missing");
    bundle
        .container()
        .create(&["--console-socket", missing.to_str().expect("a path")])
        .one_line_failure();
    bundle.assert_nothing_left();

    let nobody = bundle.scratch().join("nobody");
    drop(UnixListener::bind(&nobody).expect("bind"));
    bundle
        .container()
        .create(&["--console-socket", nobody.to_str().expect("a path")])
        .one_line_failure();
    bundle.assert_nothing_left();
}

#[test]
fn without_a_terminal_a_foreground_run_of_one_is_an_error() {
    needs!(is_root(), "needs root");
    let bundle = with_terminal("true");
    let output = bundle.run();
    output.failure();
    bundle.assert_nothing_left();
    assert!(!Path::new(&container_dev(0)).exists());
}

#[test]
fn without_a_terminal_there_is_no_console_device() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("test -e /dev/console && echo there; test -t 0 || echo no tty");
    let path = bundle.path();
    let output = run_command(
        bundle
            .runtime()
            .args(["run", "-b"])
            .arg(&path)
            .arg(bundle.id()),
    );
    assert_eq!(output.success(), "no tty\n");
}
