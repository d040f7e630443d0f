//! cpuset: which processors and memory nodes.
//!
//! A new cpuset has none of either, and takes no process until it does.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/cpusets.html>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bundles::config::linux::resources::Cpu;

use crate::cgroups::files::{self, read_in, set};
use crate::cgroups::stats::{CPUSET_SWITCHES, CpusetStats, optional};
use crate::cgroups::{Error, tree};

const CPUS: &str = "cpuset.cpus";
const MEMS: &str = "cpuset.mems";

pub(super) fn set_lists(dir: &Path, cpu: &Cpu) -> Result<(), Error> {
    if let Some(cpus) = &cpu.cpus {
        set(dir, CPUS, cpus, "cpu.cpus")?;
    }
    if let Some(mems) = &cpu.mems {
        set(dir, MEMS, mems, "cpu.mems")?;
    }
    Ok(())
}

/// Gives each of the `made` directories what the one above it has, outermost first.
pub(super) fn fill(made: &[PathBuf]) -> Result<(), Error> {
    for dir in made {
        for file in [CPUS, MEMS] {
            copy_from_parent(dir, file)?;
        }
    }
    Ok(())
}

/// As [`fill`], for a directory that was there before and may already have its own.
pub(super) fn fill_empty(dir: &Path) -> Result<(), Error> {
    for file in [CPUS, MEMS] {
        inherited(dir, file)?;
    }
    Ok(())
}

/// What the files of the controller say.
pub(in crate::cgroups) fn stats(dir: &Path) -> Result<CpusetStats, Error> {
    let list = |file: &str| -> Result<String, Error> {
        let text = optional(dir, file)?.unwrap_or_default();
        Ok(text.trim_end().to_owned())
    };
    let mut switches = BTreeMap::new();
    for name in CPUSET_SWITCHES {
        let text = optional(dir, &format!("cpuset.{name}"))?;
        let number = text.and_then(|text| text.trim().parse().ok());
        switches.extend(number.map(|number| (name, number)));
    }
    Ok(CpusetStats {
        cpus: list(CPUS)?,
        mems: list(MEMS)?,
        switches,
    })
}

fn copy_from_parent(dir: &Path, file: &str) -> Result<String, Error> {
    let value = match dir.parent() {
        Some(parent) => inherited(parent, file)?,
        None => String::new(),
    };
    let path = dir.join(file);
    match files::write(&path, &value) {
        Ok(()) => Ok(value),
        Err(answer) => Err(tree::path_error("set up", &path, answer)),
    }
}

/// What `dir` has; where it has nothing, it is filled from above first.
fn inherited(dir: &Path, file: &str) -> Result<String, Error> {
    let value = read_in(dir, file)?;
    match value.trim() {
        "" => copy_from_parent(dir, file),
        value => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_down_from_the_root() {
        let root = tempfile::tempdir().expect("has a directory");
        let dirs = ["", "a", "a/b", "a/b/c"].map(|name| root.path().join(name));
        for (dir, value) in dirs.iter().zip(["0-1\n", "\n", "\n", "\n"]) {
            std::fs::create_dir_all(dir).expect("is made");
            for file in [CPUS, MEMS] {
                std::fs::write(dir.join(file), value).expect("is written");
            }
        }
        // `a` was there before, and nobody had filled it.
        fill(&dirs[2..]).expect("are filled");
        for dir in &dirs {
            assert_eq!(
                files::read(&dir.join(CPUS)).expect("is there").trim(),
                "0-1",
                "{dir:?}"
            );
        }
        let cpu = Cpu {
            cpus: Some("0".into()),
            ..Cpu::default()
        };
        set_lists(&dirs[3], &cpu).expect("is set");
        fill_empty(&dirs[3]).expect("stays");
        // A file of the kernel's would now hold just "0".
        assert!(
            files::read(&dirs[3].join(CPUS))
                .expect("is there")
                .starts_with('0')
        );
    }
}
