//! Debian's smallest system as a layer, made once and kept.

use std::env;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::{Compression, Image, ImageBuilder, digest_of};

/// An image of Debian's packages of priority required and apt (`minbase`).
///
/// The layer is made by `mmdebstrap` on the first call and then taken from
/// `$XDG_CACHE_HOME/gocker-conformance`; calls at the same time wait.
///
/// # Errors
/// When `mmdebstrap` is missing or has no mirror to fetch from.
pub fn debian() -> Result<Image> {
    let cache = cache_directory()?;
    let lock = File::create(cache.join("debian.lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let (sent, diff_id) = (cache.join("debian.tar.gz"), cache.join("debian.diff-id"));
    if !diff_id.exists() {
        make_layer(&cache, &sent, &diff_id)?;
    }
    let builder = ImageBuilder::new().layer_of(
        Compression::Gzip,
        fs::read(&sent)?,
        fs::read_to_string(&diff_id)?,
    );
    Ok(builder.build())
}

/// The diff id is written last: where it is, the layer is whole.
fn make_layer(cache: &Path, sent: &Path, diff_id: &Path) -> Result<()> {
    let tar = cache.join("debian.tar");
    let suite = suite()?;
    let mut command = Command::new("mmdebstrap");
    command.args([
        "--quiet",
        "--variant=minbase",
        "--mode=root",
        "--format=tar",
        &suite,
    ]);
    let output = command
        .arg(&tar)
        .output()
        .context("run mmdebstrap (Debian package mmdebstrap)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mmdebstrap {suite}: {said}");
    let bytes = fs::read(&tar)?;
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(sent)?, flate2::Compression::new(6));
    std::io::copy(&mut bytes.as_slice(), &mut encoder)?;
    nix::unistd::fsync(encoder.finish()?.as_fd())?;
    fs::write(diff_id, digest_of(&bytes))?;
    fs::remove_file(&tar)?;
    Ok(())
}

fn suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release")?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name
        .context("/etc/os-release names no VERSION_CODENAME")?
        .into())
}

fn cache_directory() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = base
        .or_else(home)
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let cache = base.join("gocker-conformance");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}
