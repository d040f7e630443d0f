//! Who an image runs as: `user[:group]`, numbers as they are, names looked up
//! in the image's own passwd and group files.
//!
//! Spec: image-spec config.md, `User`; conversion.md

use std::os::fd::BorrowedFd;

use crate::errno::CallError;
use crate::unpack::read_file;

/// More than any passwd or group file has.
const FILE_LIMIT: u64 = 4 << 20;

/// The ids that a process gets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) additional_gids: Vec<u32>,
    /// The home directory that passwd has for the user.
    pub(super) home: Option<String>,
}

/// Why there are no such ids.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("user {0:?} is not in the image's /etc/passwd")]
    NoUser(String),
    #[error("group {0:?} is not in the image's /etc/group")]
    NoGroup(String),
    #[error("{0:?} is not a user id below 4294967295")]
    Range(String),
    #[error("{0:?} is not of the form user[:group]")]
    Form(String),
    #[error("the image's {file} has an invalid id for {name:?}")]
    Entry { file: &'static str, name: String },
}

/// Finds the ids of `user` in the image at `root`.
pub(super) fn find(root: BorrowedFd<'_>, user: &str) -> Result<Ids, UserError> {
    let read = |path| -> Result<String, CallError> {
        let bytes = read_file(root, path, FILE_LIMIT)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    ids(user, &read("etc/passwd")?, &read("etc/group")?)
}

/// Finds the ids of the groups `names` in the image at `root`.
pub(super) fn find_groups(root: BorrowedFd<'_>, names: &[String]) -> Result<Vec<u32>, UserError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = read_file(root, "etc/group", FILE_LIMIT)?.unwrap_or_default();
    let group = String::from_utf8_lossy(&bytes);
    names.iter().map(|name| group_id(name, &group)).collect()
}

/// Finds the ids of `user` in the texts of a passwd and a group file.
fn ids(user: &str, passwd: &str, group: &str) -> Result<Ids, UserError> {
    let (user, group_name) = match user.split_once(':') {
        Some((_, group)) if group.is_empty() || group.contains(':') => {
            return Err(UserError::Form(user.to_owned()));
        }
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    if user.is_empty() && group_name.is_some() {
        return Err(UserError::Form(format!(
            ":{}",
            group_name.unwrap_or_default()
        )));
    }
    let number = number(user)?;
    let entry = match number {
        Some(uid) => find_entry(passwd, |fields| fields[2].parse() == Ok(uid)),
        None if user.is_empty() => find_entry(passwd, |fields| fields[2] == "0"),
        None => find_entry(passwd, |fields| fields[0] == user),
    };
    let invalid = |file, name: &str| UserError::Entry {
        file,
        name: name.to_owned(),
    };
    let mut ids = Ids::default();
    match (&entry, number) {
        (Some(fields), _) => {
            let id = |text: &str| parse_id(text).ok_or_else(|| invalid("/etc/passwd", fields[0]));
            ids.uid = id(fields[2])?;
            ids.gid = id(fields[3])?;
            ids.home = fields
                .get(5)
                .filter(|home| home.starts_with('/'))
                .map(|h| (*h).to_owned());
        }
        (None, Some(uid)) => ids.uid = uid,
        (None, None) if user.is_empty() => {}
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    }
    match group_name {
        Some(name) => ids.gid = group_id(name, group)?,
        None if number.is_none() && !user.is_empty() => {
            ids.additional_gids = member_of(user, ids.gid, group)?;
        }
        None => {}
    }
    Ok(ids)
}

fn group_id(name: &str, group: &str) -> Result<u32, UserError> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    let fields = find_entry(group, |fields| fields[0] == name);
    let fields = fields.ok_or_else(|| UserError::NoGroup(name.to_owned()))?;
    parse_id(fields[2]).ok_or_else(|| UserError::Entry {
        file: "/etc/group",
        name: name.to_owned(),
    })
}

/// The groups other than `gid` that name `user` as a member.
fn member_of(user: &str, gid: u32, group: &str) -> Result<Vec<u32>, UserError> {
    let mut gids = Vec::new();
    for fields in group.lines().map(split_entry) {
        let [name, _, id, members, ..] = fields.as_slice() else {
            continue;
        };
        if !members.split(',').any(|member| member.trim() == user) {
            continue;
        }
        let id = parse_id(id).ok_or_else(|| UserError::Entry {
            file: "/etc/group",
            name: (*name).to_owned(),
        })?;
        if id != gid && !gids.contains(&id) {
            gids.push(id);
        }
    }
    Ok(gids)
}

/// A text of digits alone as an id; None if it is a name.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let id = parse_id(text);
    id.map(Some)
        .ok_or_else(|| UserError::Range(text.to_owned()))
}

/// An id that the kernel takes: the largest number means "none" to it.
fn parse_id(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_plain && *id != u32::MAX)
}

fn split_entry(line: &str) -> Vec<&str> {
    line.trim().split(':').collect()
}

/// The first entry with at least four fields that is the one.
fn find_entry(text: &str, is_it: impl Fn(&[&str]) -> bool) -> Option<Vec<&str>> {
    let entries = text.lines().map(split_entry);
    let mut whole = entries.filter(|fields| fields.len() >= 4 && !fields[0].is_empty());
    whole.find(|fields| is_it(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:33:34::/srv:/bin/sh\n\
        7:x:99:99::/seven:\nbad:x:x:1::/:\nhuge:x:4294967295:1::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:4:web,other\nadm:x:5:other, web\nbad:x:-1:\n";

    #[test]
    fn users_are_numbers_or_names() {
        let ids_of = |uid, gid, more: &[u32], home: &str| Ids {
            uid,
            gid,
            additional_gids: more.to_vec(),
            home: (!home.is_empty()).then(|| home.to_owned()),
        };
        let table = [
            ("", ids_of(0, 0, &[], "/root")),
            ("root", ids_of(0, 0, &[], "/root")),
            ("web", ids_of(33, 34, &[4, 5], "/srv")),
            ("33", ids_of(33, 34, &[], "/srv")),
            ("33:0", ids_of(33, 0, &[], "/srv")),
            ("web:log", ids_of(33, 4, &[], "/srv")),
            ("1000", ids_of(1000, 0, &[], "")),
            ("1000:1001", ids_of(1000, 1001, &[], "")),
            ("7", ids_of(7, 0, &[], "")),
        ];
        for (user, expected) in table {
            assert_eq!(ids(user, PASSWD, GROUP).unwrap(), expected, "{user:?}");
        }
    }

    #[test]
    fn unknown_and_overflowing_users_are_errors() {
        for user in [
            "nobody",
            "web:nogroup",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "-1",
            "1:",
            ":1",
            ":",
            "a:b:c",
            "bad",
            "huge",
            "web:bad",
            "0x0",
            "+1",
        ] {
            assert!(ids(user, PASSWD, GROUP).is_err(), "{user:?}");
        }
    }
}
