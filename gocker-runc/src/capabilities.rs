//! The five capability sets of the container process. `exec` and init build them here and
//! nowhere else: a set forgotten on one of the two ways was CVE-2022-29162.
//!
//! Spec: config.md#linux-process; capabilities(7)

use std::str::FromStr;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use crate::sys::capset::{Sets, capset};
use crate::sys::{CallError, Called};

/// What seccomp(2) asks of who loads a filter and may still gain privileges. (It is of the
/// process's own user namespace.)
const FILTER_RIGHT: u64 = 1 << 21;

/// The five sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct CapabilitySets {
    bounding: CapsHashSet,
    effective: CapsHashSet,
    inheritable: CapsHashSet,
    permitted: CapsHashSet,
    ambient: CapsHashSet,
}

/// What the kernel did not take.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A set, or a flag that decides over one.
    #[error("process.capabilities.{set}")]
    Set {
        /// The set.
        set: &'static str,
        /// The call.
        #[source]
        call: CallError,
    },
    /// A capability that is in one set without being in another.
    #[error("process.capabilities.{set}: {capability} {problem}")]
    Capability {
        /// The set that has it.
        set: &'static str,
        /// The first such.
        capability: Capability,
        /// What is wrong with that.
        problem: &'static str,
        /// The call.
        #[source]
        call: CallError,
    },
    /// The call, for another reason.
    #[error("process.capabilities")]
    Call(#[source] CallError),
}

fn failed(set: &'static str) -> impl FnOnce(CapsError) -> Error {
    move |error| Error::Set {
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

/// Whether the right to load a seccomp filter is kept beyond what the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterRight {
    /// CAP_SYS_ADMIN stays, until [`CapabilitySets::settle`].
    Kept,
    /// It is kept only where the configuration has it.
    Dropped,
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
    pub(crate) fn apply(&self, right: FilterRight) -> Result<(), Error> {
        caps::securebits::set_keepcaps(false).map_err(failed("permitted"))?;
        let mut sets = self.sets();
        // A set that is not within the other is refused below, and not made to fit here.
        if right == FilterRight::Kept {
            sets.permitted |= FILTER_RIGHT;
            sets.effective |= FILTER_RIGHT;
        }
        self.set(sets)?;
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

    /// Drops what [`FilterRight::Kept`] kept. The one system call that this takes is under the
    /// filter that was loaded with it.
    ///
    /// # Errors
    /// capset(2)'s.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        if self.sets().effective & FILTER_RIGHT != 0 {
            return Ok(());
        }
        self.set(self.sets())
    }

    fn sets(&self) -> Sets {
        let bits = |set: &CapsHashSet| set.iter().fold(0, |bits, one| bits | one.bitmask());
        Sets {
            effective: bits(&self.effective),
            permitted: bits(&self.permitted),
            inheritable: bits(&self.inheritable),
        }
    }

    fn set(&self, sets: Sets) -> Result<(), Error> {
        match capset(sets) {
            Err(Errno::EPERM) => Err(self.refused()),
            done => done.called(|| "capset".into()).map_err(Error::Call),
        }
    }

    /// Why the kernel said EPERM.
    fn refused(&self) -> Error {
        let first = |set: &CapsHashSet, within: &CapsHashSet| {
            set.difference(within)
                .copied()
                .min_by_key(Capability::index)
        };
        let eperm = || CallError {
            call: "capset".into(),
            errno: Errno::EPERM,
        };
        let error = |set, capability, problem| Error::Capability {
            set,
            capability,
            problem,
            call: eperm(),
        };
        if let Some(capability) = first(&self.effective, &self.permitted) {
            return error("effective", capability, "is not permitted");
        }
        let own = caps::read(None, CapSet::Permitted).unwrap_or_default();
        for (name, set) in [
            ("permitted", &self.permitted),
            ("inheritable", &self.inheritable),
        ] {
            if let Some(capability) = first(set, &own) {
                return error(name, capability, "is none that the runtime has to give");
            }
        }
        Error::Call(eperm())
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
    fn sets_are_bits_and_what_is_wrong_with_them_is_named() {
        let given = r#"{"effective":["CAP_CHOWN","CAP_KILL"],"permitted":["CAP_CHOWN"]}"#;
        let mut capabilities: LinuxCapabilities = serde_json::from_str(given).expect("JSON");
        let sets = CapabilitySets::new(Some(&capabilities));
        assert_eq!((sets.sets().effective, sets.sets().permitted), (0x21, 1));
        assert_eq!(
            sets.refused().to_string(),
            "process.capabilities.effective: CAP_KILL is not permitted"
        );
        assert_eq!(Capability::CAP_SYS_ADMIN.bitmask(), FILTER_RIGHT);
        capabilities.set_effective(None);
        assert_eq!(CapabilitySets::new(Some(&capabilities)).sets().effective, 0);
    }

    #[test]
    fn names_are_in_the_kernels_order() {
        assert_eq!(known_names().first().map(String::as_str), Some("CAP_CHOWN"));
        assert_eq!(known_names().len(), 41);
    }
}
