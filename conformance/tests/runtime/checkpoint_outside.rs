//! `checkpoint` and `restore` of what reaches beyond the container: connections, namespaces and
//! sockets of others, memory that goes elsewhere.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::command::{end_within, process_id};
use conformance::{Container, TestBundle, needs, peer_differs, wait_until};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use super::checkpoint::{
    assert_counts_on, checkpoint, count, counter, criu_works, images, restore, run, text,
};

/// How long something that has been started may take to show.
const SOON: Duration = Duration::from_secs(5);

/// A program beside the container, ended with the test.
struct Beside(Child);

impl Beside {
    fn start(command: &mut Command) -> Self {
        for set in [Command::stdin, Command::stdout, Command::stderr] {
            set(command, Stdio::null());
        }
        Self(command.spawn().expect("starts"))
    }

    /// Waits for its end.
    fn wait(&mut self) -> bool {
        end_within(&mut self.0, SOON).is_some_and(|status| status.success())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            kill(process_id(self.0.id()), Signal::SIGKILL).expect("is killed");
            self.0.wait().expect("is waited for");
        }
    }
}

/// A port of loopback's that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address").port()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn a_connection_goes_on_where_tcp_is_asked_for() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    peer_differs!(Runc | Crun, "they leave the container's network to hooks");
    let bundle = TestBundle::shell(
        "sleep 10000 | busybox nc -l -p 9000 > /got & \
         until cat /proc/net/tcp /proc/net/tcp6 | grep -q ':2328 '; do sleep 0.05; done; \
         while :; do echo tick; sleep 0.05; done | busybox nc 127.0.0.1 9000",
    );
    let container = run(&bundle);
    let got = bundle.rootfs().join("got");
    let arrives = |past: u64| wait_until(SOON, || length(&got) > past);
    assert!(arrives(0), "nothing arrives");
    let output = checkpoint(&container, &images(&bundle), &[]);
    output.failure();
    if conformance::runtime().kind == conformance::Kind::Gocker {
        assert!(output.stderr.contains("tcp-established"), "{output}");
    }
    assert!(arrives(length(&got)), "it was cut off by a refusal");
    checkpoint(&container, &images(&bundle), &["--tcp-established"]).success();
    let saved = length(&got);
    restore(&container, &bundle, &["--tcp-established"]).expect("is restored");
    assert!(arrives(saved), "nothing arrives any more");
    container.delete(&["--force"]).success();
}

#[test]
fn a_joined_network_namespace_is_joined_again() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    let holder = TestBundle::sleeper();
    let holder_container = holder.running();
    let path = format!("/proc/{}/ns/net", holder_container.pid());
    let bundle = counter().namespace("network", Some(json!({"type": "network", "path": path})));
    let container = run(&bundle);
    checkpoint(&container, &images(&bundle), &[]).success();
    let saved = count(&bundle);
    restore(&container, &bundle, &[]).expect("is restored");
    assert_counts_on(&bundle, saved);
    let own = format!("/proc/{}/ns/net", container.pid());
    let namespace = |path: &str| fs::read_link(path).expect("a namespace");
    assert_eq!(namespace(&own), namespace(&path));
    container.delete(&["--force"]).success();
    holder_container.delete(&["--force"]).success();
}

#[test]
fn a_socket_of_the_hosts_is_found_again_where_it_is_asked_for() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    // CRIU finds the other end in the same network namespace only.
    let bundle = TestBundle::shell("while :; do echo tick; sleep 0.05; done | busybox logger")
        .namespace("network", None);
    let socket = bundle.scratch().join("log.socket");
    let log = UnixDatagram::bind(&socket).expect("bind");
    log.set_read_timeout(Some(SOON * 10)).expect("a limit");
    log.set_nonblocking(false).expect("blocks");
    // CRIU connects to it by the name that it was bound to.
    let at = |destination: &Path| json!({"destination": destination, "type": "bind", "source": socket, "options": ["bind"]});
    let bundle = bundle.mount(at(Path::new("/dev/log"))).mount(at(&socket));
    let mut message = [0; 256];
    let container = run(&bundle);
    log.recv(&mut message).expect("is logged");
    checkpoint(&container, &images(&bundle), &[]).failure();
    checkpoint(&container, &images(&bundle), &["--ext-unix-sk"]).success();
    log.set_nonblocking(true).expect("does not block");
    while log.recv(&mut message).is_ok() {}
    log.set_nonblocking(false).expect("blocks");
    restore(&container, &bundle, &["--ext-unix-sk"]).expect("is restored");
    log.recv(&mut message).expect("is logged again");
    container.delete(&["--force"]).success();
}

#[test]
fn memory_goes_to_a_page_server() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    let bundle = counter();
    let container = run(&bundle);
    let elsewhere = bundle.scratch().join("elsewhere");
    fs::create_dir(&elsewhere).expect("is made");
    let port = free_port().to_string();
    let mut server = Command::new("criu");
    server.args(["page-server", "--address", "127.0.0.1", "--port", &port]);
    let mut server = Beside::start(server.arg("--images-dir").arg(&elsewhere));
    let address = format!("127.0.0.1:{port}");
    assert!(wait_until(SOON, || listens(&port)), "no page server");
    checkpoint(&container, &images(&bundle), &["--page-server", &address]).success();
    assert!(server.wait(), "the page server failed");
    assert!(!images(&bundle).join("pages-1.img").exists());
    for entry in fs::read_dir(&elsewhere).expect("is there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        fs::rename(&path, images(&bundle).join(name)).expect("is moved");
    }
    let saved = count(&bundle);
    restore(&container, &bundle, &[]).expect("is restored");
    assert_counts_on(&bundle, saved);
    container.delete(&["--force"]).success();
}

/// Whether somebody listens on a TCP port.
fn listens(port: &str) -> bool {
    let number: u16 = port.parse().expect("a port");
    let sockets = fs::read_to_string("/proc/net/tcp").expect("a table");
    let wanted = format!(":{number:04X} 00000000:0000 0A");
    sockets.contains(&wanted)
}

/// The memory stays with the first one until the second asks for it.
#[test]
fn memory_comes_when_it_is_asked_for() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    peer_differs!(
        Runc | Crun,
        "the test is about gocker-runc's descriptor for readiness"
    );
    let bundle = counter().set("/linux/cgroupsPath", json!(""));
    let container = run(&bundle);
    let port = free_port().to_string();
    let address = format!("127.0.0.1:{port}");
    let images = images(&bundle);
    let (ready, said) = (
        bundle.scratch().join("ready"),
        bundle.scratch().join("said"),
    );
    let options = [
        "--lazy-pages",
        "--page-server",
        &address,
        "--status-fd",
        "7",
    ];
    let runtime = container.command("checkpoint", &options);
    let mut command = Command::new("sh");
    command.args(["-c", "f=$1 e=$2; shift 2; exec \"$@\" 7>$f 2>$e", "sh"]);
    command.arg(&ready).arg(&said).arg(runtime.get_program());
    command
        .args(runtime.get_args())
        .arg("--image-path")
        .arg(&images);
    let mut saving = Beside::start(&mut command);
    let is_ready = wait_until(SOON * 2, || length(&ready) > 0 || length(&said) > 0);
    assert!(is_ready, "nothing is said");
    let said = fs::read_to_string(said).expect("is there");
    // Not every machine lets memory be served so.
    needs!(
        !said.contains("--lazy-pages: this kernel"),
        "{}",
        said.trim()
    );
    assert_eq!(said, "");
    assert_eq!(fs::read(ready).expect("is there"), [0]);
    let saved = count(&bundle);
    let work = bundle.scratch().join("work");
    let mut pages = serve_pages(&images, &work, &port);
    let other = bundle.container_named(&format!("{}-other", bundle.id()));
    restore_lazily(&other, &bundle, &work);
    assert_counts_on(&bundle, saved);
    assert!(saving.wait(), "the checkpoint failed");
    assert!(pages.wait(), "the server of pages failed");
    other.delete(&["--force"]).success();
}

fn restore_lazily(container: &Container<'_>, bundle: &TestBundle, work: &Path) {
    let options = [
        "--lazy-pages",
        "--work-path",
        text(work),
        "--manage-cgroups-mode",
        "ignore",
    ];
    restore(container, bundle, &options).expect("is restored");
}

/// CRIU's program that asks for memory on behalf of what is restored, in the new directory `work`.
fn serve_pages(images: &Path, work: &Path, port: &str) -> Beside {
    fs::create_dir(work).expect("is made");
    let mut pages = Command::new("criu");
    pages.args([
        "lazy-pages",
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        port,
    ]);
    pages
        .arg("--images-dir")
        .arg(images)
        .arg("--work-dir")
        .arg(work);
    let pages = Beside::start(&mut pages);
    let socket = work.join("lazy-pages.socket");
    assert!(wait_until(SOON, || socket.exists()), "no server of pages");
    pages
}
