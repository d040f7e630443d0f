//! The image tools that ours is compared with: skopeo fetches, umoci unpacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::image_tools::skopeo_copy;

/// Fetches an image from a registry on loopback into an OCI layout at
/// `directory/layout`.
///
/// # Errors
/// When skopeo (Debian package skopeo) is missing or fails.
pub fn fetch(reference: &str, directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let layout = directory.join("layout");
    let to = format!("oci:{}:image", layout.display());
    skopeo_copy(&format!("docker://{reference}"), &to)?;
    Ok(layout)
}

/// The manifest of an image of a registry on loopback, byte by byte as skopeo gets it.
///
/// # Errors
/// When skopeo is missing or fails.
pub fn raw_manifest(reference: &str) -> Result<Vec<u8>> {
    let mut command = Command::new("skopeo");
    command.args([
        "--insecure-policy",
        "inspect",
        "--raw",
        "--tls-verify=false",
    ]);
    run(command.arg(format!("docker://{reference}")))
}

/// Unpacks an image of a registry on loopback with umoci; returns its root
/// file system, `directory/rootfs`.
///
/// # Errors
/// When skopeo or umoci is missing or fails.
pub fn unpack(reference: &str, directory: &Path) -> Result<PathBuf> {
    let layout = fetch(reference, directory)?;
    unpack_layout(&layout, &directory.join("rootfs"))
}

/// Unpacks the image `image` of an OCI layout with umoci to `rootfs`, which it returns.
///
/// # Errors
/// When umoci is missing or fails.
pub fn unpack_layout(layout: &Path, rootfs: &Path) -> Result<PathBuf> {
    let mut command = Command::new("umoci");
    command
        .args(["raw", "unpack", "--image"])
        .arg(format!("{}:image", layout.display()));
    run(command.arg(rootfs))?;
    Ok(rootfs.to_owned())
}

/// Runs a tool to its end, with nothing to read; returns what it has written.
///
/// # Errors
/// When it is missing or fails; what it has said is in the error.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {:?}", command.get_program()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        said.trim()
    );
    Ok(output.stdout)
}
