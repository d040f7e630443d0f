//! Single values as users write them: capabilities, devices, limits, confinement.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::str::FromStr;

use nix::sys::stat::{major, minor};
use oci_spec::runtime::{Capability, LinuxSeccomp, PosixRlimitType};
use serde_json::{Value, json};

use super::mount::OptionError;
use super::{array, host_path};

/// A capability, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapabilityOption {
    /// All that there are.
    All,
    /// This one.
    One(Capability),
}

/// All capabilities, by their names without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

impl FromStr for CapabilityOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok(Self::All);
        }
        let known = CAPABILITIES
            .contains(&name)
            .then(|| name.parse().ok())
            .flatten();
        known
            .map(Self::One)
            .ok_or_else(|| "there is no such capability".to_owned())
    }
}

impl CapabilityOption {
    /// Whether all are among them.
    pub(super) fn are_all(list: &[Self]) -> bool {
        list.contains(&Self::All)
    }

    /// Their names as config.json has them.
    pub(super) fn names(list: &[Self]) -> Vec<Value> {
        if Self::are_all(list) {
            let names = CAPABILITIES.iter();
            return names.map(|name| json!(format!("CAP_{name}"))).collect();
        }
        let mut names: Vec<Value> = Vec::new();
        for option in list {
            if let Self::One(capability) = option
                && !names.contains(&json!(capability))
            {
                names.push(json!(capability));
            }
        }
        names
    }
}

/// A device of the host's: `HOST[:CONTAINER[:rwm]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOption {
    host: String,
    container: String,
    access: String,
}

impl FromStr for DeviceOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_access = |text: &str| {
            !text.is_empty() && text.chars().all(|c| "rwm".contains(c)) && text.len() <= 3
        };
        let parts: Vec<&str> = text.split(':').collect();
        let (host, container, access) = match parts[..] {
            [host] => (host, host, "rwm"),
            [host, access] if is_access(access) => (host, host, access),
            [host, container] => (host, container, "rwm"),
            [host, container, access] if is_access(access) => (host, container, access),
            _ => return Err("write HOST, HOST:CONTAINER or HOST:CONTAINER:rwm".to_owned()),
        };
        if !host.starts_with('/') || !container.starts_with('/') {
            return Err("both paths have to be absolute".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            container: container.to_owned(),
            access: access.to_owned(),
        })
    }
}

impl DeviceOption {
    /// The node in the container, and the rule that lets it be used.
    pub(super) fn found(&self) -> Result<(Value, Value), OptionError> {
        let flag = "--device";
        let path = host_path(flag, &self.host)?;
        let metadata = path.metadata().map_err(|error| {
            OptionError::new(
                flag,
                format!("{path:?}: {}", crate::errno::Cause::from(error)),
            )
        })?;
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => "c",
            kind if kind.is_block_device() => "b",
            _ => {
                return Err(OptionError::new(
                    flag,
                    format!("{:?} is no device", self.host),
                ));
            }
        };
        let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
        Ok((
            json!({
                "path": self.container, "type": kind, "major": major, "minor": minor,
                "fileMode": metadata.mode() & 0o7777, "uid": metadata.uid(), "gid": metadata.gid(),
            }),
            json!({
                "allow": true, "type": kind, "major": major, "minor": minor, "access": self.access,
            }),
        ))
    }
}

/// `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairOption {
    /// Before the first `=`.
    pub name: String,
    /// After it.
    pub value: String,
}

impl FromStr for PairOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("write NAME=VALUE".to_owned()),
        }
    }
}

/// A limit of single processes: `NAME=SOFT[:HARD]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// As `RLIMIT_NOFILE`.
    pub(super) kind: String,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text
            .split_once('=')
            .ok_or("write NAME=SOFT or NAME=SOFT:HARD")?;
        let upper = name.to_ascii_uppercase();
        let kind = format!("RLIMIT_{}", upper.strip_prefix("RLIMIT_").unwrap_or(&upper));
        if serde_json::from_value::<PosixRlimitType>(json!(kind)).is_err() {
            return Err(format!("there is no limit {name:?}"));
        }
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            text => text
                .parse()
                .map_err(|_| format!("{text:?} is neither a number nor unlimited")),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err("the soft limit is above the hard one".to_owned());
        }
        Ok(Self { kind, soft, hard })
    }
}

/// How the container is confined by the kernel's security modules.
#[derive(Debug, Clone, PartialEq)]
pub enum SecurityOption {
    /// Whether programs can gain privileges by their set-user-id bits and the like.
    NoNewPrivileges(bool),
    /// The filter of system calls; None for no filter.
    Seccomp(Option<Box<LinuxSeccomp>>),
    /// The AppArmor profile.
    Apparmor(String),
    /// No path is masked or read-only.
    Unmask,
}

impl Eq for SecurityOption {}

impl FromStr for SecurityOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", "false") => Ok(Self::NoNewPrivileges(false)),
            ("seccomp", "unconfined") => Ok(Self::Seccomp(None)),
            ("seccomp", file) if !file.is_empty() => {
                read_profile(Path::new(file)).map(Self::Seccomp)
            }
            ("apparmor", profile) if !profile.is_empty() => Ok(Self::Apparmor(profile.to_owned())),
            ("unmask", "ALL" | "all") => Ok(Self::Unmask),
            _ => Err(
                "there are no-new-privileges[=true|false], seccomp=FILE, seccomp=unconfined, \
                 apparmor=PROFILE, apparmor=unconfined and unmask=ALL"
                    .to_owned(),
            ),
        }
    }
}

/// Reads a profile in the form of config.json's `linux.seccomp`.
fn read_profile(path: &Path) -> Result<Option<Box<LinuxSeccomp>>, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{path:?}: {}", crate::errno::Cause::from(error)))?;
    let profile: Value =
        serde_json::from_str(&text).map_err(|error| format!("{path:?}: {error}"))?;
    let conditional = |call: &Value| {
        let part = |name| {
            call.get(name)
                .is_some_and(|part| part.as_object().is_none_or(|p| !p.is_empty()))
        };
        part("includes") || part("excludes")
    };
    let calls = profile["syscalls"].as_array();
    if profile.get("archMap").is_some() || calls.is_some_and(|calls| calls.iter().any(conditional))
    {
        return Err(format!(
            "{path:?} is a template of an engine's (archMap, includes, excludes), not a profile in \
             the form of config.json's linux.seccomp"
        ));
    }
    let profile = serde_json::from_value(profile).map_err(|error| format!("{path:?}: {error}"))?;
    Ok(Some(Box::new(profile)))
}

impl SecurityOption {
    pub(super) fn lay_over(&self, config: &mut Value) {
        match self {
            Self::NoNewPrivileges(wanted) => config["process"]["noNewPrivileges"] = json!(wanted),
            Self::Seccomp(Some(profile)) => config["linux"]["seccomp"] = json!(profile),
            Self::Seccomp(None) => config["linux"]["seccomp"] = Value::Null,
            Self::Apparmor(profile) => config["process"]["apparmorProfile"] = json!(profile),
            Self::Unmask => {
                for list in ["maskedPaths", "readonlyPaths"] {
                    array(&mut config["linux"][list]).clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_a_name() {
        for name in CAPABILITIES {
            let parsed: CapabilityOption = name.to_lowercase().parse().unwrap();
            assert_eq!(
                CapabilityOption::names(&[parsed]),
                [json!(format!("CAP_{name}"))]
            );
        }
        for bad in ["", "CAP_", "SYS_NOTHING"] {
            assert!(bad.parse::<CapabilityOption>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_read_or_refused() {
        let ulimit: Ulimit = "nofile=10:unlimited".parse().unwrap();
        assert_eq!(
            (ulimit.kind.as_str(), ulimit.soft, ulimit.hard),
            ("RLIMIT_NOFILE", 10, u64::MAX)
        );
        for bad in ["nofile", "x=1", "nofile=2:1", "nofile=-2", "nofile="] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad:?}");
        }
        for (text, container, access) in [
            ("/dev/null", "/dev/null", "rwm"),
            ("/dev/null:r", "/dev/null", "r"),
            ("/dev/null:/dev/x", "/dev/x", "rwm"),
            ("/dev/null:/dev/x:rw", "/dev/x", "rw"),
        ] {
            let device: DeviceOption = text.parse().unwrap();
            assert_eq!(
                (device.container.as_str(), device.access.as_str()),
                (container, access)
            );
        }
        for bad in ["null", "/dev/null:/dev/x:q", "/a:/b:r:w", "/dev/null:x"] {
            assert!(bad.parse::<DeviceOption>().is_err(), "{bad:?}");
        }
        for bad in [
            "seccomp",
            "seccomp=/nowhere",
            "label=disable",
            "no-new-privileges=maybe",
            "apparmor=",
        ] {
            assert!(bad.parse::<SecurityOption>().is_err(), "{bad:?}");
        }
    }
}
