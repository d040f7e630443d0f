//! Engines that drive the runtime: containerd, Docker and Podman, each with a store, a
//! state and a socket of its own in a temporary directory.

mod buildah;
mod containerd;
mod docker;
mod podman;
mod podman_rootless;
mod terminal;

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use conformance::command::{end_within, process_id, spawn_on};
use conformance::images::{Blob, Image, busybox};
use conformance::{run_command, runtime};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

/// What the test's image is called in the engines.
const IMAGE: &str = "localhost/conformance-busybox:test";

/// Whether the runtime under test says that it serves seccomp; engines send a
/// profile with every container unless told not to.
fn serves_seccomp() -> bool {
    let output = run_command(Command::new(&runtime().program).arg("features"));
    // crun of Debian has no such command, and serves it.
    serde_json::from_str::<Value>(&output.stdout).map_or(output.code() != 0, |features| {
        features["linux"]["seccomp"]["enabled"] == true
    })
}

/// An OCI archive (image-layout.md in a tar file) with one image of busybox.
fn busybox_archive(directory: &Path) -> PathBuf {
    let image = busybox().expect("an image of busybox");
    let path = directory.join("image.tar");
    write_archive(&image, &path);
    path
}

fn write_archive(image: &Image, path: &Path) {
    let mut descriptor = image.manifest.descriptor();
    descriptor["annotations"] = json!({
        "org.opencontainers.image.ref.name": IMAGE,
        "io.containerd.image.name": IMAGE,
    });
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    let inside = |blob: &Blob| format!("blobs/{}", blob.digest.replace(':', "/"));
    // Docker reads this one, the others read index.json.
    let docker = json!([{
        "Config": inside(&image.config),
        "RepoTags": [IMAGE],
        "Layers": image.layers.iter().map(inside).collect::<Vec<_>>(),
    }]);
    let mut archive = tar::Builder::new(File::create(path).expect("create the archive"));
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, bytes)
            .expect("write to the archive");
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    add("index.json", index.to_string().as_bytes());
    add("manifest.json", docker.to_string().as_bytes());
    for blob in image.blobs().chain([&image.manifest]) {
        add(&inside(blob), &blob.bytes);
    }
    archive.finish().expect("finish the archive");
}

/// A command on a terminal of the test's own, and what appeared on it.
fn run_on_a_terminal(command: &mut Command) -> (i32, String) {
    let pty = nix::pty::openpty(None, None).expect("openpty");
    let mut child = spawn_on(pty.slave.as_fd(), command);
    drop(pty.slave);
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // The end is EIO: nobody has the other side any more.
        let end = std::io::Read::read_to_end(&mut File::from(pty.master), &mut text);
        (
            end.is_ok(),
            String::from_utf8_lossy(&text).replace('\r', ""),
        )
    });
    let code = wait_for(&mut child, Duration::from_secs(60));
    let (_, text) = reader.join().expect("read the terminal");
    (code, text)
}

/// Waits for a child; kills it when the time is over.
fn wait_for(child: &mut Child, limit: Duration) -> i32 {
    let status = end_within(child, limit);
    assert!(status.is_some(), "should end within {limit:?}");
    status.and_then(|status| status.code()).unwrap_or(-1)
}

/// Ends a daemon in good order.
fn terminate(daemon: &mut Child) {
    let pid = process_id(daemon.id());
    if let Err(error) = kill(pid, Signal::SIGTERM) {
        eprintln!("clean-up: kill {pid}: {error}");
    }
    wait_for(daemon, Duration::from_secs(20));
}
