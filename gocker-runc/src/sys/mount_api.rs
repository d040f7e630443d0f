//! The mount API on descriptors: fsopen(2), fsconfig(2), fsmount(2), open_tree(2),
//! move_mount(2), mount_setattr(2). nix has only mount(2), which takes paths.
#![allow(unsafe_code, reason = "system calls that nix lacks")]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::mount_by_path;

/// Flags of mount_setattr(2) and fsmount(2), `MOUNT_ATTR_*`.
pub(crate) mod attr {
    /// Read-only.
    pub(crate) const RDONLY: u64 = 0x1;
    /// Set-user-id bits mean nothing.
    pub(crate) const NOSUID: u64 = 0x2;
    /// Device nodes mean nothing.
    pub(crate) const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub(crate) const NOEXEC: u64 = 0x8;
    /// The three bits that hold how access times are kept.
    pub(crate) const ATIME: u64 = 0x70;
    /// Access times are not kept.
    pub(crate) const NOATIME: u64 = 0x10;
    /// Access times are kept at each access.
    pub(crate) const STRICTATIME: u64 = 0x20;
    /// Directories' access times are not kept.
    pub(crate) const NODIRATIME: u64 = 0x80;
    /// Owners are shown as a user namespace maps them.
    pub(crate) const IDMAP: u64 = 0x10_0000;
    /// Symlinks are not followed.
    pub(crate) const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Whether a call reaches the mounts below, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recursive {
    /// This mount and all below it.
    Yes,
    /// This mount alone.
    No,
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; 0 leaves it.
    pub(crate) propagation: u64,
    /// The user namespace of an id-mapped mount.
    pub(crate) user_namespace: u64,
}

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const FSPICK_CLOEXEC: libc::c_uint = 1;
const FSPICK_EMPTY_PATH: libc::c_uint = 8;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC.cast_unsigned();
const AT_RECURSIVE: libc::c_uint = 0x8000;
const AT_EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH.cast_unsigned();
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

/// fsopen(2): begins a new filesystem of type `kind`.
///
/// # Errors
/// fsopen(2)'s; ENODEV for a type that the kernel does not know.
pub(crate) fn fsopen(kind: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: `kind` is a C string that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    owned(fd)
}

/// fspick(2): begins to change the filesystem of the mount that `mount` is the root of.
///
/// # Errors
/// fspick(2)'s.
pub(crate) fn fspick(mount: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: the empty path is a C string with static lifetime; `mount` is open.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_fspick,
            mount.as_raw_fd(),
            c"".as_ptr(),
            FSPICK_CLOEXEC | FSPICK_EMPTY_PATH,
        )
    };
    owned(fd)
}

/// fsconfig(2) with `FSCONFIG_SET_STRING`: one `key=value` parameter.
///
/// # Errors
/// fsconfig(2)'s; EINVAL for a key or value that the filesystem refuses.
pub(crate) fn fsconfig_string(fs: &OwnedFd, key: &CStr, value: &CStr) -> Result<(), Errno> {
    fsconfig(fs, FSCONFIG_SET_STRING, Some(key), Some(value))
}

/// fsconfig(2) with `FSCONFIG_SET_FLAG`: one parameter without a value.
///
/// # Errors
/// fsconfig(2)'s.
pub(crate) fn fsconfig_flag(fs: &OwnedFd, key: &CStr) -> Result<(), Errno> {
    fsconfig(fs, FSCONFIG_SET_FLAG, Some(key), None)
}

/// fsconfig(2) with `FSCONFIG_CMD_CREATE`: makes the superblock.
///
/// # Errors
/// fsconfig(2)'s.
pub(crate) fn fsconfig_create(fs: &OwnedFd) -> Result<(), Errno> {
    fsconfig(fs, FSCONFIG_CMD_CREATE, None, None)
}

/// fsconfig(2) with `FSCONFIG_CMD_RECONFIGURE`: changes the superblock.
///
/// # Errors
/// fsconfig(2)'s.
pub(crate) fn fsconfig_reconfigure(fs: &OwnedFd) -> Result<(), Errno> {
    fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, None, None)
}

fn fsconfig(
    fs: &OwnedFd,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> Result<(), Errno> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are null or C strings that outlive the call; `fs` is open.
    let done = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            command,
            pointer(key),
            pointer(value),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// fsmount(2): a detached mount of the filesystem with `MOUNT_ATTR_*` flags.
///
/// # Errors
/// fsmount(2)'s.
pub(crate) fn fsmount(fs: &OwnedFd, attributes: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes numbers only; `fs` is open.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fs.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            attributes,
        )
    };
    owned(fd)
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a detached copy of the mount at `path`, which is
/// taken from `dir` as openat(2) does; an empty path means `dir` itself.
///
/// # Errors
/// open_tree(2)'s.
pub(crate) fn clone_tree(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: Recursive,
) -> Result<OwnedFd, Errno> {
    if mount_by_path::has_stage() {
        return mount_by_path::bind(dir, path, recursive);
    }
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
    if recursive == Recursive::Yes {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: `path` is a C string that outlives the call; `dir` is open.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) };
    owned(fd)
}

/// move_mount(2): attaches the detached mount `mount` on what `target` refers to.
///
/// # Errors
/// move_mount(2)'s.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    if mount_by_path::has_stage() {
        return mount_by_path::attach(mount, target);
    }
    // SAFETY: both paths are empty C strings with static lifetime; both descriptors are open.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(done).map(drop)
}

/// mount_setattr(2) on the mount that `mount` is the root of.
///
/// # Errors
/// mount_setattr(2)'s; ENOSYS before Linux 5.12.
pub(crate) fn mount_setattr(
    mount: impl AsFd,
    recursive: Recursive,
    attributes: MountAttr,
) -> Result<(), Errno> {
    let flags = AT_EMPTY_PATH
        | if recursive == Recursive::Yes {
            AT_RECURSIVE
        } else {
            0
        };
    // SAFETY: the empty path is static; `attributes` outlives the call and its size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(done).map(drop)
}

/// As [`mount_setattr`], by mount(2) where the kernel has no other way. For that, the mount must
/// be attached.
///
/// # Errors
/// mount_setattr(2)'s and mount(2)'s.
pub(crate) fn set_attributes(
    mount: impl AsFd,
    recursive: Recursive,
    attributes: MountAttr,
) -> Result<(), Errno> {
    match mount_setattr(&mount, recursive, attributes) {
        Err(errno) if is_missing(Call::MountSetattr, errno) => {
            mount_by_path::set_attributes(mount.as_fd(), recursive, attributes)
        }
        done => done,
    }
}

/// A call of this API that kernels back to Linux 5.4, or old seccomp filters, do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// open_tree(2), and with it all of Linux 5.2's calls.
    OpenTree,
    /// mount_setattr(2).
    MountSetattr,
}

/// Whether `errno`, the answer of `call`, means that there is no such call. EPERM is what old
/// seccomp filters answer to calls that they do not know: then a call that no kernel could
/// take tells, as a filter answers to it the same.
pub(crate) fn is_missing(call: Call, errno: Errno) -> bool {
    let number = match call {
        Call::OpenTree => libc::SYS_open_tree,
        Call::MountSetattr => libc::SYS_mount_setattr,
    };
    match errno {
        Errno::ENOSYS => true,
        Errno::EPERM => {
            let no_fd: libc::c_int = -1;
            // SAFETY: the path is static, no other pointer is given, and no flag is known.
            let done = unsafe {
                libc::syscall(
                    number,
                    no_fd,
                    c"".as_ptr(),
                    libc::c_uint::MAX,
                    0usize,
                    0usize,
                )
            };
            Errno::result(done) != Err(Errno::EINVAL)
        }
        _ => false,
    }
}

/// What the kernel says about the last failure on a filesystem context; empty when nothing.
pub(crate) fn fs_log(fs: &OwnedFd) -> String {
    let mut buffer = [0u8; 512];
    match nix::unistd::read(fs, &mut buffer) {
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).trim().to_owned(),
        Err(_) => String::new(),
    }
}

fn owned(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
