//! `linux.resources`: what a container may use, checked and in plain types.
//!
//! ```text
//! Resources
//!     devices    ordered rules; the last one that matches an access decides
//!     memory     bytes
//!     cpu        microseconds, relative shares, lists of processors
//!     pids       tasks
//!     block_io   weights, bytes and operations per second
//!     hugepages  bytes per page size
//!     network    the class and the priorities of packets
//!     rdma       handles and objects per device
//!     unified    files of cgroup v2 by name
//! ```
//!
//! `None` always means that the kernel's value stays as it is. Engines write 0 where they mean
//! "not set" for memory sizes, CPU shares, quota and period, and weights; so 0 is None there,
//! while it is a value everywhere else.
//!
//! Spec: config-linux.md#configLinuxCgroups

pub mod block_io;
pub mod cpu;
pub mod devices;
pub mod hugepages;
pub mod memory;
pub mod network;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use oci_spec::runtime::{LinuxPids, LinuxRdma, LinuxResources};

use crate::FieldError;
pub use block_io::BlockIo;
pub use cpu::Cpu;
pub use devices::{DeviceAccess, DeviceKind, DeviceRule};
pub use hugepages::HugepageLimit;
pub use memory::Memory;
pub use network::Network;

/// Everything that `linux.resources` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `devices`, in order.
    pub devices: Vec<DeviceRule>,
    /// `memory`
    pub memory: Memory,
    /// `cpu`
    pub cpu: Cpu,
    /// `pids.limit`: how many tasks there may be. A limit of 0 forbids every new task.
    pub pids_limit: Option<Limit>,
    /// `blockIO`
    pub block_io: BlockIo,
    /// `hugepageLimits`, in order.
    pub hugepages: Vec<HugepageLimit>,
    /// `network`
    pub network: Network,
    /// `rdma`, by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// `unified`: the value to write, by name of a cgroup v2 file.
    pub unified: BTreeMap<String, String>,
}

/// A ceiling that can be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No ceiling; -1 in the configuration.
    Unlimited,
    /// At most so many.
    Max(u64),
}

/// What one RDMA device may give out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rdma {
    /// `hcaHandles`
    pub hca_handles: Option<u32>,
    /// `hcaObjects`
    pub hca_objects: Option<u32>,
}

impl Resources {
    /// Resolves the section of a configuration; a missing section asks for nothing.
    ///
    /// # Errors
    /// The first field that is out of range or contradicts another.
    pub fn from_spec(spec: Option<&LinuxResources>) -> Result<Self, FieldError> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        Ok(Self {
            devices: devices::from_spec(spec.devices().as_deref().unwrap_or_default())?,
            memory: Memory::from_spec(spec.memory().as_ref())?,
            cpu: Cpu::from_spec(spec.cpu().as_ref())?,
            pids_limit: spec.pids().as_ref().map(pids_limit).transpose()?,
            block_io: BlockIo::from_spec(spec.block_io().as_ref())?,
            hugepages: hugepages::from_spec(spec.hugepage_limits().as_deref().unwrap_or_default())?,
            network: Network::from_spec(spec.network().as_ref())?,
            rdma: spec
                .rdma()
                .as_ref()
                .map(rdma)
                .transpose()?
                .unwrap_or_default(),
            unified: spec
                .unified()
                .as_ref()
                .map(unified)
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

impl Limit {
    /// Reads a number in which -1 stands for no limit.
    fn from_number(field: &str, number: i64, unit: &str) -> Result<Self, FieldError> {
        match u64::try_from(number) {
            Ok(max) => Ok(Self::Max(max)),
            Err(_) if number == -1 => Ok(Self::Unlimited),
            Err(_) => {
                let problem = format!("{number} is neither {unit} nor -1 (unlimited)");
                Err(FieldError::new(field, problem))
            }
        }
    }

    /// As [`Self::from_number`], where 0 means that nothing is asked for.
    fn from_optional(
        field: &str,
        number: Option<i64>,
        unit: &str,
    ) -> Result<Option<Self>, FieldError> {
        let number = number.filter(|number| *number != 0);
        number
            .map(|number| Self::from_number(field, number, unit))
            .transpose()
    }

    /// The limit, where there is one.
    #[must_use]
    pub fn max(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Max(max) => Some(max),
        }
    }
}

/// Displays as cgroup v2 writes it: `max` or the number.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("max"),
            Self::Max(max) => max.fmt(f),
        }
    }
}

fn pids_limit(spec: &LinuxPids) -> Result<Limit, FieldError> {
    Limit::from_number("linux.resources.pids.limit", spec.limit(), "a count")
}

fn rdma(spec: &HashMap<String, LinuxRdma>) -> Result<BTreeMap<String, Rdma>, FieldError> {
    let mut devices = BTreeMap::new();
    for (name, limits) in spec {
        // The file's lines are `DEVICE hca_handle=N hca_object=N`.
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0') {
            let field = format!("linux.resources.rdma[{name:?}]");
            return Err(FieldError::new(field, "is not the name of a device"));
        }
        let limits = Rdma {
            hca_handles: limits.hca_handles(),
            hca_objects: limits.hca_objects(),
        };
        devices.insert(name.clone(), limits);
    }
    Ok(devices)
}

fn unified(spec: &HashMap<String, String>) -> Result<BTreeMap<String, String>, FieldError> {
    for (name, value) in spec {
        let refuse = |problem: &str| {
            Err(FieldError::new(
                format!("linux.resources.unified[{name:?}]"),
                problem,
            ))
        };
        if name.contains(['/', '\0']) {
            return refuse("is not a file name");
        }
        let has_parts = name
            .split_once('.')
            .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        if !has_parts {
            return refuse("is not of the form CONTROLLER.PARAMETER");
        }
        // These move or end processes, or change what kind of cgroup it is; they limit nothing.
        if name.starts_with("cgroup.") && !matches!(name.as_str(), CGROUP_MAX_DEPTH | CGROUP_MAX) {
            return refuse("is not a resource");
        }
        if value.contains('\0') {
            return refuse("has a value with a NUL byte");
        }
    }
    Ok(spec.clone().into_iter().collect())
}

const CGROUP_MAX_DEPTH: &str = "cgroup.max.depth";
const CGROUP_MAX: &str = "cgroup.max.descendants";

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the JSON text of a `linux.resources` section.
    pub(super) fn resources(json: &str) -> Result<Resources, String> {
        let spec = serde_json::from_str(json).expect("the section is well-formed");
        Resources::from_spec(Some(&spec)).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_asked_is_nothing_carried() {
        assert_eq!(Resources::from_spec(None), Ok(Resources::default()));
        assert_eq!(resources("{}"), Ok(Resources::default()));
    }

    #[test]
    fn pids() {
        let table = [
            (r#"{"pids": {"limit": 5}}"#, Ok(Some(Limit::Max(5)))),
            (r#"{"pids": {"limit": 0}}"#, Ok(Some(Limit::Max(0)))),
            (r#"{"pids": {"limit": -1}}"#, Ok(Some(Limit::Unlimited))),
            (
                r#"{"pids": {"limit": -7}}"#,
                Err("linux.resources.pids.limit: -7 is neither a count nor -1 (unlimited)".into()),
            ),
        ];
        for (json, expected) in table {
            assert_eq!(resources(json).map(|r| r.pids_limit), expected, "{json}");
        }
    }

    #[test]
    fn rdma_devices() {
        let read = resources(r#"{"rdma": {"mlx5_1": {"hcaHandles": 3}}}"#).expect("is good");
        let expected = Rdma {
            hca_handles: Some(3),
            hca_objects: None,
        };
        assert_eq!(
            read.rdma.into_iter().collect::<Vec<_>>(),
            [("mlx5_1".to_owned(), expected)]
        );
        for name in ["", "a b", "a\\nb"] {
            resources(&format!(r#"{{"rdma": {{"{name}": {{}}}}}}"#)).expect_err(name);
        }
    }

    #[test]
    fn unified_names() {
        for good in [
            "memory.high",
            "io.max",
            "hugetlb.2MB.max",
            "cgroup.max.descendants",
        ] {
            let read = resources(&format!(r#"{{"unified": {{"{good}": "1"}}}}"#));
            assert_eq!(read.expect(good).unified[good], "1");
        }
        let table = [
            ("../memory.max", "is not a file name"),
            ("memory", "is not of the form CONTROLLER.PARAMETER"),
            (".max", "is not of the form CONTROLLER.PARAMETER"),
            ("cgroup.procs", "is not a resource"),
            ("cgroup.kill", "is not a resource"),
        ];
        for (name, problem) in table {
            let error = resources(&format!(r#"{{"unified": {{"{name}": "1"}}}}"#));
            let expected = format!("linux.resources.unified[{name:?}]: {problem}");
            assert_eq!(error.expect_err(name), expected);
        }
    }
}
