//! New filesystems: a type, a source, parameters, and a mount that is nowhere yet.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::sys::mount_api::{
    attr, fs_log, fsconfig_create, fsconfig_flag, fsconfig_string, fsmount, fsopen,
};
use crate::sys::mount_by_path::{has_stage, new_filesystem};
use crate::sys::{CallError, Called};

/// What is to be mounted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filesystem<'a> {
    /// The type, as in /proc/filesystems.
    pub(super) kind: &'a CStr,
    /// The device or label.
    pub(super) source: &'a CStr,
    /// Parameters: key, and value where there is one.
    pub(super) data: &'a [(CString, Option<CString>)],
    /// `MOUNT_ATTR_*`.
    pub(super) attributes: u64,
}

impl Filesystem<'_> {
    /// A device's filesystem must know that it is read-only, or it replays its journal.
    fn is_read_only_device(&self) -> bool {
        self.attributes & attr::RDONLY != 0 && self.source.to_bytes().starts_with(b"/")
    }
}

/// A detached mount of a new filesystem. For virtual ones read-only is the mount's affair;
/// a device's filesystem must know it, too, or it replays its journal.
///
/// # Errors
/// The call, and what the kernel says about it.
pub(super) fn new(wanted: &Filesystem<'_>) -> Result<OwnedFd, CallError> {
    let Filesystem { kind, source, .. } = wanted;
    if has_stage() {
        return by_path(wanted);
    }
    let fs = fsopen(kind).called(|| format!("fsopen({kind:?})"))?;
    let answered = |errno: Errno, call: String| {
        let log = fs_log(&fs);
        let call = if log.is_empty() {
            call
        } else {
            format!("{call}: {log}")
        };
        CallError { call, errno }
    };
    if !source.is_empty() {
        fsconfig_string(&fs, c"source", source)
            .map_err(|errno| answered(errno, format!("fsconfig(source={source:?})")))?;
    }
    if wanted.is_read_only_device() {
        fsconfig_flag(&fs, c"ro").map_err(|errno| answered(errno, "fsconfig(ro)".into()))?;
    }
    for (key, value) in wanted.data {
        let done = match value {
            Some(value) => fsconfig_string(&fs, key, value),
            None => fsconfig_flag(&fs, key),
        };
        done.map_err(|errno| {
            let value = value.as_ref().map(|v| format!("={}", v.to_string_lossy()));
            let option = format!("{}{}", key.to_string_lossy(), value.unwrap_or_default());
            answered(errno, format!("fsconfig({option})"))
        })?;
    }
    fsconfig_create(&fs).map_err(|errno| answered(errno, format!("fsconfig(create {kind:?})")))?;
    let attributes = wanted.attributes;
    fsmount(&fs, attributes).called(|| format!("fsmount({kind:?}, {attributes:#x})"))
}

/// By mount(2), which says less about what it refuses.
fn by_path(wanted: &Filesystem<'_>) -> Result<OwnedFd, CallError> {
    let ro = [(c"ro".to_owned(), None)];
    let more = if wanted.is_read_only_device() {
        &ro[..]
    } else {
        &[]
    };
    let data = [wanted.data, more].concat();
    new_filesystem(wanted.kind, wanted.source, &data, wanted.attributes).called(|| {
        let words: Vec<_> = wanted
            .data
            .iter()
            .map(|(key, value)| match value {
                Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
                None => key.to_string_lossy().into_owned(),
            })
            .collect();
        format!("mount({:?}, {:?})", wanted.kind, words.join(","))
    })
}
