//! The container's own `/etc/passwd` and `/etc/group`, which say where a user is at home and
//! which number a name has.
//!
//! Spec: passwd(5), group(5)

use std::io::Read;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

use crate::sys::in_root::{RootFd, file_type};

/// As much of a file as is read, in bytes.
const MAX_LENGTH: u64 = 10 << 20;

/// The home directory of `uid`; `/` where the container does not say.
pub(crate) fn home_of(root: &RootFd, uid: u32) -> String {
    read(root, "/etc/passwd")
        .and_then(|text| home(&text, uid))
        .unwrap_or_else(|| "/".into())
}

/// The user id and the group id of the user called `name`.
pub(crate) fn user_called(root: &RootFd, name: &str) -> Option<(u32, u32)> {
    read(root, "/etc/passwd").and_then(|text| user(&text, name))
}

/// The id of the group called `name`.
pub(crate) fn group_called(root: &RootFd, name: &str) -> Option<u32> {
    read(root, "/etc/group").and_then(|text| group(&text, name))
}

fn read(root: &RootFd, path: &str) -> Option<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = root.open_beneath(Path::new(path), flags).ok()?;
    if file_type(&fd) != Ok(SFlag::S_IFREG) {
        return None;
    }
    let mut text = Vec::new();
    std::fs::File::from(fd)
        .take(MAX_LENGTH)
        .read_to_end(&mut text)
        .ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn home(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse::<u32>().ok()?;
        let home = fields.nth(2)?;
        (found == uid && !home.is_empty()).then(|| home.to_owned())
    })
}

fn user(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = line_of(passwd, name)?.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    Some((uid, fields.next()?.parse().ok()?))
}

fn group(group: &str, name: &str) -> Option<u32> {
    line_of(group, name)?.split(':').nth(2)?.parse().ok()
}

/// The line that begins with `name`.
fn line_of<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines()
        .find(|line| line.split(':').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nodd:x:1x:0::/odd:\napp:x:1000:1001::/app:\nshort:x\n";

    #[test]
    fn homes() {
        assert_eq!(home(PASSWD, 0).as_deref(), Some("/root"));
        assert_eq!(home(PASSWD, 1000).as_deref(), Some("/app"));
        assert_eq!(home(PASSWD, 1), None);
    }

    #[test]
    fn names() {
        assert_eq!(user(PASSWD, "app"), Some((1000, 1001)));
        for unknown in ["odd", "short", "ap", "nobody", ""] {
            assert_eq!(user(PASSWD, unknown), None, "{unknown}");
        }
        assert_eq!(group("root:x:0:\nwheel:x:10:app\n", "wheel"), Some(10));
        assert_eq!(group("root:x:0:\n", "app"), None);
    }
}
