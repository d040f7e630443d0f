//! devices: a default and exceptions, by `devices.allow` and `devices.deny`.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/devices.html>.

use std::fs::OpenOptions;
use std::path::Path;

use bundles::FieldError;
use bundles::config::linux::resources::DeviceRule;

use crate::cgroups::device_rules::{Exceptions, container_rules};
use crate::cgroups::{Error, files};

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";
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

/// Changes the rules of a living cgroup. What is allowed before and after stays so meanwhile,
/// except for a device of which only some kinds of access are taken away.
pub(super) fn update(dir: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    if rules.is_empty() {
        return Ok(());
    }
    let wanted = Exceptions::from_rules(&container_rules(rules))?;
    let current = files::read_in(dir, "devices.list")?;
    // A cgroup that allows by default does not list its exceptions.
    if wanted.default_allow || current.lines().any(|line| line.starts_with("a ")) {
        return set(dir, rules);
    }
    let Transition {
        first_allow,
        then_deny,
        allow_again,
    } = transition(&current, &lines(&wanted));
    write_lines(dir, ALLOW, &first_allow)?;
    write_lines(dir, DENY, &then_deny)?;
    write_lines(dir, ALLOW, &allow_again)
}

/// Lines to write one after the other.
#[derive(Debug, PartialEq, Eq)]
struct Transition {
    first_allow: Vec<String>,
    then_deny: Vec<String>,
    allow_again: Vec<String>,
}

/// How to come from `devices.list` to the `wanted` lines by exceptions alone.
fn transition(current: &str, wanted: &[String]) -> Transition {
    let is_new = |line: &&String| !current.lines().any(|current| current == line.as_str());
    let is_old = |line: &&str| !wanted.iter().any(|wanted| wanted == line);
    let then_deny: Vec<String> = current.lines().filter(is_old).map(str::to_owned).collect();
    // One line for the same devices was widened by the other: taking the old one away takes
    // what they share, too.
    let device = |line: &str| line.rsplit_once(' ').map(|(device, _)| device.to_owned());
    let is_touched = |line: &&String| then_deny.iter().any(|old| device(old) == device(line));
    Transition {
        first_allow: wanted.iter().filter(is_new).cloned().collect(),
        allow_again: wanted.iter().filter(is_touched).cloned().collect(),
        then_deny,
    }
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
    use super::*;

    fn list(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_change_allows_before_it_denies() {
        let written = |current: &str, wanted: &[&str]| {
            let found = transition(current, &list(wanted));
            [found.first_allow, found.then_deny, found.allow_again]
        };
        let current = "c 1:3 rwm\nb *:* m\n";
        let nothing = [list(&[]), list(&[]), list(&[])];
        assert_eq!(written(current, &["b *:* m", "c 1:3 rwm"]), nothing);
        let other = [
            list(&["c 1:5 r"]),
            list(&["c 1:3 rwm", "b *:* m"]),
            list(&[]),
        ];
        assert_eq!(written(current, &["c 1:5 r"]), other);
        // The new line widens nothing, and goes with the old one: so it is written again.
        let less = [list(&["c 1:3 m"]), list(&["c 1:3 rwm"]), list(&["c 1:3 m"])];
        assert_eq!(written("c 1:3 rwm\n", &["c 1:3 m"]), less);
    }
}
