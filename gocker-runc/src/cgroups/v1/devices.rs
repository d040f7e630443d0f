//! devices: a default and exceptions, by `devices.allow` and `devices.deny`.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/devices.html>.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;

use bundles::FieldError;
use bundles::config::linux::resources::DeviceRule;

use crate::cgroups::device_rules::{Exception, Exceptions, container_rules};
use crate::cgroups::{Error, files};

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";
const LIST: &str = "devices.list";
const ALL: &str = "a *:* rwm";

pub(super) fn check(rules: &[DeviceRule]) -> Result<(), FieldError> {
    Exceptions::from_rules(&container_rules(rules)).map(|_| ())
}

/// Sets the rules of a new cgroup, which has those of its parent.
pub(super) fn set(dir: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    let wanted = Exceptions::from_rules(&container_rules(rules))?;
    let (reset, exceptions) = if wanted.default_allow {
        (ALLOW, DENY)
    } else {
        (DENY, ALLOW)
    };
    write_lines(dir, reset, &[ALL.to_owned()])?;
    write_lines(dir, exceptions, &lines(&wanted))
}

/// Changes the rules of a living cgroup. Unless [`is_reset`], what is allowed before and after
/// stays so meanwhile, and so does what is denied.
pub(super) fn update(dir: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    let wanted = Exceptions::from_rules(&container_rules(rules))?;
    let current = files::read_in(dir, LIST)?;
    if !has_common_steps(&current, &wanted) {
        return set(dir, rules);
    }
    let Transition {
        first_allow,
        then_deny,
    } = transition(&current, &wanted.list);
    write_lines(dir, ALLOW, &first_allow)?;
    write_lines(dir, DENY, &then_deny)
}

/// Whether [`update`] has to begin with all allowed or all denied.
pub(super) fn is_reset(dir: &Path, rules: &[DeviceRule]) -> Result<bool, Error> {
    let wanted = Exceptions::from_rules(&container_rules(rules))?;
    Ok(!has_common_steps(&files::read_in(dir, LIST)?, &wanted))
}

/// A cgroup that allows by default does not list its exceptions.
fn has_common_steps(current: &str, wanted: &Exceptions) -> bool {
    !wanted.default_allow && !current.lines().any(|line| line.starts_with("a "))
}

/// Lines to write one after the other.
#[derive(Debug, PartialEq, Eq)]
struct Transition {
    first_allow: Vec<String>,
    then_deny: Vec<String>,
}

/// How to come from `devices.list` to what is `wanted`: the kernel adds and takes away single
/// kinds of access, and keeps one line for the same devices.
fn transition(current: &str, wanted: &[Exception]) -> Transition {
    let current: Vec<String> = current.lines().map(str::to_owned).collect();
    let wanted: Vec<String> = wanted.iter().map(|exception| exception.to_line()).collect();
    Transition {
        first_allow: beyond(&wanted, &current),
        then_deny: beyond(&current, &wanted),
    }
}

/// `lines` without the kinds of access that `others` have for the same devices.
fn beyond(lines: &[String], others: &[String]) -> Vec<String> {
    let split = |line: &String| {
        let (devices, access) = line.rsplit_once(' ').unwrap_or((line, ""));
        (devices.to_owned(), access.to_owned())
    };
    let others: BTreeMap<String, String> = others.iter().map(split).collect();
    let mut rest = Vec::new();
    for (devices, mut access) in lines.iter().map(split) {
        if let Some(theirs) = others.get(&devices) {
            access.retain(|kind| !theirs.contains(kind));
        }
        if !access.is_empty() {
            rest.push(format!("{devices} {access}"));
        }
    }
    rest
}

fn lines(exceptions: &Exceptions) -> Vec<String> {
    exceptions
        .list
        .iter()
        .map(|exception| exception.to_line())
        .collect()
}

/// Writes each line on its own, as the kernel takes one at a time, through one descriptor.
fn write_lines(dir: &Path, file: &str, lines: &[String]) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = dir.join(file);
    let refused = |line: &str, answer| files::refused(&path, line, "devices", answer);
    let opened = OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(files::errno);
    let mut file = opened.map_err(|answer| refused(&lines[0], answer))?;
    for line in lines {
        files::write_once(&mut file, line).map_err(|answer| refused(line, answer))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bundles::config::linux::resources::DeviceKind;

    use super::*;
    use crate::cgroups::device_rules::{MKNOD, READ, WRITE};

    fn list(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_change_allows_before_it_denies() {
        let exception = |major, access| Exception {
            kind: DeviceKind::Char,
            major: Some(major),
            minor: None,
            access,
        };
        let written = |current: &str, wanted: &[Exception]| {
            let found = transition(current, wanted);
            (found.first_allow, found.then_deny)
        };
        let current = "c 1:* rwm\nb *:* m\n";
        let other = (list(&["c 2:* r"]), list(&["c 1:* rwm", "b *:* m"]));
        assert_eq!(written(current, &[exception(2, READ)]), other);
        // Of the same devices only what differs is touched.
        let less = (list(&[]), list(&["c 1:* rw"]));
        assert_eq!(written("c 1:* rwm\n", &[exception(1, MKNOD)]), less);
        let shifted = (list(&["c 1:* w"]), list(&["c 1:* m"]));
        let wanted = [exception(1, READ | WRITE)];
        assert_eq!(written("c 1:* rm\n", &wanted), shifted);
        let same = (list(&[]), list(&[]));
        assert_eq!(written("c 1:* rw\n", &wanted), same);
    }
}
