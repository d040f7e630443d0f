//! What a configuration asks of each controller, so that it can be refused before anything is
//! made.

use bundles::FieldError;
use bundles::config::linux::resources::{BlockIo, Cpu, Limit, Memory, Resources};

/// A field that needs a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// The controller's name on cgroup v1.
    pub(super) v1: &'static str,
    /// Its name on v2; None where v2 has nothing like it.
    pub(super) v2: Option<&'static str>,
    /// The first field that asks for it, beneath `linux.resources`.
    pub(super) field: &'static str,
}

/// The controllers that `resources` needs, each with the first field that asks for it.
pub(super) fn demands(resources: &Resources) -> Vec<Demand> {
    let demand = |v1, v2, field: Option<&'static str>| field.map(|field| Demand { v1, v2, field });
    let network = &resources.network;
    let hugepages = (!resources.hugepages.is_empty()).then_some("hugepageLimits");
    [
        demand("memory", Some("memory"), memory_field(&resources.memory)),
        demand("cpu", Some("cpu"), cpu_field(&resources.cpu)),
        demand("cpuset", Some("cpuset"), cpuset_field(&resources.cpu)),
        demand(
            "pids",
            Some("pids"),
            resources.pids_limit.map(|_| "pids.limit"),
        ),
        demand("blkio", Some("io"), block_io_field(&resources.block_io)),
        demand("hugetlb", Some("hugetlb"), hugepages),
        demand("net_cls", None, network.class_id.map(|_| "network.classID")),
        demand(
            "net_prio",
            None,
            network.priorities.first().map(|_| "network.priorities"),
        ),
        demand(
            "rdma",
            Some("rdma"),
            resources.rdma.first_key_value().map(|_| "rdma"),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Refuses what makes sense only as a change to what is already set.
pub(super) fn check_new(resources: &Resources) -> Result<(), FieldError> {
    match (resources.memory.limit_bytes, resources.memory.swap_bytes) {
        (None, Some(Limit::Max(_))) => Err(refuse(
            "memory.swap",
            "counts memory and swap together, and needs memory.limit beside it",
        )),
        _ => Ok(()),
    }
}

/// An error that names a field beneath `linux.resources`.
pub(super) fn refuse(field: &str, problem: impl Into<String>) -> FieldError {
    FieldError::new(format!("linux.resources.{field}"), problem)
}

fn memory_field(memory: &Memory) -> Option<&'static str> {
    use bundles::config::linux::resources::memory::Hierarchy;
    first(&[
        ("memory.limit", memory.limit_bytes.is_some()),
        ("memory.reservation", memory.reservation_bytes.is_some()),
        ("memory.swap", memory.swap_bytes.is_some()),
        ("memory.kernel", memory.kernel_bytes.is_some()),
        ("memory.kernelTCP", memory.kernel_tcp_bytes.is_some()),
        ("memory.swappiness", memory.swappiness_percent.is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer),
        (
            "memory.useHierarchy",
            memory.hierarchy == Hierarchy::Separate,
        ),
    ])
}

fn cpu_field(cpu: &Cpu) -> Option<&'static str> {
    first(&[
        ("cpu.shares", cpu.shares.is_some()),
        ("cpu.quota", cpu.quota_us.is_some()),
        ("cpu.burst", cpu.burst_us.is_some()),
        ("cpu.period", cpu.period_us.is_some()),
        ("cpu.realtimeRuntime", cpu.realtime_runtime_us.is_some()),
        ("cpu.realtimePeriod", cpu.realtime_period_us.is_some()),
        ("cpu.idle", cpu.idle.is_some()),
    ])
}

fn cpuset_field(cpu: &Cpu) -> Option<&'static str> {
    first(&[
        ("cpu.cpus", cpu.cpus.is_some()),
        ("cpu.mems", cpu.mems.is_some()),
    ])
}

fn block_io_field(io: &BlockIo) -> Option<&'static str> {
    first(&[
        ("blockIO.weight", io.weight.is_some()),
        ("blockIO.leafWeight", io.leaf_weight.is_some()),
        ("blockIO.weightDevice", !io.weight_devices.is_empty()),
        ("blockIO.throttleReadBpsDevice", !io.read_bps.is_empty()),
        ("blockIO.throttleWriteBpsDevice", !io.write_bps.is_empty()),
        ("blockIO.throttleReadIOPSDevice", !io.read_iops.is_empty()),
        ("blockIO.throttleWriteIOPSDevice", !io.write_iops.is_empty()),
    ])
}

/// The first field that asks for something.
fn first(fields: &[(&'static str, bool)]) -> Option<&'static str> {
    fields
        .iter()
        .find(|(_, asked)| *asked)
        .map(|(field, _)| *field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_asks_for_its_controller() {
        assert_eq!(demands(&Resources::default()), []);
        let resources = Resources {
            memory: Memory {
                swappiness_percent: Some(3),
                ..Memory::default()
            },
            cpu: Cpu {
                mems: Some("0".into()),
                ..Cpu::default()
            },
            pids_limit: Some(Limit::Unlimited),
            ..Resources::default()
        };
        let found: Vec<_> = demands(&resources)
            .iter()
            .map(|demand| (demand.v1, demand.field))
            .collect();
        let expected = [
            ("memory", "memory.swappiness"),
            ("cpuset", "cpu.mems"),
            ("pids", "pids.limit"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn swap_without_memory_is_refused_for_a_new_cgroup() {
        let resources = |swap| Resources {
            memory: Memory {
                swap_bytes: Some(swap),
                ..Memory::default()
            },
            ..Resources::default()
        };
        assert_eq!(check_new(&resources(Limit::Unlimited)), Ok(()));
        check_new(&resources(Limit::Max(5))).expect_err("has no limit beside it");
    }
}
