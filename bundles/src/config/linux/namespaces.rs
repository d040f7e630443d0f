//! `linux.namespaces`: what the container has of its own, and what it shares with whom.
//!
//! Spec: config-linux.md#namespaces

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use crate::validate::FieldError;

/// The kinds of namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// user_namespaces(7)
    User,
    /// pid_namespaces(7)
    Pid,
    /// network_namespaces(7)
    Network,
    /// ipc_namespaces(7)
    Ipc,
    /// uts_namespaces(7)
    Uts,
    /// mount_namespaces(7)
    Mount,
    /// cgroup_namespaces(7)
    Cgroup,
    /// time_namespaces(7)
    Time,
}

impl Kind {
    /// The name that config.json uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The file's name in `/proc/PID/ns`.
    pub fn proc_name(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Mount => "mnt",
            other => other.as_str(),
        }
    }
}

/// One entry of `linux.namespaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its kind.
    pub kind: Kind,
    /// The file of a namespace to join; None makes a new one.
    pub path: Option<PathBuf>,
    /// Its place in the list, for messages.
    pub index: usize,
}

/// All entries; kinds that are not named are shared with the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<Namespace>);

impl Namespaces {
    pub(super) fn from_spec(list: &[LinuxNamespace]) -> Result<Self, FieldError> {
        let mut namespaces: Vec<Namespace> = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let kind = kind(entry.typ());
            if namespaces.iter().any(|earlier| earlier.kind == kind) {
                let field = format!("linux.namespaces[{index}].type");
                return Err(FieldError::new(
                    field,
                    format!("{:?} is given twice", kind.as_str()),
                ));
            }
            let path = entry
                .path()
                .clone()
                .filter(|path| !path.as_os_str().is_empty());
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                let field = format!("linux.namespaces[{index}].path");
                return Err(FieldError::new(
                    field,
                    format!("{path:?} is not an absolute path"),
                ));
            }
            namespaces.push(Namespace { kind, path, index });
        }
        Ok(Self(namespaces))
    }

    /// Every entry, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.0.iter()
    }

    /// Whether the container has a `kind` that the runtime does not share, new or joined.
    pub fn has(&self, kind: Kind) -> bool {
        self.0.iter().any(|namespace| namespace.kind == kind)
    }

    /// Whether a new `kind` is made.
    pub fn is_new(&self, kind: Kind) -> bool {
        self.0
            .iter()
            .any(|namespace| namespace.kind == kind && namespace.path.is_none())
    }

    /// The file of the `kind` that is joined.
    pub fn path(&self, kind: Kind) -> Option<&Path> {
        self.0
            .iter()
            .find(|namespace| namespace.kind == kind)?
            .path
            .as_deref()
    }
}

fn kind(kind: LinuxNamespaceType) -> Kind {
    match kind {
        LinuxNamespaceType::User => Kind::User,
        LinuxNamespaceType::Pid => Kind::Pid,
        LinuxNamespaceType::Network => Kind::Network,
        LinuxNamespaceType::Ipc => Kind::Ipc,
        LinuxNamespaceType::Uts => Kind::Uts,
        LinuxNamespaceType::Mount => Kind::Mount,
        LinuxNamespaceType::Cgroup => Kind::Cgroup,
        LinuxNamespaceType::Time => Kind::Time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lists_are_named() {
        let cases = [
            (
                r#"[{"type":"pid"},{"type":"pid"}]"#,
                "linux.namespaces[1].type: \"pid\" is given twice",
            ),
            (
                r#"[{"type":"network","path":"run/x"}]"#,
                "linux.namespaces[0].path: ",
            ),
        ];
        for (text, expected) in cases {
            let list: Vec<LinuxNamespace> = serde_json::from_str(text).expect(text);
            let error = Namespaces::from_spec(&list).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
