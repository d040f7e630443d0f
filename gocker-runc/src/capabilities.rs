//! The five capability sets of the container process. `exec` and init build them here and
//! nowhere else: a set forgotten on one of the two ways was CVE-2022-29162.
//!
//! Spec: config.md#linux-process; capabilities(7)

use std::str::FromStr;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use crate::sys::CallError;

/// The five sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct CapabilitySets {
    bounding: CapsHashSet,
    effective: CapsHashSet,
    inheritable: CapsHashSet,
    permitted: CapsHashSet,
    ambient: CapsHashSet,
}

/// A set that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("process.capabilities.{set}")]
pub(crate) struct Error {
    set: &'static str,
    #[source]
    call: CallError,
}

fn failed(set: &'static str) -> impl FnOnce(CapsError) -> Error {
    move |error| Error {
        set,
        call: call_of(&error.to_string()),
    }
}

/// The call and its answer out of the crate's sentence, which is all that it keeps of them:
/// `caps error: capset failure: Operation not permitted (os error 1)`.
fn call_of(text: &str) -> CallError {
    let call = text.split_once(" failure").map_or(text, |(call, _)| call);
    let number = text.rsplit_once("(os error ").map_or("", |(_, rest)| rest);
    let number = number.trim_end_matches(')').parse();
    CallError {
        call: call.trim_start_matches("caps error: ").to_owned(),
        errno: number.map_or(Errno::UnknownErrno, Errno::from_raw),
    }
}

impl CapabilitySets {
    /// Reads `process.capabilities`; none at all means five empty sets.
    pub(crate) fn new(capabilities: Option<&LinuxCapabilities>) -> Self {
        let Some(capabilities) = capabilities else {
            return Self::default();
        };
        Self {
            bounding: set(capabilities.bounding().as_ref()),
            effective: set(capabilities.effective().as_ref()),
            inheritable: set(capabilities.inheritable().as_ref()),
            permitted: set(capabilities.permitted().as_ref()),
            ambient: set(capabilities.ambient().as_ref()),
        }
    }

    /// Drops from the bounding set what is not in ours, while CAP_SETPCAP is still there, and
    /// lets the permitted set survive the change of user.
    ///
    /// # Errors
    /// prctl(2)'s.
    pub(crate) fn limit_bounding(&self) -> Result<(), Error> {
        for capability in caps::all() {
            if self.bounding.contains(&capability) {
                continue;
            }
            // One that this kernel does not know cannot be in the set.
            if let Ok(true) = caps::has_cap(None, CapSet::Bounding, capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed("bounding"))?;
            }
        }
        caps::securebits::set_keepcaps(true).map_err(failed("permitted"))
    }

    /// Sets the other four, after the change of user.
    ///
    /// # Errors
    /// capset(2)'s and prctl(2)'s; EPERM for a capability that the runtime lacks.
    pub(crate) fn apply(&self) -> Result<(), Error> {
        caps::securebits::set_keepcaps(false).map_err(failed("permitted"))?;
        // Inheritable first, while nothing is lost that raising it may need; effective must
        // be inside permitted at each moment, so it shrinks first.
        caps::set(None, CapSet::Inheritable, &self.inheritable).map_err(failed("inheritable"))?;
        caps::set(None, CapSet::Effective, &self.effective).map_err(failed("effective"))?;
        caps::set(None, CapSet::Permitted, &self.permitted).map_err(failed("permitted"))?;
        caps::clear(None, CapSet::Ambient).map_err(failed("ambient"))?;
        for capability in &self.ambient {
            // The kernel takes it only from permitted and inheritable; runc warns and goes on
            // where it is in neither, and configurations that rely on that are common.
            if self.permitted.contains(capability) && self.inheritable.contains(capability) {
                caps::raise(None, CapSet::Ambient, *capability).map_err(failed("ambient"))?;
            }
        }
        Ok(())
    }

    /// Whether the process keeps `capability` in effect.
    pub(crate) fn is_effective(&self, capability: Capability) -> bool {
        self.effective.contains(&capability)
    }
}

fn set(capabilities: Option<&Capabilities>) -> CapsHashSet {
    let known = |capability: &oci_spec::runtime::Capability| {
        Capability::from_str(&format!("CAP_{capability}")).ok()
    };
    capabilities
        .into_iter()
        .flatten()
        .filter_map(known)
        .collect()
}

/// The names of all capabilities that are known here, for `features`.
pub(crate) fn known_names() -> Vec<String> {
    let mut all: Vec<Capability> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(Capability::index);
    all.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_spec_is_known_to_the_kernels_list() {
        let all = r#"{"bounding":["CAP_CHOWN","CAP_CHECKPOINT_RESTORE","CAP_BPF","CAP_PERFMON","CAP_AUDIT_READ","CAP_SYS_ADMIN"]}"#;
        let capabilities: LinuxCapabilities = serde_json::from_str(all).expect("JSON");
        let sets = CapabilitySets::new(Some(&capabilities));
        assert_eq!(sets.bounding.len(), 6);
        assert!(sets.effective.is_empty());
    }

    #[test]
    fn a_refusal_is_told_by_its_errno() {
        let error = CapsError::from(format!(
            "capset failure: {}",
            std::io::Error::from_raw_os_error(1)
        ));
        assert_eq!(
            call_of(&error.to_string()).to_string(),
            "capset: operation not permitted (EPERM)"
        );
    }

    #[test]
    fn names_are_in_the_kernels_order() {
        assert_eq!(known_names().first().map(String::as_str), Some("CAP_CHOWN"));
        assert_eq!(known_names().len(), 41);
    }
}
