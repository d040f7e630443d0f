//! Extended attributes of an entry, set on its descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::fs::XattrFlags;

/// Why an attribute was not set.
#[derive(Debug, thiserror::Error)]
#[error("set extended attribute {name:?}")]
pub struct XattrError {
    name: String,
    source: crate::errno::Cause,
}

/// What became of the attributes of one entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NotSupported(pub(super) Vec<String>);

/// Whether attribute `name` is taken from images. Labels of the machine's own
/// security module, and what would steer an overlay, are not.
pub(crate) fn is_taken(name: &[u8]) -> bool {
    name != b"security.selinux" && !name.starts_with(b"trusted.overlay.")
}

/// Sets `xattrs` on an open file or directory. Attributes that the file system
/// or the file's type cannot have are skipped and named.
pub(super) fn set(
    fd: BorrowedFd<'_>,
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> Result<NotSupported, XattrError> {
    set_by(xattrs, |name, value| {
        rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
    })
}

/// Sets `xattrs` on `name` in `parent`, which may be a symlink or a device.
pub(super) fn set_at(
    parent: BorrowedFd<'_>,
    name: &std::ffi::OsStr,
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> Result<NotSupported, XattrError> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::openat(parent, name, flags, Mode::empty())
        .map_err(|errno| error(name.as_encoded_bytes(), errno))?;
    // A descriptor by O_PATH has no attributes of its own; its magic link
    // leads to exactly the file that it was opened on.
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    set_by(xattrs, |name, value| {
        rustix::fs::setxattr(&path, name, value, XattrFlags::empty())
    })
}

fn set_by(
    xattrs: &[(Vec<u8>, Vec<u8>)],
    set: impl Fn(&CStr, &[u8]) -> rustix::io::Result<()>,
) -> Result<NotSupported, XattrError> {
    let mut skipped = NotSupported::default();
    for (name, value) in xattrs.iter().filter(|(name, _)| is_taken(name)) {
        let c_name = CString::new(name.as_slice()).map_err(|_| error(name, Errno::EINVAL))?;
        match set(&c_name, value) {
            Ok(()) => {}
            // user.* on a symlink or a device is EPERM for everyone.
            Err(rustix::io::Errno::PERM) if name.starts_with(b"user.") => {
                skipped.0.push(String::from_utf8_lossy(name).into_owned());
            }
            Err(rustix::io::Errno::NOTSUP) => {
                skipped.0.push(String::from_utf8_lossy(name).into_owned());
            }
            Err(errno) => return Err(error(name, Errno::from_raw(errno.raw_os_error()))),
        }
    }
    Ok(skipped)
}

/// Removes the attributes of `fd` that `keep` does not name.
pub(super) fn remove_others(
    fd: BorrowedFd<'_>,
    keep: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), XattrError> {
    let Some(names) = list(fd).map_err(|errno| error(b"", errno))? else {
        return Ok(());
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(c_name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let bytes = c_name.to_bytes();
        if !is_taken(bytes) || keep.iter().any(|(kept, _)| kept == bytes) {
            continue;
        }
        match rustix::fs::fremovexattr(fd, c_name) {
            Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
            Err(errno) => return Err(error(bytes, Errno::from_raw(errno.raw_os_error()))),
        }
    }
    Ok(())
}

/// The names of all attributes, each with a NUL; None if there are none.
fn list(fd: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    let mut names = vec![0; 1024];
    loop {
        match rustix::fs::flistxattr(fd, names.as_mut_slice()) {
            Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(None),
            Ok(size) => {
                names.truncate(size);
                return Ok(Some(names));
            }
            // The kernel itself has no list of more than 64 KiB.
            Err(rustix::io::Errno::RANGE) if names.len() < 64 << 10 => names.resize(64 << 10, 0),
            Err(errno) => return Err(Errno::from_raw(errno.raw_os_error())),
        }
    }
}

/// Whether `fd` has the attribute `name`.
pub(super) fn has(fd: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    let mut nothing: [u8; 0] = [];
    match rustix::fs::fgetxattr(fd, name, &mut nothing) {
        Ok(_) | Err(rustix::io::Errno::RANGE) => Ok(true),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        Err(errno) => Err(Errno::from_raw(errno.raw_os_error())),
    }
}

fn error(name: &[u8], errno: Errno) -> XattrError {
    XattrError {
        name: String::from_utf8_lossy(name).into_owned(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn labels_and_overlay_attributes_are_not_taken() {
        let table: [(&[u8], bool); 5] = [
            (b"security.selinux", false),
            (b"trusted.overlay.opaque", false),
            (b"security.capability", true),
            (b"user.x", true),
            (b"trusted.x", true),
        ];
        for (name, taken) in table {
            assert_eq!(is_taken(name), taken);
        }
    }

    #[test]
    fn stale_attributes_go() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let pair = |name: &str| (name.as_bytes().to_vec(), b"1".to_vec());
        let skipped = set(file.as_fd(), &[pair("user.a"), pair("user.b")]).unwrap();
        if skipped != NotSupported::default() {
            println!("skipped: no extended attributes on this file system");
            return;
        }
        remove_others(file.as_fd(), &[pair("user.b")]).unwrap();
        assert!(!has(file.as_fd(), c"user.a").unwrap());
        assert!(has(file.as_fd(), c"user.b").unwrap());
    }
}
