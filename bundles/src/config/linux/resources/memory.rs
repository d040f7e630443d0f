//! `linux.resources.memory`
//!
//! Spec: config-linux.md#configLinuxMemory

use oci_spec::runtime::LinuxMemory;

use super::Limit;
use crate::FieldError;

/// How much memory there may be, and what happens when it is used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `limit`
    pub limit_bytes: Option<Limit>,
    /// `reservation`: what the kernel tries to shrink to when memory is short.
    pub reservation_bytes: Option<Limit>,
    /// `swap`: memory and swap space together.
    pub swap_bytes: Option<Limit>,
    /// `kernel`: the kernel's own memory; gone from kernels since 5.4.
    pub kernel_bytes: Option<Limit>,
    /// `kernelTCP`: buffers of TCP connections.
    pub kernel_tcp_bytes: Option<Limit>,
    /// `swappiness`, 0 to 100.
    pub swappiness_percent: Option<u8>,
    /// `disableOOMKiller`: who asks for too much waits instead of being killed.
    pub disable_oom_killer: bool,
    /// `useHierarchy`
    pub hierarchy: Hierarchy,
    /// `checkBeforeUpdate`: refuse a limit that is below what is in use.
    pub check_before_update: bool,
}

/// Whether the memory of cgroups beneath counts here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hierarchy {
    /// As the parent has it.
    #[default]
    Inherited,
    /// It counts, as it always does on cgroup v2 and on kernels since 5.11.
    Counted,
    /// It does not.
    Separate,
}

impl Memory {
    pub(super) fn from_spec(spec: Option<&LinuxMemory>) -> Result<Self, FieldError> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        let kernel = spec.kernel();
        let bytes = |name: &str, number| Limit::from_optional(&field(name), number, "a byte count");
        let memory = Self {
            limit_bytes: bytes("limit", spec.limit())?,
            reservation_bytes: bytes("reservation", spec.reservation())?,
            swap_bytes: bytes("swap", spec.swap())?,
            kernel_bytes: bytes("kernel", kernel)?,
            kernel_tcp_bytes: bytes("kernelTCP", spec.kernel_tcp())?,
            swappiness_percent: swappiness(spec.swappiness())?,
            disable_oom_killer: spec.disable_oom_killer().unwrap_or(false),
            hierarchy: match spec.use_hierarchy() {
                None => Hierarchy::Inherited,
                Some(true) => Hierarchy::Counted,
                Some(false) => Hierarchy::Separate,
            },
            check_before_update: spec.check_before_update().unwrap_or(false),
        };
        memory.check_swap()?;
        Ok(memory)
    }

    /// Swap is counted together with memory, so it cannot be the smaller of the two.
    fn check_swap(&self) -> Result<(), FieldError> {
        let problem = match (self.limit_bytes, self.swap_bytes) {
            (Some(Limit::Max(limit)), Some(Limit::Max(swap))) if swap < limit => {
                format!("{swap} (memory and swap together) is below memory.limit, {limit}")
            }
            (Some(Limit::Unlimited), Some(Limit::Max(swap))) => {
                format!("{swap} (memory and swap together) is below memory.limit, -1 (unlimited)")
            }
            _ => return Ok(()),
        };
        Err(FieldError::new(field("swap"), problem))
    }
}

fn field(name: &str) -> String {
    format!("linux.resources.memory.{name}")
}

fn swappiness(number: Option<u64>) -> Result<Option<u8>, FieldError> {
    match number {
        // Engines written in Go send -1 through an unsigned field for "not set".
        None | Some(u64::MAX) => Ok(None),
        Some(number) => match u8::try_from(number) {
            Ok(percent) if percent <= 100 => Ok(Some(percent)),
            _ => Err(FieldError::new(
                field("swappiness"),
                format!("{number} is not in 0 to 100"),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::resources;
    use super::*;

    fn memory(json: &str) -> Result<Memory, String> {
        resources(&format!(r#"{{"memory": {json}}}"#)).map(|resources| resources.memory)
    }

    #[test]
    fn values() {
        let read = memory(
            r#"{"limit": 10, "swap": -1, "reservation": 0, "kernelTCP": 5, "swappiness": 60,
                "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true}"#,
        );
        let expected = Memory {
            limit_bytes: Some(Limit::Max(10)),
            swap_bytes: Some(Limit::Unlimited),
            kernel_tcp_bytes: Some(Limit::Max(5)),
            swappiness_percent: Some(60),
            disable_oom_killer: true,
            hierarchy: Hierarchy::Counted,
            check_before_update: true,
            ..Memory::default()
        };
        assert_eq!(read, Ok(expected));
        let unset = memory(r#"{"limit": 0, "swappiness": 18446744073709551615}"#);
        assert_eq!(unset, Ok(Memory::default()));
        let separate = memory(r#"{"useHierarchy": false}"#).expect("is good");
        assert_eq!(separate.hierarchy, Hierarchy::Separate);
    }

    #[test]
    fn refusals() {
        let table = [
            (
                r#"{"limit": -5}"#,
                "limit: -5 is neither a byte count nor -1 (unlimited)",
            ),
            (
                r#"{"kernel": -2}"#,
                "kernel: -2 is neither a byte count nor -1 (unlimited)",
            ),
            (
                r#"{"limit": 100, "swap": 99}"#,
                "swap: 99 (memory and swap together) is below memory.limit, 100",
            ),
            (
                r#"{"limit": -1, "swap": 99}"#,
                "swap: 99 (memory and swap together) is below memory.limit, -1 (unlimited)",
            ),
            (
                r#"{"swappiness": 101}"#,
                "swappiness: 101 is not in 0 to 100",
            ),
        ];
        for (json, expected) in table {
            assert_eq!(
                memory(json),
                Err(format!("linux.resources.memory.{expected}")),
                "{json}"
            );
        }
    }
}
