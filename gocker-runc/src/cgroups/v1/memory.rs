//! memory: limits of memory, of memory with swap, of buffers.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>.

use std::path::Path;

use bundles::config::linux::resources::memory::Hierarchy;
use bundles::config::linux::resources::{Limit, Memory};

use super::limit;
use crate::cgroups::Error;
use crate::cgroups::files::{Setting, read_in, set_in_workable_order};
use crate::cgroups::refusals::refuse;

const KERNEL: &str = "memory.kmem.limit_in_bytes";
const MEMSW: &str = "memory.memsw.limit_in_bytes";

pub(super) fn set(dir: &Path, memory: &Memory) -> Result<(), Error> {
    // The hierarchy cannot change once there are cgroups beneath; limits can.
    hierarchy_setting(memory).map_or(Ok(()), |setting| setting.write(dir))?;
    let mut limits = limit_settings(memory);
    // Memory without limit and nothing said of swap means no limit on both, as a limit on
    // swap that stays behind would still limit memory. Not every kernel has the file.
    let lift_swap = memory.limit_bytes == Some(Limit::Unlimited) && memory.swap_bytes.is_none();
    if lift_swap && dir.join(MEMSW).exists() {
        limits.push(Setting::new("memory.limit", MEMSW, limit(Limit::Unlimited)));
    }
    // The kernel itself refuses a limit below what is in use, which is what
    // memory.checkBeforeUpdate asks for.
    set_in_workable_order(dir, limits)?;
    other_settings(memory)
        .iter()
        .try_for_each(|setting| setting.write(dir))?;
    memory
        .kernel_bytes
        .map_or(Ok(()), |limit| check_kernel_limit(dir, limit))
}

/// Kernels from 5.16 on take a limit for their own memory, and forget it.
fn check_kernel_limit(dir: &Path, limit: Limit) -> Result<(), Error> {
    let text = read_in(dir, KERNEL)?;
    let kept: Option<u64> = text.trim().parse().ok();
    match (limit, kept) {
        // What is no limit in bytes is one in pages, so far up that nobody gets there.
        (Limit::Max(asked), Some(kept)) if kept > asked => {
            let problem = format!("this kernel does not keep it: {KERNEL} stays {kept}");
            Err(refuse("memory.kernel", problem))?
        }
        _ => Ok(()),
    }
}

fn hierarchy_setting(memory: &Memory) -> Option<Setting> {
    let value = match memory.hierarchy {
        Hierarchy::Inherited => return None,
        Hierarchy::Counted => 1,
        Hierarchy::Separate => 0,
    };
    Some(Setting::new(
        "memory.useHierarchy",
        "memory.use_hierarchy",
        value,
    ))
}

fn limit_settings(memory: &Memory) -> Vec<Setting> {
    let setting = |field, file, bytes: Option<Limit>| {
        bytes.map(|bytes| Setting::new(field, file, limit(bytes)))
    };
    [
        setting("memory.limit", "memory.limit_in_bytes", memory.limit_bytes),
        setting("memory.swap", MEMSW, memory.swap_bytes),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn other_settings(memory: &Memory) -> Vec<Setting> {
    let bytes = |field, file, bytes: Option<Limit>| {
        bytes.map(|bytes| Setting::new(field, file, limit(bytes)))
    };
    let swappiness = memory.swappiness_percent;
    let no_killer = memory.disable_oom_killer.then_some(1);
    [
        bytes("memory.kernel", KERNEL, memory.kernel_bytes),
        bytes(
            "memory.kernelTCP",
            "memory.kmem.tcp.limit_in_bytes",
            memory.kernel_tcp_bytes,
        ),
        bytes(
            "memory.reservation",
            "memory.soft_limit_in_bytes",
            memory.reservation_bytes,
        ),
        no_killer.map(|one| Setting::new("memory.disableOOMKiller", "memory.oom_control", one)),
        swappiness.map(|part| Setting::new("memory.swappiness", "memory.swappiness", part)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_values() {
        let memory = Memory {
            limit_bytes: Some(Limit::Max(10)),
            swap_bytes: Some(Limit::Unlimited),
            reservation_bytes: Some(Limit::Max(5)),
            disable_oom_killer: true,
            ..Memory::default()
        };
        let written = |settings: Vec<Setting>| -> Vec<_> {
            settings
                .into_iter()
                .map(|setting| (setting.file, setting.value))
                .collect()
        };
        let expected = [
            ("memory.limit_in_bytes", "10".to_owned()),
            (MEMSW, "-1".to_owned()),
        ];
        assert_eq!(written(limit_settings(&memory)), expected);
        let expected = [
            ("memory.soft_limit_in_bytes", "5".to_owned()),
            ("memory.oom_control", "1".to_owned()),
        ];
        assert_eq!(written(other_settings(&memory)), expected);
        assert_eq!(hierarchy_setting(&memory), None);
    }

    #[test]
    fn lifting_the_limit_lifts_swap_where_it_is_counted() {
        let dir = tempfile::tempdir().expect("has a directory");
        let memory = Memory {
            limit_bytes: Some(Limit::Unlimited),
            ..Memory::default()
        };
        std::fs::write(dir.path().join("memory.limit_in_bytes"), "").expect("is written");
        set(dir.path(), &memory).expect("needs no memsw");
        std::fs::write(dir.path().join(MEMSW), "").expect("is written");
        set(dir.path(), &memory).expect("sets both");
        assert_eq!(
            std::fs::read_to_string(dir.path().join(MEMSW)).expect("is there"),
            "-1"
        );
    }
}
