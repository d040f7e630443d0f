//! What the mount API says, in the flags and the text of mount(2), and what statvfs(3) answers.

use std::ffi::CString;

use nix::mount::MsFlags;

use super::mount_api::attr;

/// statvfs(3): symlinks are not followed.
pub(super) const ST_NOSYMFOLLOW: libc::c_ulong = 0x2000;

/// mount(2): symlinks are not followed.
const MS_NOSYMFOLLOW: libc::c_ulong = 0x100;

/// The flags of statvfs(3) as `MOUNT_ATTR_*`.
pub(super) fn attributes_of(flags: libc::c_ulong) -> u64 {
    let plain = [
        (libc::ST_RDONLY, attr::RDONLY),
        (libc::ST_NOSUID, attr::NOSUID),
        (libc::ST_NODEV, attr::NODEV),
        (libc::ST_NOEXEC, attr::NOEXEC),
        (libc::ST_NODIRATIME, attr::NODIRATIME),
        (ST_NOSYMFOLLOW, attr::NOSYMFOLLOW),
    ];
    let bits = plain
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(0, |all, (_, bit)| all | bit);
    let atime = if flags & libc::ST_NOATIME != 0 {
        attr::NOATIME
    } else if flags & libc::ST_RELATIME != 0 {
        0
    } else {
        attr::STRICTATIME
    };
    bits | atime
}

/// `MOUNT_ATTR_*` as flags of mount(2).
pub(super) fn mount_flags(attributes: u64) -> MsFlags {
    let plain = [
        (attr::RDONLY, libc::MS_RDONLY),
        (attr::NOSUID, libc::MS_NOSUID),
        (attr::NODEV, libc::MS_NODEV),
        (attr::NOEXEC, libc::MS_NOEXEC),
        (attr::NODIRATIME, libc::MS_NODIRATIME),
        (attr::NOSYMFOLLOW, MS_NOSYMFOLLOW),
    ];
    let bits = plain
        .iter()
        .filter(|(bit, _)| attributes & bit != 0)
        .fold(0, |all, (_, flag)| all | flag);
    let atime = match attributes & attr::ATIME {
        attr::NOATIME => libc::MS_NOATIME,
        attr::STRICTATIME => libc::MS_STRICTATIME,
        _ => libc::MS_RELATIME,
    };
    MsFlags::from_bits_retain(bits | atime)
}

/// Parameters of fsconfig(2) as mount(2) takes them: flags of the superblock, and text, as in
/// fstab(5).
pub(super) fn superblock(data: &[(CString, Option<CString>)]) -> (MsFlags, Vec<u8>) {
    let known = [
        ("sync", "async", libc::MS_SYNCHRONOUS),
        ("dirsync", "", libc::MS_DIRSYNC),
        ("mand", "nomand", libc::MS_MANDLOCK),
        ("lazytime", "nolazytime", libc::MS_LAZYTIME),
        ("iversion", "noiversion", libc::MS_I_VERSION),
        ("ro", "", libc::MS_RDONLY),
    ];
    let (mut flags, mut text) = (0, Vec::new());
    for (key, value) in data {
        let key = key.to_bytes();
        let named = |word: &str| word.as_bytes() == key;
        if let Some((set, _, flag)) = known
            .iter()
            .find(|(set, clear, _)| named(set) || named(clear))
        {
            flags = if named(set) {
                flags | flag
            } else {
                flags & !flag
            };
            continue;
        }
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(key);
        let Some(value) = value.as_ref().map(|value| value.to_bytes()) else {
            continue;
        };
        text.push(b'=');
        // A label holds commas, and its module reads quotes.
        let quote: &[u8] = if key == b"context" { b"\"" } else { b"" };
        text.extend([quote, value, quote].concat());
    }
    (MsFlags::from_bits_retain(flags), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_the_way_through_flags() {
        for attributes in [
            0,
            attr::RDONLY | attr::NOATIME,
            attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::STRICTATIME,
            attr::NODIRATIME | attr::NOSYMFOLLOW,
        ] {
            let flags = mount_flags(attributes);
            // The flags of statvfs(3) have other numbers for some.
            let mut shown = flags.bits() & 0xf | flags.bits() & 0xc00;
            if flags.contains(MsFlags::MS_RELATIME) {
                shown |= libc::ST_RELATIME;
            }
            if flags.bits() & MS_NOSYMFOLLOW != 0 {
                shown |= ST_NOSYMFOLLOW;
            }
            assert_eq!(attributes_of(shown), attributes, "{attributes:#x}");
        }
    }

    #[test]
    fn parameters_become_flags_and_text() {
        let data = [
            (c"size".to_owned(), Some(c"4k".to_owned())),
            (c"sync".to_owned(), None),
            (c"dirsync".to_owned(), None),
            (c"async".to_owned(), None),
            (c"context".to_owned(), Some(c"u:r:t:s0:c1,c2".to_owned())),
            (c"newinstance".to_owned(), None),
        ];
        let expected = (
            MsFlags::MS_DIRSYNC,
            b"size=4k,context=\"u:r:t:s0:c1,c2\",newinstance".to_vec(),
        );
        assert_eq!(superblock(&data), expected);
    }
}
