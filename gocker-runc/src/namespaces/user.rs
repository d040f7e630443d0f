//! A new user namespace's id mappings.
//!
//! Spec: config-linux.md#user-namespace-mappings; user_namespaces(7)

use bundles::config::linux::id_mappings::IdMapping;
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};

use crate::sys::procfs::ProcFd;
use crate::sys::{CallError, Called};

/// Writes both maps for `pid`, the first process of a new user namespace.
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
    // Without CAP_SETGID the kernel takes a group map only from one who gives up setgroups.
    if !Uid::effective().is_root() {
        proc.write(&format!("{pid}/setgroups"), b"deny")?;
    }
    proc.write(&format!("{pid}/gid_map"), lines(gids).as_bytes())?;
    proc.write(&format!("{pid}/uid_map"), lines(uids).as_bytes())
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

    #[test]
    fn a_map_has_a_line_for_each_mapping() {
        let mappings = [
            IdMapping {
                container_id: 0,
                host_id: 1000,
                size: 1,
            },
            IdMapping {
                container_id: 1,
                host_id: 100_000,
                size: 65536,
            },
        ];
        assert_eq!(lines(&mappings), "0 1000 1\n1 100000 65536\n");
    }
}
