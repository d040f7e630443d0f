//! Containers on a bridge of netavark's, in a network namespace of the test's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conformance::binaries::installed;
use conformance::host::is_root;
use conformance::{needs, run_command, wait_until};

use super::{Podman, is_here};

#[test]
fn podman_connects_containers_by_a_bridge() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let netavark = Path::new("/usr/lib/podman/netavark").exists();
    needs!(netavark, "needs the Debian package netavark");
    needs!(
        installed("iptables").is_some(),
        "needs the Debian package iptables"
    );
    let podman = Podman::with_a_network();
    let create = [
        "network",
        "create",
        "--disable-dns",
        "--subnet",
        "10.99.0.0/24",
        "net",
    ];
    podman.ok(&create);
    let on_net = ["--network", "net:ip=10.99.0.7", "--detach", "--name", "web"];
    let publish = ["--publish", "8080:80"];
    let server = "echo served > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    let options = [on_net.as_slice(), &publish].concat();
    run_command(&mut podman.run_command(&options, &["sh", "-c", server])).success();
    let options = ["--rm", "--network", "net"];
    let fetch = ["wget", "-qO-", "http://10.99.0.7/index.html"];
    let fetched = || run_command(&mut podman.run_command(&options, &fetch)).stdout == "served\n";
    assert!(wait_until(Duration::from_secs(15), fetched));
    let mut from_here = Command::new("busybox");
    from_here.args(["wget", "-qO-", "http://127.0.0.1:8080/index.html"]);
    assert_eq!(run_command(&mut from_here).success(), "served\n");
    let stats = podman.ok(&["stats", "--no-stream", "--format", "{{.NetIO}}", "web"]);
    assert!(!stats.starts_with("0B / 0B"), "{stats}");
    let links = || podman.ok(&["exec", "web", "ls", "/sys/class/net"]);
    assert_eq!(
        links().split_whitespace().collect::<Vec<_>>(),
        ["eth0", "lo"]
    );
    podman.ok(&["network", "disconnect", "net", "web"]);
    assert_eq!(links(), "lo");
    podman.ok(&["rm", "--force", "--time", "0", "web"]);
    podman.ok(&["network", "rm", "net"]);
    podman.assert_nothing_left();
}
