//! `linux.memoryPolicy`: which NUMA nodes the container's memory comes from.
//!
//! Spec: config-linux.md#memory-policy; set_mempolicy(2)

use bundles::FieldError;
use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};
use serde::{Deserialize, Serialize};

use crate::sys::mempolicy::set_mempolicy;
use crate::sys::{CallError, Called};

/// A policy as the kernel takes it; children and the programs that they execute inherit it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryPolicy {
    /// The mode, and flags above it.
    mode: i32,
    /// A bit for each node.
    nodes: Vec<u64>,
}

/// A policy that the kernel does not take.
#[derive(Debug, thiserror::Error)]
#[error("linux.memoryPolicy")]
pub(crate) struct Error(#[source] CallError);

/// The kernel's `MAX_NUMNODES` is at most this.
const NODES: u32 = 1024;

const STATIC_NODES: i32 = 1 << 15;
const RELATIVE_NODES: i32 = 1 << 14;
const NUMA_BALANCING: i32 = 1 << 13;

/// Whether a mode goes with nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    Needed,
    Possible,
    Forbidden,
}

impl MemoryPolicy {
    /// Reads the section.
    ///
    /// # Errors
    /// A list of nodes that is none, or that the mode needs or cannot have; flags that exclude
    /// one another.
    pub(crate) fn new(spec: &LinuxMemoryPolicy) -> Result<Self, FieldError> {
        let (mode, name, wanted) = mode(spec.mode());
        let list = spec.nodes().as_deref().unwrap_or_default().trim();
        let refuse = |field: &str, problem: String| {
            FieldError::new(format!("linux.memoryPolicy.{field}"), problem)
        };
        match (wanted, list) {
            (Nodes::Needed, "") => {
                return Err(refuse("nodes", format!("is missing, and {name} needs it")));
            }
            (Nodes::Forbidden, list) if !list.is_empty() => {
                return Err(refuse(
                    "nodes",
                    format!("{list:?} cannot be combined with {name}"),
                ));
            }
            _ => (),
        }
        let nodes = parse(list).ok_or_else(|| {
            let most = NODES - 1;
            refuse(
                "nodes",
                format!("{list:?} is no list of nodes from 0 to {most}, as 0-1,3 is one"),
            )
        })?;
        let flags = spec.flags().as_deref().unwrap_or_default();
        let flags = flags.iter().fold(0, |all, flag| all | bit(*flag).0);
        if flags & STATIC_NODES != 0 && flags & RELATIVE_NODES != 0 {
            let problem = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
            return Err(refuse("flags", problem.into()));
        }
        Ok(Self {
            mode: mode | flags,
            nodes,
        })
    }

    /// Sets it for this process and those that it makes.
    ///
    /// Runs in: the container's cgroups, before the seccomp filter.
    ///
    /// # Errors
    /// EINVAL for what this kernel does not know, or nodes that it does not have.
    pub(crate) fn set(&self) -> Result<(), Error> {
        set_mempolicy(self.mode, &self.nodes)
            .called(|| format!("set_mempolicy({:#x}, {:x?})", self.mode, self.nodes))
            .map_err(Error)
    }
}

fn mode(mode: MemoryPolicyModeType) -> (i32, &'static str, Nodes) {
    match mode {
        MemoryPolicyModeType::MpolDefault => (0, "MPOL_DEFAULT", Nodes::Forbidden),
        MemoryPolicyModeType::MpolPreferred => (1, "MPOL_PREFERRED", Nodes::Possible),
        MemoryPolicyModeType::MpolBind => (2, "MPOL_BIND", Nodes::Needed),
        MemoryPolicyModeType::MpolInterleave => (3, "MPOL_INTERLEAVE", Nodes::Needed),
        MemoryPolicyModeType::MpolLocal => (4, "MPOL_LOCAL", Nodes::Forbidden),
        MemoryPolicyModeType::MpolPreferredMany => (5, "MPOL_PREFERRED_MANY", Nodes::Needed),
        MemoryPolicyModeType::MpolWeightedInterleave => {
            (6, "MPOL_WEIGHTED_INTERLEAVE", Nodes::Needed)
        }
    }
}

fn bit(flag: MemoryPolicyFlagType) -> (i32, &'static str) {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => (NUMA_BALANCING, "MPOL_F_NUMA_BALANCING"),
        MemoryPolicyFlagType::MpolFRelativeNodes => (RELATIVE_NODES, "MPOL_F_RELATIVE_NODES"),
        MemoryPolicyFlagType::MpolFStaticNodes => (STATIC_NODES, "MPOL_F_STATIC_NODES"),
    }
}

/// The names of the modes that a configuration may use, for `features`.
pub(crate) fn known_modes() -> Vec<&'static str> {
    MODES.iter().map(|known| mode(*known).1).collect()
}

/// The names of the flags that a configuration may use, for `features`.
pub(crate) fn known_flags() -> Vec<&'static str> {
    FLAGS.iter().map(|known| bit(*known).1).collect()
}

const MODES: [MemoryPolicyModeType; 7] = [
    MemoryPolicyModeType::MpolDefault,
    MemoryPolicyModeType::MpolBind,
    MemoryPolicyModeType::MpolInterleave,
    MemoryPolicyModeType::MpolWeightedInterleave,
    MemoryPolicyModeType::MpolPreferred,
    MemoryPolicyModeType::MpolPreferredMany,
    MemoryPolicyModeType::MpolLocal,
];

const FLAGS: [MemoryPolicyFlagType; 3] = [
    MemoryPolicyFlagType::MpolFNumaBalancing,
    MemoryPolicyFlagType::MpolFRelativeNodes,
    MemoryPolicyFlagType::MpolFStaticNodes,
];

/// A list such as `0-1,3` as bits; None for what is no list.
fn parse(list: &str) -> Option<Vec<u64>> {
    let mut words = Vec::new();
    for part in list.split(',').map(str::trim).filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= NODES {
            return None;
        }
        for node in first..=last {
            let word = usize::try_from(node / 64).ok()?;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            *words.get_mut(word)? |= 1_u64 << (node % 64);
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<(i32, Vec<u64>), String> {
        let spec: LinuxMemoryPolicy = serde_json::from_str(json).expect("is well-formed");
        let policy = MemoryPolicy::new(&spec).map_err(|error| error.to_string())?;
        Ok((policy.mode, policy.nodes))
    }

    #[test]
    fn policies() {
        for (json, expected) in [
            (r#"{"mode": "MPOL_DEFAULT"}"#, (0, vec![])),
            (r#"{"mode": "MPOL_LOCAL", "nodes": ""}"#, (4, vec![])),
            (r#"{"mode": "MPOL_PREFERRED"}"#, (1, vec![])),
            (
                r#"{"mode": "MPOL_BIND", "nodes": "0-1,3"}"#,
                (2, vec![0b1011]),
            ),
            (
                r#"{"mode": "MPOL_INTERLEAVE", "nodes": "64"}"#,
                (3, vec![0, 1]),
            ),
            (
                r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]}"#,
                (2 | STATIC_NODES | NUMA_BALANCING, vec![1]),
            ),
        ] {
            assert_eq!(of(json), Ok(expected), "{json}");
        }
        for name in known_modes() {
            let json = format!(r#"{{"mode": "{name}"}}"#);
            serde_json::from_str::<LinuxMemoryPolicy>(&json).expect(name);
        }
    }

    #[test]
    fn what_is_no_policy() {
        for (json, expected) in [
            (
                r#"{"mode": "MPOL_BIND"}"#,
                "nodes: is missing, and MPOL_BIND needs it",
            ),
            (
                r#"{"mode": "MPOL_LOCAL", "nodes": "0"}"#,
                "nodes: \"0\" cannot be combined with MPOL_LOCAL",
            ),
            (
                r#"{"mode": "MPOL_BIND", "nodes": "3-1"}"#,
                "nodes: \"3-1\" is no list of nodes from 0 to 1023, as 0-1,3 is one",
            ),
            (
                r#"{"mode": "MPOL_BIND", "nodes": "1024"}"#,
                "nodes: \"1024\" is no list of nodes from 0 to 1023, as 0-1,3 is one",
            ),
            (
                r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}"#,
                "flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
            ),
        ] {
            assert_eq!(
                of(json),
                Err(format!("linux.memoryPolicy.{expected}")),
                "{json}"
            );
        }
    }
}
