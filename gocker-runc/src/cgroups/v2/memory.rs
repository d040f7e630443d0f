//! memory: limits of memory and of swap.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory>.

use std::path::Path;

use bundles::FieldError;
use bundles::config::linux::resources::memory::Hierarchy;
use bundles::config::linux::resources::{Limit, Memory};
use nix::errno::Errno;

use crate::cgroups::files::{self, Setting, read_in, read_key};
use crate::cgroups::refusals::refuse;
use crate::cgroups::{Error, tree};

const SWAP: &str = "memory.swap.max";

pub(super) fn check(memory: &Memory) -> Result<(), FieldError> {
    let unserved = [
        ("memory.kernel", memory.kernel_bytes.is_some()),
        ("memory.kernelTCP", memory.kernel_tcp_bytes.is_some()),
        ("memory.swappiness", memory.swappiness_percent.is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer),
        (
            "memory.useHierarchy",
            memory.hierarchy == Hierarchy::Separate,
        ),
    ];
    match unserved.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(refuse(
            field,
            "cgroup v2, which this machine has, cannot serve it",
        )),
        None => Ok(()),
    }
}

/// Does what `checkBeforeUpdate` asks for.
pub(in crate::cgroups) fn check_before(dir: &Path, memory: &Memory) -> Result<(), Error> {
    if memory.check_before_update {
        check_usage(dir, memory)?;
    }
    Ok(())
}

pub(super) fn set(dir: &Path, memory: &Memory) -> Result<(), Error> {
    check_before(dir, memory)?;
    if let Some(swap) = swap_limit(dir, memory)? {
        set_swap(dir, swap)?;
    }
    let limit = memory
        .limit_bytes
        .map(|limit| Setting::new("memory.limit", "memory.max", limit));
    let reservation = memory
        .reservation_bytes
        .map(|limit| Setting::new("memory.reservation", "memory.low", limit));
    limit
        .iter()
        .chain(&reservation)
        .try_for_each(|setting| setting.write(dir))
}

/// How often the kernel killed for want of memory; 0 where nobody counts.
pub(in crate::cgroups) fn oom_kill_count(dir: &Path) -> Result<u64, Error> {
    match read_key(dir, "memory.events", "oom_kill") {
        Err(Error::Path {
            answer: Errno::ENOENT,
            ..
        }) => Ok(0),
        count => Ok(count?.unwrap_or(0)),
    }
}

/// The configuration counts memory and swap together, cgroup v2 swap alone.
fn swap_limit(dir: &Path, memory: &Memory) -> Result<Option<Limit>, Error> {
    let swap = match (memory.limit_bytes, memory.swap_bytes) {
        // Memory without limit and nothing said of swap means no limit on both.
        (Some(Limit::Unlimited), None) | (_, Some(Limit::Unlimited)) => Limit::Unlimited,
        (_, None) => return Ok(None),
        (Some(Limit::Max(limit)), Some(Limit::Max(swap))) => Limit::Max(swap.saturating_sub(limit)),
        (None | Some(Limit::Unlimited), Some(Limit::Max(swap))) => {
            let text = read_in(dir, "memory.max")?;
            let limit: Option<u64> = text.trim().parse().ok().filter(|limit| *limit <= swap);
            let limit = limit.ok_or_else(|| {
                let problem =
                    format!("{swap} (memory and swap together) is below memory.limit, {text:?}");
                refuse("memory.swap", problem.replace("\\n", ""))
            })?;
            Limit::Max(swap - limit)
        }
    };
    Ok(Some(swap))
}

/// Where the kernel does not count swap, there is nothing to lift or to forbid.
fn set_swap(dir: &Path, swap: Limit) -> Result<(), Error> {
    let path = dir.join(SWAP);
    let value = swap.to_string();
    match (files::write(&path, &value), swap) {
        (Ok(()), _) | (Err(Errno::ENOENT), Limit::Unlimited | Limit::Max(0)) => Ok(()),
        (Err(answer), _) => Err(files::refused(&path, &value, "memory.swap", answer)),
    }
}

/// The kernel would reclaim and then kill to get below a new limit.
fn check_usage(dir: &Path, memory: &Memory) -> Result<(), Error> {
    let path = dir.join("memory.current");
    let text = files::read(&path).map_err(|answer| tree::path_error("read", &path, answer))?;
    let expected = "a byte count";
    let usage: u64 = text.trim().parse().map_err(|_| Error::Content {
        path,
        text,
        expected,
    })?;
    for (field, limit) in [
        ("memory.limit", memory.limit_bytes),
        ("memory.swap", memory.swap_bytes),
    ] {
        match limit {
            Some(Limit::Max(limit)) if limit <= usage => {
                let problem = format!("{limit} is not above what is in use, {usage}");
                Err(refuse(field, problem))?;
            }
            _ => (),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_what_is_left() {
        use Limit::{Max, Unlimited};
        let root = tempfile::tempdir().expect("has a directory");
        std::fs::write(root.path().join("memory.max"), "60\n").expect("is written");
        let table = [
            (None, None, None),
            (Some(Max(5)), None, None),
            (Some(Unlimited), None, Some(Unlimited)),
            (Some(Max(5)), Some(Unlimited), Some(Unlimited)),
            (Some(Max(5)), Some(Max(5)), Some(Max(0))),
            (Some(Max(5)), Some(Max(12)), Some(Max(7))),
            (None, Some(Max(100)), Some(Max(40))),
        ];
        for (limit_bytes, swap_bytes, expected) in table {
            let memory = Memory {
                limit_bytes,
                swap_bytes,
                ..Memory::default()
            };
            assert_eq!(
                swap_limit(root.path(), &memory).expect("can be told"),
                expected
            );
        }
        let memory = Memory {
            swap_bytes: Some(Max(59)),
            ..Memory::default()
        };
        let error = swap_limit(root.path(), &memory).expect_err("is below memory.max");
        let expected = "linux.resources.memory.swap: 59 (memory and swap together) is below \
                        memory.limit, \"60\"";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn usage_is_checked_only_when_asked() {
        let root = tempfile::tempdir().expect("has a directory");
        for (file, text) in [("memory.current", "50\n"), ("memory.max", "")] {
            std::fs::write(root.path().join(file), text).expect("is written");
        }
        let memory = |check_before_update, limit| Memory {
            limit_bytes: Some(Limit::Max(limit)),
            check_before_update,
            ..Memory::default()
        };
        set(root.path(), &memory(false, 40)).expect("is not checked");
        set(root.path(), &memory(true, 51)).expect("is above");
        let error = set(root.path(), &memory(true, 50)).expect_err("is not above");
        let expected = "linux.resources.memory.limit: 50 is not above what is in use, 50";
        assert_eq!(error.to_string(), expected);
    }
}
