//! The labels of the Linux security modules that the program gets at execve(2), and SELinux's
//! label of the session keyring.
//!
//! They are written to the calling thread's own `/proc/thread-self/attr`, through a procfs that
//! nobody else can mount over: a label that went to another file is a process without one
//! (CVE-2019-16884, CVE-2025-52881).
//!
//! Spec: config.md#linux-process, `apparmorProfile` and `selinuxLabel`

use std::fs;

use bundles::FieldError;
use bundles::config::process::Process;
use nix::errno::Errno;
use nix::sys::statfs::{FsType, statfs};

use crate::sys::CallError;
use crate::sys::procfs::ProcFd;

/// What the configuration asks of the security modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    apparmor_profile: Option<String>,
    selinux_label: Option<String>,
}

/// A label that the kernel did not take.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The profile is not loaded, or may not be changed to.
    #[error("process.apparmorProfile: {profile:?}")]
    Profile {
        /// The profile.
        profile: String,
        /// The call.
        source: CallError,
    },
    /// The label is none of the policy's, or may not be taken.
    #[error("process.selinuxLabel: {label:?}")]
    Label {
        /// The label.
        label: String,
        /// The call.
        source: CallError,
    },
}

/// linux/magic.h: `SELINUX_MAGIC`.
const SELINUX_MAGIC: u32 = 0xf97c_ff8c;

impl Labels {
    /// Takes the labels of `process`.
    ///
    /// # Errors
    /// The field whose security module this machine does not run.
    pub(crate) fn new(process: &Process) -> Result<Self, FieldError> {
        let labels = Self {
            apparmor_profile: process.apparmor_profile.clone(),
            selinux_label: process.selinux_label.clone(),
        };
        if labels.apparmor_profile.is_some() && !has_apparmor() {
            let problem = "is given, and AppArmor is not enabled on this machine";
            return Err(FieldError::new("process.apparmorProfile", problem));
        }
        if labels.selinux_label.is_some() && !has_selinux() {
            let problem = "is given, and SELinux is not enabled on this machine";
            return Err(FieldError::new("process.selinuxLabel", problem));
        }
        Ok(labels)
    }

    /// Whether there is anything to write.
    pub(crate) fn are_given(&self) -> bool {
        self.apparmor_profile.is_some() || self.selinux_label.is_some()
    }

    /// Has the program that this thread executes next labelled.
    ///
    /// Runs in: container namespace, before the user changes and a filter is loaded.
    ///
    /// # Errors
    /// The field, and the kernel's answer.
    pub(crate) fn apply_at_exec(&self, proc: &ProcFd) -> Result<(), Error> {
        if let Some(profile) = &self.apparmor_profile {
            let value = format!("exec {profile}");
            // AppArmor's own file, which kernels before 5.8 lack.
            let written = match proc.write("thread-self/attr/apparmor/exec", value.as_bytes()) {
                Err(error) if error.errno == Errno::ENOENT && error.call.starts_with("open") => {
                    proc.write("thread-self/attr/exec", value.as_bytes())
                }
                written => written,
            };
            written.map_err(|source| Error::Profile {
                profile: profile.clone(),
                source,
            })?;
        }
        self.write_selinux(proc, "thread-self/attr/exec")
    }

    /// Has the keyring that this thread makes next labelled; execve(2) ends that.
    ///
    /// # Errors
    /// As [`Self::apply_at_exec`].
    pub(crate) fn apply_to_keys(&self, proc: &ProcFd) -> Result<(), Error> {
        self.write_selinux(proc, "thread-self/attr/keycreate")
    }

    fn write_selinux(&self, proc: &ProcFd, path: &str) -> Result<(), Error> {
        let Some(label) = &self.selinux_label else {
            return Ok(());
        };
        let written = proc.write(path, label.as_bytes());
        written.map_err(|source| Error::Label {
            label: label.clone(),
            source,
        })
    }
}

/// Refuses `linux.mountLabel` where no security module gives it a meaning.
///
/// # Errors
/// The field.
pub(crate) fn check_mount_label(label: Option<&str>) -> Result<(), FieldError> {
    if label.is_some() && !has_selinux() {
        let problem = "is given, and SELinux is not enabled on this machine";
        return Err(FieldError::new("linux.mountLabel", problem));
    }
    Ok(())
}

fn has_apparmor() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn has_selinux() -> bool {
    statfs("/sys/fs/selinux").is_ok_and(|stat| {
        let FsType(kind) = stat.filesystem_type();
        // The type's width differs between architectures.
        u32::try_from(kind & 0xffff_ffff) == Ok(SELINUX_MAGIC)
    })
}
