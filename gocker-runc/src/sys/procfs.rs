//! A procfs that nobody else can touch, for every write to `/proc`.
//!
//! Writes of labels, kernel parameters and id maps were redirected by mounts and symlinks
//! that a container had placed (CVE-2019-16884, CVE-2025-52881). This one is mounted nowhere,
//! or, where a new one may not be made, it is the host's, checked to be a procfs and opened
//! without crossing into any mount on top of it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::mount_api::{attr, fsconfig_create, fsmount, fsopen};
use super::mount_by_path::mount_id;
use super::{CallError, Called};

/// The root of a procfs.
pub(crate) struct ProcFd(OwnedFd);

impl ProcFd {
    /// A new, detached procfs of the calling process's PID namespace; the one at `/proc`
    /// where the kernel refuses that.
    ///
    /// Runs in: either process, before pivot_root.
    ///
    /// # Errors
    /// Neither can be had, or `/proc` is not a procfs.
    pub(crate) fn private() -> Result<Self, CallError> {
        match detached() {
            Ok(fd) => Ok(Self(fd)),
            Err(_) => Self::host(),
        }
    }

    /// The procfs at `/proc`.
    ///
    /// # Errors
    /// `/proc` cannot be opened or is not a procfs.
    pub(crate) fn host() -> Result<Self, CallError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open("/proc", flags, Mode::empty()).called(|| "open(/proc)".into())?;
        let kind = fstatfs(&fd)
            .called(|| "fstatfs(/proc)".into())?
            .filesystem_type();
        if kind != PROC_SUPER_MAGIC {
            return Err(CallError {
                call: "/proc is not a procfs".into(),
                errno: Errno::EINVAL,
            });
        }
        Ok(Self(fd))
    }

    /// Opens `path`, relative to the procfs, without leaving it.
    ///
    /// # Errors
    /// openat2(2)'s; EXDEV where something is mounted over a part of the path.
    pub(crate) fn open(&self, path: &str, flags: OFlag) -> Result<OwnedFd, CallError> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve);
        match openat2(self.0.as_fd(), Path::new(path), how) {
            // Linux before 5.6, or a seccomp filter that is as old.
            Err(Errno::ENOSYS | Errno::EPERM) => self.open_by_components(path, flags),
            done => done,
        }
        .called(|| format!("open(/proc/{path})"))
    }

    /// Opens a namespace's file by its link in `/proc/PID/ns`, which leads out of the procfs.
    ///
    /// # Errors
    /// open(2)'s.
    pub(crate) fn open_namespace(&self, path: &str) -> Result<OwnedFd, CallError> {
        let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
        let dir = self.open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        openat(
            &dir,
            name,
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .called(|| format!("open(/proc/{path})"))
    }

    /// As [`Self::open`], without openat2(2): no component is a symlink, and all of them are of
    /// the mount that the procfs's root is of.
    fn open_by_components(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        let own = mount_id(self.0.as_fd())?;
        let path = match path.split_once('/') {
            Some((link @ ("self" | "thread-self"), rest)) => {
                let target = readlinkat(&self.0, link)?;
                format!("{}/{rest}", target.to_string_lossy())
            }
            _ => path.to_owned(),
        };
        let mut here = self.0.try_clone().map_err(|_| Errno::EMFILE)?;
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            if name == ".." {
                return Err(Errno::EXDEV);
            }
            let how = if names.peek().is_none() {
                flags | OFlag::O_CLOEXEC
            } else {
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
            };
            here = openat(&here, name, how | OFlag::O_NOFOLLOW, Mode::empty())?;
            if mount_id(here.as_fd())? != own {
                return Err(Errno::EXDEV);
            }
        }
        Ok(here)
    }

    /// Writes `value` to `path` by one write(2), as procfs wants it.
    ///
    /// # Errors
    /// open's and write(2)'s.
    pub(crate) fn write(&self, path: &str, value: &[u8]) -> Result<(), CallError> {
        let fd = self.open(path, OFlag::O_WRONLY)?;
        match nix::unistd::write(&fd, value) {
            Ok(length) if length == value.len() => Ok(()),
            Ok(_) => Err(Errno::EIO),
            Err(errno) => Err(errno),
        }
        .called(|| {
            format!(
                "write(/proc/{path}, {:?})",
                String::from_utf8_lossy(value).trim_end()
            )
        })
    }
}

fn detached() -> Result<OwnedFd, Errno> {
    let fs = fsopen(c"proc")?;
    fsconfig_create(&fs)?;
    fsmount(&fs, attr::NOSUID | attr::NODEV | attr::NOEXEC)
}
