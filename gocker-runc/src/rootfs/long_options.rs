//! Filesystems with a parameter that is longer than fsconfig(2) takes, such as an overlay of
//! many layers. mount(2) takes them: a page, all together.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::mount;
use nix::sys::stat::Mode;
use nix::unistd::fchdir;

use super::mount_options::MountOptions;
use crate::sys::mount_by_path::{mount_flags, superblock};
use crate::sys::{CallError, Called};

/// fsconfig(2): a string has 255 bytes and its end.
const FSCONFIG_MAX: usize = 255;

/// mount(2) cuts what is longer, without a word.
const MOUNT_MAX: usize = 4095;

/// Whether fsconfig(2) would refuse one of the parameters for its length.
pub(super) fn are_in(options: &MountOptions) -> bool {
    options.data.iter().any(|(_, value)| {
        value
            .as_ref()
            .is_some_and(|v| v.as_bytes().len() > FSCONFIG_MAX)
    })
}

/// Mounts a new filesystem on the directory `target` by mount(2), which knows paths only: the
/// directory is the working directory meanwhile.
///
/// # Errors
/// mount(2)'s; E2BIG for more than a page of parameters.
pub(super) fn mount_on(
    target: &OwnedFd,
    kind: &CString,
    source: &CString,
    options: &MountOptions,
) -> Result<(), CallError> {
    let (flags, data) = superblock(&options.data);
    let call = || format!("mount({kind:?}, {})", String::from_utf8_lossy(&data));
    if data.len() > MOUNT_MAX {
        return Err(Errno::E2BIG).called(call);
    }
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let before = open(".", how, Mode::empty()).called(|| "open(\".\")".into())?;
    fchdir(target).called(|| "fchdir(mount point)".into())?;
    let mounted = mount(
        Some(source.as_c_str()),
        ".",
        Some(kind.as_c_str()),
        flags | mount_flags(options.attributes.set),
        Some(data.as_slice()),
    )
    .called(call);
    fchdir(before.as_fd()).called(|| "fchdir(working directory)".into())?;
    mounted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_parameter_is_enough() {
        let word = |text: &str| CString::new(text).expect("no NUL");
        let mut options = MountOptions {
            data: vec![
                (word("lowerdir"), Some(word("/a:/b"))),
                (word("userxattr"), None),
            ],
            ..MountOptions::default()
        };
        assert!(!are_in(&options));
        options.data[0].1 = Some(word(&"x".repeat(256)));
        assert!(are_in(&options));
    }
}
