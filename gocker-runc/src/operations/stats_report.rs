//! The figures of a container in the form in which runc's `events` prints them.
//!
//! What is zero or unknown is left out where runc leaves it out, and is 0 where it prints it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::cgroups::stats::{
    CPUSET_SWITCHES, CpuStats, CpusetStats, HugepageStats, IoCounter, MemoryStats, MemoryUse,
    Pressure, PressureTimes, Stats,
};
use crate::intel_rdt::Stats as RdtStats;

/// Which generation of cgroups the figures come from, whose words for "no limit" differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// The largest multiple of a page.
    V1,
    /// The largest number.
    V2,
}

/// The `data` of an event of type `stats`.
pub(super) fn report(stats: &Stats, generation: Generation, rdt: &RdtStats) -> Value {
    json!({
        "cpu": cpu(&stats.cpu),
        "cpuset": cpuset(&stats.cpuset),
        "memory": memory(&stats.memory, generation),
        "pids": nonzero(&[("current", stats.pids.current), ("limit", stats.pids.limit)]),
        "blkio": block_io(&stats.io, stats.io_pressure.as_ref()),
        "hugetlb": hugepages(&stats.hugepages),
        "intel_rdt": rdt,
        "network_interfaces": null,
    })
}

/// An object of those values that are there and not 0.
fn nonzero(values: &[(&str, Option<u64>)]) -> Map<String, Value> {
    let given = values
        .iter()
        .filter_map(|(name, value)| value.filter(|value| *value != 0).map(|value| (name, value)));
    given
        .map(|(name, value)| ((*name).to_owned(), value.into()))
        .collect()
}

fn insert_pressure(object: &mut Map<String, Value>, pressure: Option<&Pressure>) {
    let times = |times: &PressureTimes| {
        json!({
            "avg10": times.avg10,
            "avg60": times.avg60,
            "avg300": times.avg300,
            "total": times.total_us,
        })
    };
    if let Some(pressure) = pressure {
        let psi = json!({"some": times(&pressure.some), "full": times(&pressure.full)});
        object.insert("psi".into(), psi);
    }
}

fn cpu(cpu: &CpuStats) -> Value {
    let mut usage = nonzero(&[("total", cpu.usage_ns)]);
    for (name, list) in [
        ("percpu", &cpu.per_cpu_ns),
        ("percpu_kernel", &cpu.per_cpu_system_ns),
        ("percpu_user", &cpu.per_cpu_user_ns),
    ] {
        if !list.is_empty() {
            usage.insert(name.into(), json!(list));
        }
    }
    usage.insert("kernel".into(), cpu.system_ns.unwrap_or(0).into());
    usage.insert("user".into(), cpu.user_ns.unwrap_or(0).into());
    let throttling = nonzero(&[
        ("periods", cpu.periods),
        ("throttledPeriods", cpu.throttled_periods),
        ("throttledTime", cpu.throttled_ns),
    ]);
    let mut object = Map::new();
    object.insert("usage".into(), usage.into());
    object.insert("throttling".into(), throttling.into());
    insert_pressure(&mut object, cpu.pressure.as_ref());
    object.into()
}

fn cpuset(cpuset: &CpusetStats) -> Value {
    let mut object = Map::new();
    for (name, list) in [("cpus", &cpuset.cpus), ("mems", &cpuset.mems)] {
        let numbers = numbers(list);
        if !numbers.is_empty() {
            object.insert(name.into(), json!(numbers));
        }
    }
    for name in CPUSET_SWITCHES {
        let value = cpuset.switches.get(name).copied().unwrap_or(0);
        object.insert(name.into(), value.into());
    }
    object.into()
}

/// The numbers of a list such as `0-3,7`.
fn numbers(list: &str) -> Vec<u16> {
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn memory(memory: &MemoryStats, generation: Generation) -> Value {
    let unlimited = match generation {
        Generation::V1 => (1 << 63) - 4096,
        Generation::V2 => u64::MAX,
    };
    let account = |of: &MemoryUse| {
        let mut object = nonzero(&[("usage", of.usage_bytes), ("max", of.peak_bytes)]);
        // An account that the kernel does not keep has no limit of its own, either.
        let is_kept = of.usage_bytes.is_some() || of.failures.is_some();
        let limit = of.limit_bytes.or(is_kept.then_some(unlimited));
        object.insert("limit".into(), limit.unwrap_or(0).into());
        object.insert("failcnt".into(), of.failures.unwrap_or(0).into());
        Value::from(object)
    };
    // The word of either generation for the page cache.
    let cache = match generation {
        Generation::V1 => memory.detail.get("cache"),
        Generation::V2 => memory.detail.get("file"),
    };
    let mut object = nonzero(&[("cache", cache.copied())]);
    object.insert("usage".into(), account(&memory.memory));
    let swap = match generation {
        Generation::V1 => memory.swap,
        Generation::V2 => with_memory(memory),
    };
    object.insert("swap".into(), account(&swap));
    object.insert("kernel".into(), account(&memory.kernel));
    object.insert("kernelTCP".into(), account(&memory.kernel_tcp));
    if !memory.detail.is_empty() {
        object.insert("raw".into(), json!(memory.detail));
    }
    insert_pressure(&mut object, memory.pressure.as_ref());
    object.into()
}

/// v2 counts swap alone; readers expect memory and swap together, as v1 counts.
fn with_memory(memory: &MemoryStats) -> MemoryUse {
    let sum = |swap: Option<u64>, memory: Option<u64>| {
        swap.map(|swap| swap.saturating_add(memory.unwrap_or(0)))
    };
    let (swap, memory) = (memory.swap, memory.memory);
    MemoryUse {
        usage_bytes: sum(swap.usage_bytes, memory.usage_bytes),
        peak_bytes: None,
        limit_bytes: swap
            .limit_bytes
            .zip(memory.limit_bytes)
            .map(|(swap, memory)| swap.saturating_add(memory)),
        failures: swap.failures,
    }
}

fn block_io(counters: &[IoCounter], pressure: Option<&Pressure>) -> Value {
    let mut object = Map::new();
    for counter in counters {
        let (name, operation) = match counter.name.as_str() {
            "io_service_bytes_recursive" => ("ioServiceBytesRecursive", &*counter.operation),
            "io_serviced_recursive" => ("ioServicedRecursive", &*counter.operation),
            "io_queued_recursive" => ("ioQueueRecursive", &*counter.operation),
            "io_service_time_recursive" => ("ioServiceTimeRecursive", &*counter.operation),
            "io_wait_time_recursive" => ("ioWaitTimeRecursive", &*counter.operation),
            "io_merged_recursive" => ("ioMergedRecursive", &*counter.operation),
            "time_recursive" => ("ioTimeRecursive", ""),
            "sectors_recursive" => ("sectorsRecursive", ""),
            "rbytes" => ("ioServiceBytesRecursive", "Read"),
            "wbytes" => ("ioServiceBytesRecursive", "Write"),
            "rios" => ("ioServicedRecursive", "Read"),
            "wios" => ("ioServicedRecursive", "Write"),
            _ => continue,
        };
        let mut entry = nonzero(&[
            ("major", Some(counter.device.0.into())),
            ("minor", Some(counter.device.1.into())),
            ("value", Some(counter.value)),
        ]);
        if !operation.is_empty() {
            entry.insert("op".into(), operation.into());
        }
        let list = object.entry(name).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(entry.into());
        }
    }
    insert_pressure(&mut object, pressure);
    object.into()
}

fn hugepages(sizes: &BTreeMap<String, HugepageStats>) -> Value {
    let size = |(size, stats): (&String, &HugepageStats)| {
        let mut object = nonzero(&[("usage", stats.usage_bytes), ("max", stats.peak_bytes)]);
        object.insert("failcnt".into(), stats.failures.unwrap_or(0).into());
        (size.clone(), Value::from(object))
    };
    sizes.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(numbers("0-2,7"), [0, 1, 2, 7]);
        assert!(numbers("").is_empty() && numbers("x").is_empty());
    }

    #[test]
    fn v1_figures() {
        let stats = Stats {
            cpu: CpuStats {
                usage_ns: Some(9),
                per_cpu_ns: vec![0, 9],
                periods: Some(0),
                ..CpuStats::default()
            },
            memory: MemoryStats {
                memory: MemoryUse {
                    usage_bytes: Some(5),
                    ..MemoryUse::default()
                },
                detail: [("cache".to_owned(), 3)].into(),
                ..MemoryStats::default()
            },
            ..Stats::default()
        };
        let report = report(&stats, Generation::V1, &RdtStats::default());
        assert_eq!(
            report["cpu"],
            json!({"usage": {"total": 9, "percpu": [0, 9], "kernel": 0, "user": 0},
                "throttling": {}})
        );
        assert_eq!(
            report["memory"]["usage"],
            json!({"limit": 9_223_372_036_854_771_712_u64, "usage": 5, "failcnt": 0})
        );
        assert_eq!(report["memory"]["cache"], 3);
        assert_eq!(report["pids"], json!({}));
        assert_eq!(report["network_interfaces"], Value::Null);
    }

    #[test]
    fn v2_figures() {
        let io = |name: &str, value| IoCounter {
            name: name.into(),
            device: (8, 0),
            operation: String::new(),
            value,
        };
        let stats = Stats {
            memory: MemoryStats {
                memory: MemoryUse {
                    usage_bytes: Some(5),
                    limit_bytes: Some(10),
                    ..MemoryUse::default()
                },
                swap: MemoryUse {
                    usage_bytes: Some(2),
                    limit_bytes: Some(20),
                    ..MemoryUse::default()
                },
                pressure: Some(Pressure::default()),
                ..MemoryStats::default()
            },
            io: vec![io("rbytes", 7), io("dbytes", 1), io("wios", 3)],
            ..Stats::default()
        };
        let report = report(&stats, Generation::V2, &RdtStats::default());
        assert_eq!(
            report["memory"]["swap"],
            json!({"limit": 30, "usage": 7, "failcnt": 0})
        );
        assert_eq!(report["memory"]["psi"]["some"]["total"], 0);
        let entry = |op: &str, value: u64| json!([{"major": 8, "op": op, "value": value}]);
        assert_eq!(
            report["blkio"],
            json!({"ioServiceBytesRecursive": entry("Read", 7),
                "ioServicedRecursive": entry("Write", 3)})
        );
    }
}
