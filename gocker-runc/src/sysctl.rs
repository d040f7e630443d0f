//! `linux.sysctl`: kernel parameters of the container's own namespaces.
//!
//! Spec: config-linux.md#sysctl

use std::collections::BTreeMap;

use bundles::FieldError;
use bundles::config::linux::namespaces::Kind;

use crate::sys::CallError;
use crate::sys::procfs::ProcFd;

/// Parameters of the IPC namespace outside `fs.mqueue.`.
const IPC: &[&str] = &[
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "kernel/msg_next_id",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
];

/// A parameter that could not be set.
#[derive(Debug, thiserror::Error)]
#[error("linux.sysctl[{name:?}]")]
pub(crate) struct Error {
    name: String,
    source: CallError,
}

/// Refuses parameters that belong to no namespace of the container's own: setting them would
/// change the host. `is_its_own` tells of which kinds it has namespaces that are not the
/// runtime's, too.
///
/// # Errors
/// The parameter, and the namespace that is missing.
pub(crate) fn check(
    sysctl: &BTreeMap<String, String>,
    is_its_own: impl Fn(Kind) -> bool,
    hostname_is_set: bool,
) -> Result<(), FieldError> {
    for name in sysctl.keys() {
        let refuse =
            |problem: String| Err(FieldError::new(format!("linux.sysctl[{name:?}]"), problem));
        let path = path(name);
        if path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return refuse("is not the name of a kernel parameter".into());
        }
        let Some(kind) = owner(&path) else {
            return refuse("belongs to no namespace, and would change the host".into());
        };
        if !is_its_own(kind) {
            return refuse(format!(
                "needs a {} namespace of the container's own",
                kind.as_str()
            ));
        }
        if path == "kernel/hostname" && hostname_is_set {
            return refuse("contradicts hostname".into());
        }
    }
    Ok(())
}

/// Writes every parameter.
///
/// Runs in: container namespace.
///
/// # Errors
/// The parameter, and the kernel's answer.
pub(crate) fn write(proc: &ProcFd, sysctl: &BTreeMap<String, String>) -> Result<(), Error> {
    for (name, value) in sysctl {
        proc.write(&format!("sys/{}", path(name)), value.as_bytes())
            .map_err(|source| Error {
                name: name.clone(),
                source,
            })?;
    }
    Ok(())
}

/// `net.ipv4.conf.eth0/1.forwarding` as `net/ipv4/conf/eth0.1/forwarding`: the first
/// separator says which of the two it is (sysctl.d(5)).
fn path(name: &str) -> String {
    if name.find('/').unwrap_or(usize::MAX) < name.find('.').unwrap_or(usize::MAX) {
        return name.to_owned();
    }
    name.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

fn owner(path: &str) -> Option<Kind> {
    if path.starts_with("net/") {
        Some(Kind::Network)
    } else if path.starts_with("fs/mqueue/") || IPC.contains(&path) {
        Some(Kind::Ipc)
    } else if matches!(path, "kernel/domainname" | "kernel/hostname") {
        Some(Kind::Uts)
    } else if path.starts_with("user/max_") {
        Some(Kind::User)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        let cases = [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
        ];
        for (name, expected) in cases {
            assert_eq!(path(name), expected, "{name}");
        }
    }

    #[test]
    fn owners() {
        let cases = [
            ("net/ipv4/ip_forward", Some(Kind::Network)),
            ("kernel/shmmax", Some(Kind::Ipc)),
            ("fs/mqueue/msg_max", Some(Kind::Ipc)),
            ("kernel/hostname", Some(Kind::Uts)),
            ("kernel/panic", None),
            ("vm/swappiness", None),
        ];
        for (path, expected) in cases {
            assert_eq!(owner(path), expected, "{path}");
        }
    }
}
