//! cpuset: which processors and memory nodes. An empty list means the parent's.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v2.html#cpuset>.

use std::path::Path;

use bundles::config::linux::resources::Cpu;

use crate::cgroups::{Error, files};

pub(super) fn set(dir: &Path, cpu: &Cpu) -> Result<(), Error> {
    if let Some(cpus) = &cpu.cpus {
        files::set(dir, "cpuset.cpus", cpus, "cpu.cpus")?;
    }
    if let Some(mems) = &cpu.mems {
        files::set(dir, "cpuset.mems", mems, "cpu.mems")?;
    }
    Ok(())
}
