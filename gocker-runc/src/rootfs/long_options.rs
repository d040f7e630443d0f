//! Filesystems with a parameter that is longer than fsconfig(2) takes, such as an overlay of
//! many layers. mount(2) takes them: a page, all together.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::fchdir;

use super::mount_options::MountOptions;
use crate::sys::mount_api::attr;
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
    let data = joined(options);
    let call = || format!("mount({kind:?}, {})", String::from_utf8_lossy(&data));
    if data.len() > MOUNT_MAX {
        return Err(Errno::E2BIG).called(call);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let before = open(".", flags, Mode::empty()).called(|| "open(\".\")".into())?;
    fchdir(target).called(|| "fchdir(mount point)".into())?;
    let mounted = mount(
        Some(source.as_c_str()),
        ".",
        Some(kind.as_c_str()),
        flags_of(options.attributes.set),
        Some(data.as_slice()),
    )
    .called(call);
    fchdir(before.as_fd()).called(|| "fchdir(working directory)".into())?;
    mounted
}

/// `key=value,key,...`, as in fstab(5).
fn joined(options: &MountOptions) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in &options.data {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(key.as_bytes());
        if let Some(value) = value {
            text.push(b'=');
            text.extend_from_slice(value.as_bytes());
        }
    }
    text
}

/// The attributes of fsmount(2) as flags of mount(2).
fn flags_of(attributes: u64) -> MsFlags {
    let pairs = [
        (attr::RDONLY, MsFlags::MS_RDONLY),
        (attr::NOSUID, MsFlags::MS_NOSUID),
        (attr::NODEV, MsFlags::MS_NODEV),
        (attr::NOEXEC, MsFlags::MS_NOEXEC),
        (attr::NOATIME, MsFlags::MS_NOATIME),
        (attr::STRICTATIME, MsFlags::MS_STRICTATIME),
        (attr::NODIRATIME, MsFlags::MS_NODIRATIME),
        // linux/mount.h's MS_NOSYMFOLLOW, which nix lacks.
        (attr::NOSYMFOLLOW, MsFlags::from_bits_retain(0x100)),
    ];
    pairs
        .into_iter()
        .filter(|(attribute, _)| attributes & attribute != 0)
        .map(|(_, flag)| flag)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_attributes_are_written_as_mount_wants_them() {
        let word = |text: &str| CString::new(text).expect("no NUL");
        let mut options = MountOptions {
            data: vec![
                (word("lowerdir"), Some(word("/a:/b"))),
                (word("userxattr"), None),
            ],
            ..MountOptions::default()
        };
        assert_eq!(joined(&options), b"lowerdir=/a:/b,userxattr");
        assert!(!are_in(&options));
        options.data[0].1 = Some(word(&"x".repeat(256)));
        assert!(are_in(&options));
        assert_eq!(
            flags_of(attr::RDONLY | attr::NODEV | attr::NOATIME),
            MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOATIME
        );
        assert_eq!(flags_of(attr::NOSYMFOLLOW).bits(), 256);
    }
}
