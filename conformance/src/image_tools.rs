//! The tools that move images and that ours has to understand, and to be understood by: skopeo
//! copies them, Podman saves and loads them.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::umoci::run;

/// Copies an image from one transport of skopeo to another: `docker://…`, `oci:…`,
/// `oci-archive:…`, `docker-archive:…`, `dir:…`.
///
/// # Errors
/// When skopeo (Debian package skopeo) is missing or fails.
pub fn skopeo_copy(from: &str, to: &str) -> Result<()> {
    let mut command = Command::new("skopeo");
    command.args([
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ]);
    run(&mut command).map(drop)
}

/// Podman with a storage of its own, which goes with it.
#[derive(Debug)]
pub struct Podman {
    directory: TempDir,
}

impl Podman {
    /// An empty storage.
    ///
    /// # Errors
    /// When there can be no directory for it.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("gocker-podman-")
            .tempdir()?;
        Ok(Self { directory })
    }

    /// Runs a command of Podman's; returns what it has written.
    ///
    /// # Errors
    /// When Podman (Debian package podman) is missing or fails.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let place = |name: &str| self.directory.path().join(name);
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(place("root"))
            .arg("--runroot")
            .arg(place("runroot"))
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(args);
        Ok(String::from_utf8_lossy(&run(&mut command)?)
            .trim()
            .to_owned())
    }

    /// Loads a file or directory; returns the id of the image, the digest of its config.
    ///
    /// # Errors
    /// When Podman does not read it.
    pub fn load(&self, path: &Path) -> Result<String> {
        let said = self.run(&["load", "--quiet", "--input", &path.to_string_lossy()])?;
        let name = said.lines().last().unwrap_or_default();
        let name = name.split_once(": ").map_or(name, |(_, name)| name);
        self.run(&["image", "inspect", "--format", "{{.Id}}", name])
    }
}
