//! A copy of this program that nobody can write to, for what a container may see of it.
//!
//! A process in a container can reach the runtime's file through `/proc/PID/exe` or an
//! interpreter line, and overwrite it once it no longer runs (CVE-2019-5736). So whatever
//! becomes init runs from a read-only detached mount of the file, or, where mounts may not
//! be made, from a sealed memfd.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::mount_api::{MountAttr, Recursive, attr, clone_tree, mount_setattr};

/// What is running now.
pub(crate) enum Running {
    /// A file that cannot be written through this path: nothing to do.
    Protected,
    /// An ordinary file, opened.
    Plain(File),
}

/// Says whether the running program's file is protected already.
///
/// # Errors
/// `/proc/self/exe` cannot be opened: no procfs is mounted.
pub(crate) fn running() -> io::Result<Running> {
    let file = File::open("/proc/self/exe")?;
    if fstatvfs(&file)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(Running::Protected);
    }
    let all = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    match fcntl(&file, FcntlArg::F_GET_SEALS) {
        Ok(seals) if SealFlag::from_bits_truncate(seals).contains(all) => Ok(Running::Protected),
        _ => Ok(Running::Plain(file)),
    }
}

/// A descriptor from which the program can be executed and through which it cannot be
/// written.
///
/// # Errors
/// Neither a mount nor a memfd can be made.
pub(crate) fn protect(file: &File) -> io::Result<OwnedFd> {
    match read_only_mount() {
        Ok(fd) => Ok(fd),
        Err(_) => sealed_copy(file),
    }
}

fn read_only_mount() -> Result<OwnedFd, Errno> {
    let tree = clone_tree(nix::fcntl::AT_FDCWD, c"/proc/self/exe", Recursive::No)?;
    let attributes = MountAttr {
        set: attr::RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(tree.as_fd(), Recursive::No, attributes)?;
    Ok(tree)
}

fn sealed_copy(file: &File) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut copy = File::from(memfd_create(c"gocker-runc", flags)?);
    io::copy(&mut &*file, &mut copy)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy.into())
}
