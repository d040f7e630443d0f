//! New filesystems: a type, a source, parameters, and a mount that is nowhere yet.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::sys::in_root::RootFd;
use crate::sys::mount_api::{
    Call, attr, fs_log, fsconfig_create, fsconfig_flag, fsconfig_reconfigure, fsconfig_string,
    fsmount, fsopen, fspick, is_missing,
};
use crate::sys::mount_by_path::{self, has_stage, new_filesystem, new_filesystem_over};
use crate::sys::{CallError, Called};

/// What is to be mounted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filesystem<'a> {
    /// The type, as in /proc/filesystems.
    pub(super) kind: &'a CStr,
    /// The device or label.
    pub(super) source: &'a CStr,
    /// Parameters: key, and value where there is one.
    pub(super) data: &'a [Parameter],
    /// `MOUNT_ATTR_*`.
    pub(super) attributes: u64,
}

/// A parameter: key, and value where there is one.
type Parameter = (CString, Option<CString>);

/// fsconfig(2): a string has 255 bytes and its end.
const FSCONFIG_MAX: usize = 255;

impl Filesystem<'_> {
    /// Whether fsconfig(2) has no way to say one of the parameters.
    fn is_for_mount2(&self) -> bool {
        self.data.iter().any(|(key, value)| {
            let value = value.as_ref().map_or(&b""[..], |value| value.to_bytes());
            // Before Linux 6.5 an overlay refuses commas, escaped as they are for mount(2).
            let escaped = value.windows(2).any(|two| two == b"\\,");
            // Only a flag of mount(2) means them.
            let versions = matches!(key.to_bytes(), b"iversion" | b"noiversion");
            value.len() > FSCONFIG_MAX || escaped || versions
        })
    }

    /// A device's filesystem must know that it is read-only, or it replays its journal.
    fn is_read_only_device(&self) -> bool {
        self.attributes & attr::RDONLY != 0 && self.source.to_bytes().starts_with(b"/")
    }
}

/// A detached mount of a new filesystem. For virtual ones read-only is the mount's affair;
/// a device's filesystem must know it, too, or it replays its journal. `root` is covered for a
/// moment where only mount(2) can make it.
///
/// # Errors
/// The call, and what the kernel says about it; E2BIG for more than mount(2) takes.
pub(super) fn new(root: &RootFd, wanted: &Filesystem<'_>) -> Result<OwnedFd, CallError> {
    let Filesystem { kind, source, .. } = wanted;
    if has_stage() || wanted.is_for_mount2() {
        return by_path(root, wanted);
    }
    let fs = fsopen(kind).called(|| format!("fsopen({kind:?})"))?;
    let answered = |errno, call| answered(&fs, errno, call);
    if !source.is_empty() {
        fsconfig_string(&fs, c"source", source)
            .map_err(|errno| answered(errno, format!("fsconfig(source={source:?})")))?;
    }
    if wanted.is_read_only_device() {
        fsconfig_flag(&fs, c"ro").map_err(|errno| answered(errno, "fsconfig(ro)".into()))?;
    }
    set_parameters(&fs, wanted.data)?;
    fsconfig_create(&fs).map_err(|errno| answered(errno, format!("fsconfig(create {kind:?})")))?;
    let attributes = wanted.attributes;
    fsmount(&fs, attributes).called(|| format!("fsmount({kind:?}, {attributes:#x})"))
}

/// Gives the filesystem of `mount` other parameters.
///
/// # Errors
/// The call, and what the kernel says about it.
pub(super) fn reconfigure(mount: &OwnedFd, data: &[Parameter]) -> Result<(), CallError> {
    let fs = match fspick(mount.as_fd()) {
        Err(errno) if is_missing(Call::OpenTree, errno) => {
            return mount_by_path::reconfigure(mount.as_fd(), data)
                .called(|| format!("mount(REMOUNT, {:?})", words(data)));
        }
        fs => fs.called(|| "fspick".into())?,
    };
    set_parameters(&fs, data)?;
    fsconfig_reconfigure(&fs).map_err(|errno| answered(&fs, errno, "fsconfig(reconfigure)".into()))
}

fn set_parameters(fs: &OwnedFd, data: &[Parameter]) -> Result<(), CallError> {
    data.iter().try_for_each(|(key, value)| {
        let done = match value {
            Some(value) => fsconfig_string(fs, key, value),
            None => fsconfig_flag(fs, key),
        };
        done.map_err(|errno| answered(fs, errno, format!("fsconfig({})", word(key, value))))
    })
}

/// A call's error with what the kernel says about it.
fn answered(fs: &OwnedFd, errno: Errno, call: String) -> CallError {
    let log = fs_log(fs);
    let call = if log.is_empty() {
        call
    } else {
        format!("{call}: {log}")
    };
    CallError { call, errno }
}

/// A parameter as it is written in the options.
fn word(key: &CString, value: &Option<CString>) -> String {
    let value = value.as_ref().map(|v| format!("={}", v.to_string_lossy()));
    format!("{}{}", key.to_string_lossy(), value.unwrap_or_default())
}

fn words(data: &[Parameter]) -> String {
    let words: Vec<_> = data.iter().map(|(key, value)| word(key, value)).collect();
    words.join(",")
}

/// By mount(2), which says less about what it refuses.
fn by_path(root: &RootFd, wanted: &Filesystem<'_>) -> Result<OwnedFd, CallError> {
    let ro = [(c"ro".to_owned(), None)];
    let more = if wanted.is_read_only_device() {
        &ro[..]
    } else {
        &[]
    };
    let data = [wanted.data, more].concat();
    let Filesystem { kind, source, .. } = *wanted;
    let made = if has_stage() {
        new_filesystem(kind, source, &data, wanted.attributes)
    } else {
        new_filesystem_over(root.as_fd(), kind, source, &data, wanted.attributes)
    };
    made.called(|| format!("mount({kind:?}, {:?})", words(wanted.data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fsconfig_has_no_way_to_say() {
        let long = "x".repeat(256);
        let cases: &[(&str, Option<&str>, bool)] = &[
            ("lowerdir", Some("/a:/b,c"), false),
            ("userxattr", None, false),
            ("lowerdir", Some(&long[..255]), false),
            ("lowerdir", Some(&long), true),
            ("lowerdir", Some("/a\\:b"), false),
            ("lowerdir", Some("/a\\,b"), true),
            ("iversion", None, true),
        ];
        for (key, value, expected) in cases {
            let text = |text: &str| CString::new(text).expect("no NUL");
            let data = [
                (c"index".to_owned(), Some(c"off".to_owned())),
                (text(key), value.map(text)),
            ];
            let wanted = Filesystem {
                kind: c"overlay",
                source: c"overlay",
                data: &data,
                attributes: 0,
            };
            assert_eq!(wanted.is_for_mount2(), *expected, "{key}={value:?}");
        }
    }
}
