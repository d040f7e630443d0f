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

/// Changes the rules of a living cgroup such that at no moment more or less is allowed than
/// before or after.
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
    let wanted = lines(&wanted);
    let is_new = |line: &&String| !current.lines().any(|current| current == line.as_str());
    let is_old = |line: &&str| !wanted.iter().any(|wanted| wanted == line);
    let new: Vec<String> = wanted.iter().filter(is_new).cloned().collect();
    let old: Vec<String> = current.lines().filter(is_old).map(str::to_owned).collect();
    // A line for the same devices with less access is taken away, so what stays of it is
    // given again.
    let touched = |line: &&String| {
        let device = line.rsplit_once(' ').map(|(device, _)| device);
        old.iter()
            .any(|old| old.rsplit_once(' ').map(|(device, _)| device) == device)
    };
    let again: Vec<String> = wanted.iter().filter(touched).cloned().collect();
    write_lines(dir, ALLOW, &new)?;
    write_lines(dir, DENY, &old)?;
    write_lines(dir, ALLOW, &again)
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
