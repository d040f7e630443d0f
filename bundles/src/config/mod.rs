//! `config.json` as plain values: the specification's defaults are applied, contradictions
//! are refused, and no `Option<bool>` goes further than here.
//!
//! Spec: config.md

pub mod hooks;
pub mod linux;
pub mod mounts;
pub mod parse;
pub mod process;
mod scheduling;

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::validate::FieldError;
use hooks::Hooks;
use linux::Linux;
use mounts::Mount;
use process::Process;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `ociVersion`, as written.
    pub oci_version: String,
    /// `root.path`, absolute or relative to the bundle.
    pub root_path: PathBuf,
    /// Whether the root filesystem is read-only inside the container.
    pub root_readonly: bool,
    /// The container's host name; None keeps what the UTS namespace has.
    pub hostname: Option<String>,
    /// The container's NIS domain name; None keeps what the UTS namespace has.
    pub domainname: Option<String>,
    /// What to run. `start` needs it; a container can be made without.
    pub process: Option<Process>,
    /// The mounts beyond the root, in the order in which they are made.
    pub mounts: Vec<Mount>,
    /// The programs to run at the container's turning points.
    pub hooks: Hooks,
    /// Free text for the engine.
    pub annotations: HashMap<String, String>,
    /// The Linux part.
    pub linux: Linux,
}

impl Config {
    /// Resolves `spec`.
    ///
    /// # Errors
    /// The first field whose value is out of range or contradicts another.
    pub fn from_spec(spec: &Spec) -> Result<Self, FieldError> {
        check_version(spec.version())?;
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| FieldError::new("root", "is missing"))?;
        if root.path().as_os_str().is_empty() {
            return Err(FieldError::new("root.path", "is empty"));
        }
        for key in spec.annotations().iter().flat_map(HashMap::keys) {
            if key.is_empty() {
                return Err(FieldError::new("annotations", "a key is empty"));
            }
        }
        for (field, name) in [
            ("hostname", spec.hostname()),
            ("domainname", spec.domainname()),
        ] {
            check_name(field, name.as_deref().unwrap_or_default())?;
        }
        Ok(Self {
            oci_version: spec.version().clone(),
            root_path: root.path().clone(),
            root_readonly: root.readonly().unwrap_or(false),
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            process: spec
                .process()
                .as_ref()
                .map(Process::from_spec)
                .transpose()?,
            mounts: mounts::from_spec(spec.mounts().as_deref().unwrap_or_default())?,
            hooks: Hooks::from_spec(spec.hooks().as_ref())?,
            annotations: spec.annotations().clone().unwrap_or_default(),
            linux: Linux::from_spec(spec.linux().as_ref())?,
        })
    }
}

/// A configuration says which specification it was written for; any 1.x is served.
fn check_version(version: &str) -> Result<(), FieldError> {
    if version.is_empty() {
        return Err(FieldError::new("ociVersion", "is missing"));
    }
    match version.split('.').next().map(str::parse::<u32>) {
        Some(Ok(1)) if version.splitn(3, '.').count() == 3 => Ok(()),
        Some(Ok(_)) | Some(Err(_)) | None => Err(FieldError::new(
            "ociVersion",
            format!("{version:?} is not a 1.x.y version"),
        )),
    }
}

/// The kernel's longest host name and domain name, in bytes (`__NEW_UTS_LEN`).
const MAX_NAME: usize = 64;

fn check_name(field: &str, name: &str) -> Result<(), FieldError> {
    no_nul(|| field.to_owned(), name)?;
    if name.len() > MAX_NAME {
        let problem = format!("{} bytes, the kernel takes {MAX_NAME}", name.len());
        return Err(FieldError::new(field, problem));
    }
    Ok(())
}

/// Refuses a NUL byte, which no system call can carry.
fn no_nul(field: impl FnOnce() -> String, text: &str) -> Result<(), FieldError> {
    if text.contains('\0') {
        return Err(FieldError::new(field(), "holds a NUL byte"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_configuration_resolves() {
        let config = Config::from_spec(&crate::defaults::spec()).expect("resolves");
        assert!(config.root_readonly);
        assert_eq!(config.mounts.len(), 7);
        assert!(config.process.expect("has a process").terminal);
    }

    #[test]
    fn versions() {
        for good in ["1.0.0", "1.0.2-dev", "1.3.0", "1.2.0+x"] {
            assert_eq!(check_version(good), Ok(()), "{good}");
        }
        for bad in ["", "1", "2.0.0", "x.1.2", "0.9.0"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }
}
