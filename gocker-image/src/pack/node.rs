//! One file of a tree: what a layer can say of it, and where it differs from another.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, major, minor};
use serde::Serialize;

use crate::errno::CallError;
use crate::unpack::is_taken;

/// The longest list of names, and the longest value, that the kernel has.
const XATTR_MAX: usize = 64 << 10;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket, which no layer can have.
    Socket,
}

/// In what two files of one name differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// They are of different types.
    Type,
    /// The permission bits.
    Mode,
    /// User or group.
    Owner,
    /// The modification time.
    Mtime,
    /// Extended attributes.
    Xattrs,
    /// The bytes of a file.
    Content,
    /// Where a symlink leads.
    Target,
    /// Which device a node is of.
    Device,
    /// Which names are hard links of one another.
    Links,
}

/// What the kernel says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds, which count forwards.
    pub(super) mtime: (i64, i64),
    ctime: (i64, i64),
    pub(super) inode: u64,
    pub(super) names: u64,
    pub(super) device: (u64, u64),
}

impl Node {
    pub(super) fn of(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Symlink,
            SFlag::S_IFCHR => Kind::CharDevice,
            SFlag::S_IFBLK => Kind::BlockDevice,
            SFlag::S_IFIFO => Kind::Fifo,
            SFlag::S_IFSOCK => Kind::Socket,
            _ => Kind::File,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
            names: stat.st_nlink,
            device: (major(stat.st_rdev), minor(stat.st_rdev)),
        }
    }

    /// Whether it is the same inode, untouched since the one tree was made of the other: whatever
    /// changes a file sets its change time, which nobody can set back.
    pub(super) fn is_untouched(&self, old: &Self) -> bool {
        self.inode == old.inode && self.ctime == old.ctime
    }

    /// What differs without a look inside.
    pub(super) fn differs(&self, old: &Self) -> Vec<Aspect> {
        if self.kind != old.kind {
            return vec![Aspect::Type];
        }
        let is_device = matches!(self.kind, Kind::CharDevice | Kind::BlockDevice);
        let table = [
            (
                // symlinks have none
                self.mode != old.mode && self.kind != Kind::Symlink,
                Aspect::Mode,
            ),
            ((self.uid, self.gid) != (old.uid, old.gid), Aspect::Owner),
            (self.mtime != old.mtime, Aspect::Mtime),
            (
                self.kind == Kind::File && self.size != old.size,
                Aspect::Content,
            ),
            (is_device && self.device != old.device, Aspect::Device),
        ];
        let differing = table.into_iter().filter(|(differs, _)| *differs);
        differing.map(|(_, aspect)| aspect).collect()
    }
}

/// Extended attributes by name, those that layers have.
pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A file's name in an open directory.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
}

impl Place<'_> {
    /// The attributes of the file itself, not of what it may link to.
    pub(super) fn xattrs(&self) -> Result<Xattrs, CallError> {
        let fd = self.open(OFlag::O_PATH)?;
        // A descriptor by O_PATH has no attributes of its own; its magic link leads to exactly
        // the file that it was opened on.
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let mut xattrs = Xattrs::new();
        for name in self.xattr_names(&path)? {
            if is_taken(name.to_bytes())
                && let Some(value) = self.xattr(&path, &name)?
            {
                xattrs.insert(name.into_bytes(), value);
            }
        }
        Ok(xattrs)
    }

    fn xattr_names(&self, path: &std::path::Path) -> Result<Vec<CString>, CallError> {
        let mut names = vec![0; 1024];
        let count = loop {
            match rustix::fs::listxattr(path, names.as_mut_slice()) {
                Ok(count) => break count,
                Err(rustix::io::Errno::NOTSUP) => break 0,
                Err(rustix::io::Errno::RANGE) if names.len() < XATTR_MAX => {
                    names.resize(XATTR_MAX, 0);
                }
                Err(errno) => return Err(self.error("listxattr", errno)),
            }
        };
        let names = names[..count].split_inclusive(|byte| *byte == 0);
        let names = names.filter_map(|name| CStr::from_bytes_with_nul(name).ok());
        Ok(names.map(CStr::to_owned).collect())
    }

    /// None: it has gone since it was listed.
    fn xattr(&self, path: &std::path::Path, name: &CStr) -> Result<Option<Vec<u8>>, CallError> {
        let mut value = vec![0; 256];
        loop {
            match rustix::fs::getxattr(path, name, value.as_mut_slice()) {
                Ok(size) => {
                    value.truncate(size);
                    return Ok(Some(value));
                }
                Err(rustix::io::Errno::NODATA) => return Ok(None),
                Err(rustix::io::Errno::RANGE) if value.len() < XATTR_MAX => {
                    value.resize(XATTR_MAX, 0);
                }
                Err(errno) => return Err(self.error("getxattr", errno)),
            }
        }
    }

    /// What a symlink says.
    pub(super) fn target(&self) -> Result<Vec<u8>, CallError> {
        let target = readlinkat(self.parent, self.name);
        let target = target.map_err(|errno| CallError::new("readlinkat", self.name, errno))?;
        Ok(target.into_vec())
    }

    /// Opens a regular file, or whatever has taken its place, without waiting for it.
    pub(super) fn open_file(&self) -> Result<OwnedFd, CallError> {
        self.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
    }

    fn open(&self, flags: OFlag) -> Result<OwnedFd, CallError> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(self.parent, self.name, flags, Mode::empty());
        opened.map_err(|errno| CallError::new("openat", self.name, errno))
    }

    fn error(&self, call: &'static str, errno: rustix::io::Errno) -> CallError {
        CallError::new(call, self.name, Errno::from_raw(errno.raw_os_error()))
    }
}
