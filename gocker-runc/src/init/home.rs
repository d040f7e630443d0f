//! `HOME`, which every process may expect to have.

use std::io::Read;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

use crate::sys::in_root::{RootFd, file_type};

/// As much of /etc/passwd as is read, in bytes.
const MAX_PASSWD: u64 = 10 << 20;

/// The home directory of `uid` by the container's own /etc/passwd; `/` where it says nothing.
pub(crate) fn of(root: &RootFd, uid: u32) -> String {
    passwd(root)
        .and_then(|text| home(&text, uid))
        .unwrap_or_else(|| "/".into())
}

fn passwd(root: &RootFd) -> Option<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = root.open_beneath(Path::new("/etc/passwd"), flags).ok()?;
    if file_type(&fd) != Ok(SFlag::S_IFREG) {
        return None;
    }
    let mut text = Vec::new();
    std::fs::File::from(fd)
        .take(MAX_PASSWD)
        .read_to_end(&mut text)
        .ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Spec: passwd(5)
fn home(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse::<u32>().ok()?;
        let home = fields.nth(2)?;
        (found == uid && !home.is_empty()).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nodd:x:1x:0::/odd:\napp:x:1000:1000::/app:\n";
        assert_eq!(home(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home(passwd, 1000).as_deref(), Some("/app"));
        assert_eq!(home(passwd, 1), None);
    }
}
