//! `exec --user`: numbers, or names that the container's own files know.

use anyhow::{Context, bail, ensure};

use crate::accounts;
use crate::sys::in_root::RootFd;

/// `--user USER[:GROUP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserFlag {
    user: Account,
    group: Option<Account>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Account {
    Id(u32),
    Name(String),
}

impl UserFlag {
    /// Reads the flag.
    ///
    /// # Errors
    /// A part that is empty, or a number that is no id.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let account = |part: &str| {
            ensure!(
                !part.is_empty() && !part.contains(':'),
                "--user {text:?} is not USER[:GROUP]"
            );
            let is_name = part.bytes().any(|byte| !byte.is_ascii_digit());
            if is_name {
                return Ok(Account::Name(part.to_owned()));
            }
            parse_id("--user", part).map(Account::Id)
        };
        Ok(match text.split_once(':') {
            Some((user, group)) => Self {
                user: account(user)?,
                group: Some(account(group)?),
            },
            None => Self {
                user: account(text)?,
                group: None,
            },
        })
    }

    /// The user id and, where the flag or the user's name tells it, the group id. The
    /// container's files are read for names alone.
    ///
    /// # Errors
    /// A name that they do not have.
    pub(super) fn resolve(
        &self,
        root: impl FnOnce() -> anyhow::Result<RootFd>,
    ) -> anyhow::Result<(u32, Option<u32>)> {
        let ids = match (&self.user, &self.group) {
            (Account::Id(uid), None) => return Ok((*uid, None)),
            (Account::Id(uid), Some(Account::Id(gid))) => return Ok((*uid, Some(*gid))),
            names => names,
        };
        let root = root()?;
        let (uid, own_gid) = match ids.0 {
            Account::Id(uid) => (*uid, None),
            Account::Name(name) => {
                let (uid, gid) = accounts::user_called(&root, name).with_context(|| {
                    format!("--user {name:?}: the container's /etc/passwd has no such user")
                })?;
                (uid, Some(gid))
            }
        };
        let gid = match ids.1 {
            None => own_gid,
            Some(Account::Id(gid)) => Some(*gid),
            Some(Account::Name(name)) => {
                let gid = accounts::group_called(&root, name).with_context(|| {
                    format!("--user {name:?}: the container's /etc/group has no such group")
                })?;
                Some(gid)
            }
        };
        Ok((uid, gid))
    }
}

/// Digits and nothing else: half a number is none.
pub(crate) fn parse_id(flag: &str, text: &str) -> anyhow::Result<u32> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // The largest is (uid_t)-1, which the kernel takes for "unchanged".
    match text.parse::<u32>() {
        Ok(id) if is_digits && id != u32::MAX => Ok(id),
        _ => bail!("{flag} {text:?} is not a number from 0 to {}", u32::MAX - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_no_files() {
        let cases = [
            ("0", (0, None)),
            ("1000:5", (1000, Some(5))),
            ("4294967294:0", (4_294_967_294, Some(0))),
        ];
        for (text, expected) in cases {
            let flag = UserFlag::parse(text).expect(text);
            let ids = flag.resolve(|| bail!("was read")).expect(text);
            assert_eq!(ids, expected);
        }
        for bad in ["", ":", "1:", ":1", "4294967295", "4294967296", "1:2:3"] {
            assert!(UserFlag::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_the_containers() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("etc")).expect("made");
        for (file, text) in [("passwd", "app:x:10:11::/:\n"), ("group", "wheel:x:12:\n")] {
            std::fs::write(dir.path().join("etc").join(file), text).expect("written");
        }
        let resolve = |text: &str| {
            let flag = UserFlag::parse(text).expect(text);
            flag.resolve(|| Ok(RootFd::open(dir.path())?))
        };
        let cases = [
            ("app", (10, Some(11))),
            ("app:5", (10, Some(5))),
            ("app:wheel", (10, Some(12))),
            ("5:wheel", (5, Some(12))),
        ];
        for (text, expected) in cases {
            assert_eq!(resolve(text).expect(text), expected);
        }
        for unknown in ["5x", "+5", "-1", "root", "app:app"] {
            let error = resolve(unknown).expect_err(unknown).to_string();
            assert!(error.starts_with("--user "), "{error}");
        }
    }
}
