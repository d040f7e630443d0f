//! A user namespace's id mappings: who may write them, and how.
//!
//! ```text
//! root                  uid_map, gid_map
//! an ordinary user      its own id alone:  setgroups=deny, then uid_map, gid_map
//!                       other ids, too:    newuidmap(1), newgidmap(1), which ask /etc/subuid
//! ```
//!
//! Spec: config-linux.md#user-namespace-mappings; user_namespaces(7)

mod subordinate;
mod tool;

use bundles::FieldError;
use bundles::config::linux::id_mappings::IdMapping;
use bundles::config::process::User;
use nix::unistd::{Gid, Pid, SysconfVar, Uid, setresgid, setresuid, sysconf};

use crate::sys::caller::Caller;
use crate::sys::procfs::ProcFd;
use crate::sys::{CallError, Called};
use tool::Tool;

/// The maps of a new user namespace, checked.
#[derive(Debug)]
pub(crate) struct IdMaps {
    uids: Map,
    gids: Map,
}

/// One of them.
#[derive(Debug)]
struct Map {
    mappings: Vec<IdMapping>,
    way: Way,
}

/// How a map gets into the kernel.
#[derive(Debug)]
enum Way {
    /// The runtime writes it.
    Write,
    /// The runtime writes it, and for a group map gives up setgroups(2) first.
    WriteOwnId,
    /// A program with more rights writes it.
    Run(Tool),
}

/// Users or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    Users,
    Groups,
}

impl Ids {
    fn field(self) -> &'static str {
        match self {
            Self::Users => "linux.uidMappings",
            Self::Groups => "linux.gidMappings",
        }
    }

    /// The file of a map in `/proc/PID`.
    fn file(self) -> &'static str {
        match self {
            Self::Users => "uid_map",
            Self::Groups => "gid_map",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Users => "user",
            Self::Groups => "group",
        }
    }

    /// The caller's own.
    fn own(self) -> u32 {
        match self {
            Self::Users => Uid::effective().as_raw(),
            Self::Groups => Gid::effective().as_raw(),
        }
    }
}

/// A map that was refused after all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// By the kernel.
    #[error("{field}")]
    Write {
        /// Which map.
        field: &'static str,
        /// The call.
        source: CallError,
    },
    /// By newuidmap(1) or newgidmap(1).
    #[error("{field}: {problem}")]
    Run {
        /// Which map.
        field: &'static str,
        /// The program, and what it said.
        problem: String,
    },
}

impl IdMaps {
    /// Checks that this caller may make the maps, and finds out how. Makes nothing.
    ///
    /// # Errors
    /// The mapping that lacks the container's root or that the caller may not make; the tool that
    /// is missing.
    pub(crate) fn plan(uids: &[IdMapping], gids: &[IdMapping]) -> Result<Self, FieldError> {
        let caller = Caller::find_out();
        Ok(Self {
            uids: Map::plan(Ids::Users, uids, caller)?,
            gids: Map::plan(Ids::Groups, gids, caller)?,
        })
    }

    /// Refuses a user whose ids have no meaning in the namespace, or whose groups cannot be set.
    ///
    /// # Errors
    /// The field of `process.user`.
    pub(crate) fn check_user(&self, user: &User) -> Result<(), FieldError> {
        let unmapped = |field: &str, ids: Ids, id: u32| {
            let problem = format!(
                "{id} is not a {} id of the container: it is not in {}",
                ids.word(),
                ids.field()
            );
            Err(FieldError::new(field, problem))
        };
        if !is_mapped(&self.uids.mappings, user.uid) {
            return unmapped("process.user.uid", Ids::Users, user.uid);
        }
        if !is_mapped(&self.gids.mappings, user.gid) {
            return unmapped("process.user.gid", Ids::Groups, user.gid);
        }
        for (index, gid) in user.additional_gids.iter().enumerate() {
            let field = format!("process.user.additionalGids[{index}]");
            if !is_mapped(&self.gids.mappings, *gid) {
                return unmapped(&field, Ids::Groups, *gid);
            }
            if matches!(self.gids.way, Way::WriteOwnId) {
                let problem = "cannot be set: who maps only its own group in \
                               linux.gidMappings has to give up setgroups(2)";
                return Err(FieldError::new(field, problem));
            }
        }
        Ok(())
    }

    /// Refuses options of a filesystem that name ids without a meaning in the namespace.
    ///
    /// # Errors
    /// `field`.
    pub(crate) fn check_option(&self, field: &str, option: &str) -> Result<(), FieldError> {
        let (ids, map, id) = match option.split_once('=') {
            Some(("uid", id)) => (Ids::Users, &self.uids, id),
            Some(("gid", id)) => (Ids::Groups, &self.gids, id),
            _ => return Ok(()),
        };
        match id.parse() {
            Ok(id) if !is_mapped(&map.mappings, id) => {
                let problem = format!("{option:?}: {} {id} is not in {}", ids.word(), ids.field());
                Err(FieldError::new(field, problem))
            }
            // What is no number is for the filesystem to refuse.
            _ => Ok(()),
        }
    }

    /// Writes both maps for `pid`, the first process of the namespace. An ordinary user needs it to
    /// be dumpable: else its files in /proc are root's.
    ///
    /// Runs in: runtime namespace.
    ///
    /// # Errors
    /// The map that the kernel or the tool refuses.
    pub(crate) fn write(&self, proc: &ProcFd, pid: Pid) -> Result<(), Error> {
        self.gids.write(Ids::Groups, proc, pid)?;
        self.uids.write(Ids::Users, proc, pid)
    }
}

impl Map {
    fn plan(ids: Ids, mappings: &[IdMapping], caller: Caller) -> Result<Self, FieldError> {
        if !is_mapped(mappings, 0) {
            let problem = format!(
                "does not map {} 0 of the container, as which it is set up",
                ids.word()
            );
            return Err(FieldError::new(ids.field(), problem));
        }
        check_length(ids, &lines(mappings))?;
        let way = match (caller, mappings) {
            (Caller::Root, _) => Way::Write,
            (Caller::NestedRoot, _) => {
                subordinate::check_nested(ids, mappings)?;
                Way::Write
            }
            (Caller::OrdinaryUser, [only]) if only.size == 1 && only.host_id == ids.own() => {
                Way::WriteOwnId
            }
            (Caller::OrdinaryUser, _) => {
                let tool = Tool::find(ids)?;
                subordinate::check(ids, mappings)?;
                Way::Run(tool)
            }
        };
        Ok(Self {
            mappings: mappings.to_vec(),
            way,
        })
    }

    fn write(&self, ids: Ids, proc: &ProcFd, pid: Pid) -> Result<(), Error> {
        let field = ids.field();
        let failed = |source| Error::Write { field, source };
        match &self.way {
            Way::Run(tool) => {
                return tool
                    .run(pid, &self.mappings)
                    .map_err(|problem| Error::Run { field, problem });
            }
            // Without CAP_SETGID the kernel takes a group map only from one who gives up setgroups.
            Way::WriteOwnId if ids == Ids::Groups => {
                let path = format!("{pid}/setgroups");
                proc.write(&path, b"deny").map_err(failed)?;
            }
            Way::WriteOwnId | Way::Write => {}
        }
        let path = format!("{pid}/{}", ids.file());
        let text = lines(&self.mappings);
        proc.write(&path, text.as_bytes()).map_err(failed)
    }
}

/// Writes the maps of a user namespace that the machine's root makes, for whatever use.
///
/// Runs in: runtime namespace.
///
/// # Errors
/// The map that the kernel refuses.
pub(crate) fn write_id_mappings(
    proc: &ProcFd,
    pid: Pid,
    uids: &[IdMapping],
    gids: &[IdMapping],
) -> Result<(), CallError> {
    proc.write(&format!("{pid}/gid_map"), lines(gids).as_bytes())?;
    proc.write(&format!("{pid}/uid_map"), lines(uids).as_bytes())
}

/// The mappings in the text of a map file; None where it is none.
pub(crate) fn parse_map(text: &str) -> Option<Vec<IdMapping>> {
    let mapping = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdMapping {
            container_id: next()?,
            host_id: next()?,
            size: next()?,
        })
    };
    text.lines().map(mapping).collect()
}

/// Whether the id `inside` means anything.
fn is_mapped(mappings: &[IdMapping], inside: u32) -> bool {
    mappings.iter().any(|mapping| {
        inside
            .checked_sub(mapping.container_id)
            .is_some_and(|offset| offset < mapping.size)
    })
}

/// The text of a map file.
fn lines(mappings: &[IdMapping]) -> String {
    let line = |mapping: &IdMapping| {
        let IdMapping {
            container_id,
            host_id,
            size,
        } = mapping;
        format!("{container_id} {host_id} {size}\n")
    };
    mappings.iter().map(line).collect()
}

/// Refuses a map whose text is longer than what the kernel takes: less than a page.
fn check_length(ids: Ids, text: &str) -> Result<(), FieldError> {
    // The smallest page there is: only beyond it is the machine's asked for.
    if text.len() < 4096 {
        return Ok(());
    }
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|page| usize::try_from(page).ok());
    let limit = page.unwrap_or(4096) - 1;
    if text.len() <= limit {
        return Ok(());
    }
    let problem = format!(
        "{} bytes of text, the kernel takes {limit}: use fewer mappings",
        text.len()
    );
    Err(FieldError::new(ids.field(), problem))
}

/// Takes user and group 0 of the user namespace that the calling process is in.
///
/// # Errors
/// setresuid(2)'s; EINVAL where 0 is not mapped.
pub(crate) fn become_root() -> Result<(), CallError> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).called(|| "setresgid(0)".into())?;
    setresuid(uid, uid, uid).called(|| "setresuid(0)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    fn maps() -> IdMaps {
        let map = |way| Map {
            mappings: vec![mapping(0, 1000, 1), mapping(5, 100_000, 10)],
            way,
        };
        IdMaps {
            uids: map(Way::Write),
            gids: map(Way::WriteOwnId),
        }
    }

    #[test]
    fn a_map_has_a_line_for_each_mapping() {
        let mappings = [mapping(0, 1000, 1), mapping(1, 100_000, 65536)];
        assert_eq!(lines(&mappings), "0 1000 1\n1 100000 65536\n");
        assert_eq!(parse_map(&lines(&mappings)).as_deref(), Some(&mappings[..]));
        assert_eq!(parse_map("0 1\n"), None);
    }

    #[test]
    fn what_is_not_mapped_is_named() {
        let user = |uid, gid, additional: &[u32]| User {
            uid,
            gid,
            umask: None,
            additional_gids: additional.to_vec(),
        };
        let table = [
            (user(0, 5, &[]), None),
            (user(14, 14, &[]), None),
            (user(1, 0, &[]), Some("process.user.uid: 1 is not")),
            (user(0, 15, &[]), Some("process.user.gid: 15 is not")),
            (
                user(0, 0, &[3]),
                Some("process.user.additionalGids[0]: 3 is not"),
            ),
            (
                user(0, 0, &[5]),
                Some("process.user.additionalGids[0]: cannot be set"),
            ),
        ];
        for (user, expected) in table {
            let checked = maps().check_user(&user).map_err(|error| error.to_string());
            match expected {
                None => assert_eq!(checked, Ok(())),
                Some(start) => {
                    let error = checked.expect_err(start);
                    assert!(error.starts_with(start), "{error}");
                }
            }
        }
        for (option, is_fine) in [
            ("gid=5", true),
            ("gid=4", false),
            ("uid=x", true),
            ("size=4", true),
        ] {
            let checked = maps().check_option("mounts[2].options[1]", option);
            assert_eq!(checked.is_ok(), is_fine, "{option}");
        }
    }

    #[test]
    fn the_containers_root_must_be_mapped() {
        let error = IdMaps::plan(&[mapping(1, 0, 10)], &[]).expect_err("is refused");
        assert!(
            error
                .to_string()
                .starts_with("linux.uidMappings: does not map user 0")
        );
    }
}
