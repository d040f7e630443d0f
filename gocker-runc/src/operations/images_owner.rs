//! Images that the processes of a user namespace read themselves.
//!
//! CRIU writes images that only root may read, and reads most of them again in the process that is
//! to become the container's first one: as root of the container's user namespace, which is nobody
//! special outside.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context;
use bundles::config::Config;
use bundles::config::linux::namespaces::Kind;

/// What a group may do, in the bits of a mode.
const SEARCH: u32 = 0o010;
const WRITE: u32 = 0o020;
const READ: u32 = 0o040;

/// Lets the root of a new user namespace read the images, and those that they complete, by its
/// group; `is_changed` says that memory is punched out of them, too.
///
/// # Errors
/// Neither may it read them, nor can that be changed.
pub(super) fn let_read(images: &File, config: &Config, is_changed: bool) -> anyhow::Result<()> {
    let Some(group) = group_of_root(config) else {
        return Ok(());
    };
    let wanted = if is_changed { READ | WRITE } else { READ };
    let mut seen = Vec::new();
    let mut next = Some(images.try_clone().context("--image-path")?);
    while let Some(directory) = next {
        let metadata = directory.metadata().context("--image-path: stat")?;
        let identity = (metadata.dev(), metadata.ino());
        if seen.contains(&identity) {
            break;
        }
        seen.push(identity);
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let given = let_read_directory(&directory, &path, group, wanted);
        given.context("--image-path: let root of the user namespace read the images")?;
        next = parent(&path).context("--image-path: open \"parent\"")?;
    }
    Ok(())
}

/// The host's id of the group 0 in a user namespace that is the container's own.
fn group_of_root(config: &Config) -> Option<u32> {
    let mappings = config.linux.gid_mappings.iter();
    let mut roots = mappings.filter(|mapping| mapping.container_id == 0);
    let is_new = config.linux.namespaces.is_new(Kind::User);
    is_new
        .then(|| roots.next())
        .flatten()
        .map(|root| root.host_id)
}

fn let_read_directory(directory: &File, path: &Path, group: u32, wanted: u32) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_image = Path::new(&entry.file_name()).extension() == Some("img".as_ref());
        if !is_image || !entry.file_type()?.is_file() {
            continue;
        }
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NOFOLLOW);
        allow(&options.open(entry.path())?, group, wanted)?;
    }
    allow(directory, group, SEARCH)
}

/// Allows `group` what is `wanted`, unless all or it may already.
fn allow(file: &File, group: u32, wanted: u32) -> io::Result<()> {
    let metadata = file.metadata()?;
    if is_allowed(&metadata, group, wanted) {
        return Ok(());
    }
    fchown(file, None, Some(group))?;
    file.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777 | wanted))
}

fn is_allowed(metadata: &Metadata, group: u32, wanted: u32) -> bool {
    let is_theirs = metadata.gid() == group;
    let bits = if is_theirs { wanted } else { wanted >> 3 };
    metadata.mode() & bits == bits
}

/// The directory of the earlier images that those in the directory `path` complete.
fn parent(path: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_DIRECTORY);
    match options.open(path.join("parent")) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
