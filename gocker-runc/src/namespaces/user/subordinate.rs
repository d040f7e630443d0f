//! Which ids of the host somebody may map: their own and the subordinate ones.
//!
//! Spec: subuid(5), subgid(5)

use std::fs;

use bundles::FieldError;
use bundles::config::linux::id_mappings::IdMapping;
use nix::unistd::Uid;

use super::Ids;

/// So many ids from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    count: u64,
}

/// Refuses a mapping that newuidmap(1) or newgidmap(1) would refuse, as far as their files tell.
/// Where another service than files is asked for subordinate ids, they decide alone.
///
/// # Errors
/// The mapping, and the file that does not grant it.
pub(super) fn check(ids: Ids, mappings: &[IdMapping]) -> Result<(), FieldError> {
    let file = match ids {
        Ids::Users => "/etc/subuid",
        Ids::Groups => "/etc/subgid",
    };
    let services = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = Uid::current().as_raw();
    // Who is known to another service only may be granted ids by a name that is not known here.
    let (Some(name), false) = (name_of(&passwd, uid), has_other_service(&services)) else {
        return Ok(());
    };
    let mut granted = granted(&fs::read_to_string(file).unwrap_or_default(), &name, uid);
    granted.push(Range {
        first: ids.own().into(),
        count: 1,
    });
    for (index, mapping) in mappings.iter().enumerate() {
        if !is_covered(host_range(mapping), &granted) {
            let Range { first, count } = host_range(mapping);
            let problem = format!(
                "{file} does not give host ids {first} to {} to user {name:?} ({uid})",
                first + count - 1
            );
            return Err(FieldError::new(
                format!("{}[{index}]", ids.field()),
                problem,
            ));
        }
    }
    Ok(())
}

/// Refuses ids that the user namespace of the runtime itself does not have.
///
/// # Errors
/// The mapping.
pub(super) fn check_nested(ids: Ids, mappings: &[IdMapping]) -> Result<(), FieldError> {
    let path = format!("/proc/self/{}", ids.file());
    // What cannot be read does not decide: the kernel will.
    let Ok(own) = fs::read_to_string(path) else {
        return Ok(());
    };
    let own = own_ranges(&own);
    match mappings
        .iter()
        .position(|mapping| !is_covered(host_range(mapping), &own))
    {
        None => Ok(()),
        Some(index) => {
            let problem = format!(
                "not all of these ids are {} ids of the user namespace that the runtime itself is in",
                ids.word()
            );
            Err(FieldError::new(
                format!("{}[{index}]", ids.field()),
                problem,
            ))
        }
    }
}

fn host_range(mapping: &IdMapping) -> Range {
    Range {
        first: mapping.host_id.into(),
        count: mapping.size.into(),
    }
}

/// Whether each id of `wanted` is in one of `ranges`.
fn is_covered(wanted: Range, ranges: &[Range]) -> bool {
    let end = wanted.first + wanted.count;
    let mut next = wanted.first;
    while next < end {
        let holding = ranges
            .iter()
            .find(|range| range.first <= next && next < range.first + range.count);
        match holding {
            Some(range) => next = range.first + range.count,
            None => return false,
        }
    }
    true
}

/// The lines `OWNER:FIRST:COUNT` of this user, by name or number.
fn granted(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = Range {
            first: fields.next()?.parse().ok()?,
            count: fields.next()?.parse().ok()?,
        };
        (owner == name || owner.parse() == Ok(uid)).then_some(range)
    };
    text.lines().filter_map(range).collect()
}

/// The ids inside, of a file `INSIDE OUTSIDE COUNT`.
fn own_ranges(text: &str) -> Vec<Range> {
    let range = |line: &str| {
        let mut fields = line.split_whitespace();
        Some(Range {
            first: fields.next()?.parse().ok()?,
            count: fields.nth(1)?.parse().ok()?,
        })
    };
    text.lines().filter_map(range).collect()
}

fn has_other_service(nsswitch: &str) -> bool {
    let services = nsswitch
        .lines()
        .find_map(|line| line.trim().strip_prefix("subid:"));
    services.is_some_and(|services| services.split_whitespace().any(|one| one != "files"))
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_joined() {
        let text = "app:100000:10\nother:5:5\n1000:100010:5\napp:x:1\nbroken\n";
        let granted = granted(text, "app", 1000);
        assert_eq!(granted.len(), 2);
        for (first, count, expected) in [
            (100_000, 10, true),
            (100_005, 10, true),
            (100_005, 11, false),
            (99_999, 2, false),
            (5, 1, false),
        ] {
            assert_eq!(
                is_covered(Range { first, count }, &granted),
                expected,
                "{first} {count}"
            );
        }
        let own =
            own_ranges("         0       1000          1\n         1     100000      65536\n");
        assert!(is_covered(
            Range {
                first: 0,
                count: 65537
            },
            &own
        ));
        assert!(!is_covered(
            Range {
                first: 0,
                count: 65538
            },
            &own
        ));
    }

    #[test]
    fn services_and_names() {
        assert!(!has_other_service("passwd: files\n"));
        assert!(!has_other_service("subid: files\n"));
        assert!(has_other_service("subid:\tsss\n"));
        let passwd = "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("app"));
        assert_eq!(name_of(passwd, 7), None);
    }
}
