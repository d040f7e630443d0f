//! `ps`: the processes of a container, by their ids on the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use nix::unistd::Pid;

use super::State;
use crate::cgroups::Cgroup;
use crate::container::state_dir;

/// The processes in the container's cgroup, or where it has none those of its PID namespace; none
/// when it has stopped.
///
/// # Errors
/// There is no such container, its cgroup cannot be read, or it has neither.
pub(crate) fn processes(root: &Path, id: &str) -> anyhow::Result<Vec<Pid>> {
    let dir = state_dir::existing(root, id)?;
    let state: State = state_dir::read_state(&dir)?
        .context("container does not exist: its creation was cut short")?;
    let cgroup = Cgroup::from_record(&state.cgroup);
    if !cgroup.is_shared() {
        return Ok(cgroup.processes()?);
    }
    match state.init.filter(|init| init.is_alive()) {
        None => Ok(Vec::new()),
        Some(_) if !state.own_pid_namespace => bail!(
            "the container has neither a cgroup nor a PID namespace of its own: \
             its processes cannot be told from others"
        ),
        Some(init) => of_namespace(init.pid),
    }
}

/// The processes of the PID namespace that `init` is the first of, and of those below it.
fn of_namespace(init: i32) -> anyhow::Result<Vec<Pid>> {
    // What cannot be read has ended, or is somebody else's.
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(init);
    let mut parents = BTreeMap::new();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let name = entry.context("list /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = parent_of(&stat) {
            parents.insert(pid, parent);
            if own.is_some() && namespace(pid) == own {
                found.insert(pid);
            }
        }
    }
    // A namespace that a process of the container has made is another, but it is below this one.
    while let Some((pid, _)) = parents
        .iter()
        .find(|(pid, parent)| !found.contains(pid) && found.contains(parent))
    {
        found.insert(*pid);
    }
    Ok(found.into_iter().map(Pid::from_raw).collect())
}

/// Spec: proc_pid_stat(5), field 4
fn parent_of(stat: &str) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// What ps(1) prints with `options`, the lines of other processes left out.
///
/// # Errors
/// ps(1) cannot be run or refuses `options`, or prints no PID column.
pub(crate) fn table(processes: &[Pid], options: &[String]) -> anyhow::Result<String> {
    let usual = ["-ef".to_owned()];
    let options = if options.is_empty() {
        &usual[..]
    } else {
        options
    };
    let output = match Command::new("ps").args(options).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("ps(1) is not in $PATH; --format json does without it")
        }
        output => output.context("run ps(1)")?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default();
        bail!("ps {}: {}: {said}", options.join(" "), output.status);
    }
    filter(&String::from_utf8_lossy(&output.stdout), processes)
}

/// The heading, and the lines whose PID column names one of `processes`.
fn filter(text: &str, processes: &[Pid]) -> anyhow::Result<String> {
    let heading = text.lines().next().unwrap_or_default();
    let column = heading.split_whitespace().position(|word| word == "PID");
    let column = column.context("couldn't find PID field in ps output")?;
    let mut found = format!("{heading}\n");
    for line in text.lines().skip(1) {
        let Some(word) = line.split_whitespace().nth(column) else {
            continue;
        };
        let pid: i32 = word
            .parse()
            .with_context(|| format!("unexpected pid {word:?} in ps output"))?;
        if processes.contains(&Pid::from_raw(pid)) {
            found.push_str(line);
            found.push('\n');
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        assert_eq!(parent_of("7 (a) b) S 3 7 7 0"), Some(3));
        assert_eq!(parent_of(""), None);
    }

    #[test]
    fn only_the_containers_lines_stay() {
        let pids = [Pid::from_raw(12), Pid::from_raw(7)];
        let text = "UID   PID CMD\nroot    1 init\nroot   12 sleep 7\nroot  112 x\n\n";
        assert_eq!(
            filter(text, &pids).expect("has a column"),
            "UID   PID CMD\nroot   12 sleep 7\n"
        );
        for bad in ["", "UID CMD\nroot x\n", "PID CMD\nx y\n"] {
            assert!(filter(bad, &pids).is_err(), "{bad:?}");
        }
    }
}
