//! What a container uses: numbers read from its cgroup, in the kernel's own units.
//!
//! Every number is an Option: None where this kernel or layout does not count it.

use std::collections::BTreeMap;
use std::path::Path;

use nix::errno::Errno;

use super::v1::Hierarchies;
use super::{Error, files};

/// All numbers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Processor time.
    pub(crate) cpu: CpuStats,
    /// Memory.
    pub(crate) memory: MemoryStats,
    /// Where it may run; v1 only.
    pub(crate) cpuset: CpusetStats,
    /// Tasks.
    pub(crate) pids: PidsStats,
    /// Block devices: lines of counters, one for each device and operation.
    pub(crate) io: Vec<IoCounter>,
    /// v2: who waited for block devices.
    pub(crate) io_pressure: Option<Pressure>,
    /// Huge pages, by page size.
    pub(crate) hugepages: BTreeMap<String, HugepageStats>,
}

/// Processor time, and how often the quota held the container back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuStats {
    /// In all, nanoseconds.
    pub(crate) usage_ns: Option<u64>,
    /// In programs, nanoseconds.
    pub(crate) user_ns: Option<u64>,
    /// In the kernel, nanoseconds.
    pub(crate) system_ns: Option<u64>,
    /// On each processor, nanoseconds; v1 only.
    pub(crate) per_cpu_ns: Vec<u64>,
    /// The part of it in programs.
    pub(crate) per_cpu_user_ns: Vec<u64>,
    /// The part of it in the kernel.
    pub(crate) per_cpu_system_ns: Vec<u64>,
    /// Periods of the quota so far.
    pub(crate) periods: Option<u64>,
    /// Periods in which the quota was used up.
    pub(crate) throttled_periods: Option<u64>,
    /// How long the container was held back, nanoseconds.
    pub(crate) throttled_ns: Option<u64>,
    /// v2: who waited for the processor.
    pub(crate) pressure: Option<Pressure>,
}

/// The switches of cpuset that runc's events name; v1 has a file `cpuset.NAME` for each.
pub(crate) const CPUSET_SWITCHES: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

/// The processors and memory nodes, and the switches beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpusetStats {
    /// A list such as `0-3,7`.
    pub(crate) cpus: String,
    /// The same of memory nodes.
    pub(crate) mems: String,
    /// The other files of the controller that hold a number, by name.
    pub(crate) switches: BTreeMap<&'static str, i64>,
}

/// Memory in use against its limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryStats {
    /// Memory.
    pub(crate) memory: MemoryUse,
    /// v1: memory and swap together. v2: swap alone.
    pub(crate) swap: MemoryUse,
    /// The kernel's memory; v1 only.
    pub(crate) kernel: MemoryUse,
    /// Buffers of TCP connections; v1 only.
    pub(crate) kernel_tcp: MemoryUse,
    /// `memory.stat`, line by line.
    pub(crate) detail: BTreeMap<String, u64>,
    /// v2: who waited for memory.
    pub(crate) pressure: Option<Pressure>,
}

/// One account of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// In use, bytes.
    pub(crate) usage_bytes: Option<u64>,
    /// The most that was in use, bytes.
    pub(crate) peak_bytes: Option<u64>,
    /// The limit, bytes; None for unlimited.
    pub(crate) limit_bytes: Option<u64>,
    /// How often the limit was hit.
    pub(crate) failures: Option<u64>,
}

/// Tasks against their limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PidsStats {
    /// How many there are.
    pub(crate) current: Option<u64>,
    /// How many there may be; None for unlimited.
    pub(crate) limit: Option<u64>,
}

/// Bytes or operations on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IoCounter {
    /// v1: the file, as `io_service_bytes_recursive`. v2: the key, as `rbytes`.
    pub(crate) name: String,
    /// Major and minor number of the device.
    pub(crate) device: (u32, u32),
    /// v1: `Read`, `Write`, `Sync`, ... Empty on v2.
    pub(crate) operation: String,
    /// The count.
    pub(crate) value: u64,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HugepageStats {
    /// In use, bytes.
    pub(crate) usage_bytes: Option<u64>,
    /// The most that was in use, bytes; v1 only.
    pub(crate) peak_bytes: Option<u64>,
    /// How often the limit was hit.
    pub(crate) failures: Option<u64>,
}

/// How long tasks waited, as `cpu.pressure` and its like tell it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pressure {
    /// While at least one waited.
    pub(crate) some: PressureTimes,
    /// While all waited.
    pub(crate) full: PressureTimes,
}

// Averages are never NaN: the kernel prints them with two decimals.
impl Eq for Pressure {}

/// Averages in percent of the time, over 10, 60 and 300 seconds, and the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PressureTimes {
    /// Over 10 s.
    pub avg10: f64,
    /// Over 60 s.
    pub avg60: f64,
    /// Over 300 s.
    pub avg300: f64,
    /// In all, microseconds.
    pub(crate) total_us: u64,
}

pub(super) fn read_v1(hierarchies: &Hierarchies) -> Result<Stats, Error> {
    let mut stats = Stats::default();
    if let Some(dir) = hierarchies.dir("cpu") {
        let stat = read_keys(dir, "cpu.stat")?;
        stats.cpu.periods = stat.get("nr_periods").copied();
        stats.cpu.throttled_periods = stat.get("nr_throttled").copied();
        stats.cpu.throttled_ns = stat.get("throttled_time").copied();
    }
    if let Some(dir) = hierarchies.dir("cpuacct") {
        stats.cpu.usage_ns = number(dir, "cpuacct.usage")?;
        stats.cpu.user_ns = number(dir, "cpuacct.usage_user")?;
        stats.cpu.system_ns = number(dir, "cpuacct.usage_sys")?;
        let per_cpu = |file: &str| -> Result<Vec<u64>, Error> {
            let text = optional(dir, file)?.unwrap_or_default();
            let words = text.split_whitespace();
            Ok(words.filter_map(|word| word.parse().ok()).collect())
        };
        stats.cpu.per_cpu_ns = per_cpu("cpuacct.usage_percpu")?;
        stats.cpu.per_cpu_user_ns = per_cpu("cpuacct.usage_percpu_user")?;
        stats.cpu.per_cpu_system_ns = per_cpu("cpuacct.usage_percpu_sys")?;
    }
    if let Some(dir) = hierarchies.dir("cpuset") {
        stats.cpuset = super::v1::cpuset::stats(dir)?;
    }
    if let Some(dir) = hierarchies.dir("memory") {
        stats.memory = MemoryStats {
            memory: memory_use_v1(dir, "memory")?,
            swap: memory_use_v1(dir, "memory.memsw")?,
            kernel: memory_use_v1(dir, "memory.kmem")?,
            kernel_tcp: memory_use_v1(dir, "memory.kmem.tcp")?,
            detail: read_keys(dir, "memory.stat")?,
            pressure: None,
        };
    }
    if let Some(dir) = hierarchies.dir("pids") {
        stats.pids = pids(dir)?;
    }
    if let Some(dir) = hierarchies.dir("blkio") {
        stats.io = io_v1(dir)?;
    }
    if let Some(dir) = hierarchies.dir("hugetlb") {
        stats.hugepages = hugepages(dir, "usage_in_bytes")?;
    } else if let Some(dir) = hierarchies.hugetlb_in_cgroup2() {
        stats.hugepages = hugepages(dir, "current")?;
    }
    Ok(stats)
}

pub(super) fn read_v2(dir: &Path) -> Result<Stats, Error> {
    let cpu = read_keys(dir, "cpu.stat")?;
    let us = |key: &str| cpu.get(key).map(|us| us.saturating_mul(1000));
    Ok(Stats {
        cpu: CpuStats {
            usage_ns: us("usage_usec"),
            user_ns: us("user_usec"),
            system_ns: us("system_usec"),
            per_cpu_ns: Vec::new(),
            per_cpu_user_ns: Vec::new(),
            per_cpu_system_ns: Vec::new(),
            periods: cpu.get("nr_periods").copied(),
            throttled_periods: cpu.get("nr_throttled").copied(),
            throttled_ns: us("throttled_usec"),
            pressure: pressure(dir, "cpu.pressure")?,
        },
        memory: MemoryStats {
            memory: memory_use_v2(dir, "memory")?,
            swap: memory_use_v2(dir, "memory.swap")?,
            detail: read_keys(dir, "memory.stat")?,
            pressure: pressure(dir, "memory.pressure")?,
            ..MemoryStats::default()
        },
        cpuset: CpusetStats::default(),
        pids: pids(dir)?,
        io_pressure: pressure(dir, "io.pressure")?,
        io: optional(dir, "io.stat")?
            .map(|text| parse_io_v2(&text))
            .unwrap_or_default(),
        hugepages: hugepages(dir, "current")?,
    })
}

fn memory_use_v1(dir: &Path, name: &str) -> Result<MemoryUse, Error> {
    // The largest multiple of a page below 2^63 stands for no limit.
    let unlimited = 1 << 62;
    Ok(MemoryUse {
        usage_bytes: number(dir, &format!("{name}.usage_in_bytes"))?,
        peak_bytes: number(dir, &format!("{name}.max_usage_in_bytes"))?,
        limit_bytes: number(dir, &format!("{name}.limit_in_bytes"))?
            .filter(|limit| *limit < unlimited),
        failures: number(dir, &format!("{name}.failcnt"))?,
    })
}

fn memory_use_v2(dir: &Path, name: &str) -> Result<MemoryUse, Error> {
    let events = read_keys(dir, &format!("{name}.events"))?;
    Ok(MemoryUse {
        usage_bytes: number(dir, &format!("{name}.current"))?,
        peak_bytes: number(dir, &format!("{name}.peak"))?,
        limit_bytes: number(dir, &format!("{name}.max"))?,
        failures: events.get("max").copied(),
    })
}

fn pids(dir: &Path) -> Result<PidsStats, Error> {
    Ok(PidsStats {
        current: number(dir, "pids.current")?,
        limit: number(dir, "pids.max")?,
    })
}

/// v1's files of counters. All but the first two are there for BFQ alone, where it is debugged.
const IO_FILES: [&str; 8] = [
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queued_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "time_recursive",
    "sectors_recursive",
];

fn io_v1(dir: &Path) -> Result<Vec<IoCounter>, Error> {
    let mut counters = Vec::new();
    // Those of the BFQ scheduler where it counted, else those of the throttle.
    for prefix in ["blkio.bfq.", "blkio.throttle."] {
        for name in IO_FILES {
            let text = optional(dir, &format!("{prefix}{name}"))?.unwrap_or_default();
            counters.extend(parse_io_v1(name, &text));
        }
        if !counters.is_empty() {
            break;
        }
    }
    Ok(counters)
}

/// Reads lines `MAJOR:MINOR [OPERATION] COUNT`; the last line is the sum of all.
fn parse_io_v1(name: &str, text: &str) -> Vec<IoCounter> {
    let counter = |line: &str| {
        let (of, rest) = line.split_once(' ')?;
        let (operation, value) = rest.split_once(' ').unwrap_or(("", rest));
        Some(IoCounter {
            name: name.to_owned(),
            device: device(of)?,
            operation: operation.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(counter).collect()
}

/// Reads lines `MAJOR:MINOR rbytes=N wbytes=N rios=N ...`.
fn parse_io_v2(text: &str) -> Vec<IoCounter> {
    let mut counters = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next().and_then(device) else {
            continue;
        };
        counters.extend(words.filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            Some(IoCounter {
                name: name.to_owned(),
                device,
                operation: String::new(),
                value: value.parse().ok()?,
            })
        }));
    }
    counters
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `usage` is the last part of the file that tells what is in use.
fn hugepages(dir: &Path, usage: &str) -> Result<BTreeMap<String, HugepageStats>, Error> {
    let mut sizes = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(sizes);
    };
    for entry in entries {
        let entry =
            entry.map_err(|error| super::tree::path_error("list", dir, files::errno(error)))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.split_once('.'));
        let Some((size, _)) = size.filter(|(_, last)| *last == usage) else {
            continue;
        };
        let file = |last: &str| number(dir, &format!("hugetlb.{size}.{last}"));
        let events = read_keys(dir, &format!("hugetlb.{size}.events"))?;
        let stats = HugepageStats {
            usage_bytes: file(usage)?,
            peak_bytes: file("max_usage_in_bytes")?,
            failures: file("failcnt")?.or(events.get("max").copied()),
        };
        sizes.insert(size.to_owned(), stats);
    }
    Ok(sizes)
}

fn pressure(dir: &Path, file: &str) -> Result<Option<Pressure>, Error> {
    match files::read(&dir.join(file)) {
        Ok(text) => Ok(Some(parse_pressure(&text))),
        // Not built in, or switched off for this cgroup or at boot.
        Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
        Err(answer) => Err(super::tree::path_error("read", &dir.join(file), answer)),
    }
}

/// Reads lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, values) = line.split_once(' ').unwrap_or((line, ""));
        let mut times = PressureTimes::default();
        for (key, value) in values
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            match key {
                "avg10" => times.avg10 = value.parse().unwrap_or_default(),
                "avg60" => times.avg60 = value.parse().unwrap_or_default(),
                "avg300" => times.avg300 = value.parse().unwrap_or_default(),
                "total" => times.total_us = value.parse().unwrap_or_default(),
                _ => (),
            }
        }
        match kind {
            "some" => pressure.some = times,
            "full" => pressure.full = times,
            _ => (),
        }
    }
    pressure
}

/// A file of lines `KEY NUMBER`; empty where the kernel has none.
fn read_keys(dir: &Path, file: &str) -> Result<BTreeMap<String, u64>, Error> {
    let text = optional(dir, file)?.unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// A file of one number; None for `max` or where the kernel has none.
fn number(dir: &Path, file: &str) -> Result<Option<u64>, Error> {
    Ok(optional(dir, file)?.and_then(|text| text.trim().parse().ok()))
}

pub(super) fn optional(dir: &Path, file: &str) -> Result<Option<String>, Error> {
    let path = dir.join(file);
    match files::read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
        Err(answer) => Err(super::tree::path_error("read", &path, answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_lines() {
        let v1 = parse_io_v1(
            "io_serviced_recursive",
            "8:0 Read 5\n8:0 7\n8:0 Total 9\nTotal 9\n",
        );
        let counter = |name: &str, operation: &str, value| IoCounter {
            name: name.to_owned(),
            device: (8, 0),
            operation: operation.to_owned(),
            value,
        };
        let name = "io_serviced_recursive";
        let counters = [("Read", 5), ("", 7), ("Total", 9)];
        assert_eq!(v1, counters.map(|(op, value)| counter(name, op, value)));
        let v2 = parse_io_v2("8:0 rbytes=7 wbytes=0 dios=x\n(unknown) rbytes=1\n");
        assert_eq!(v2, [counter("rbytes", "", 7), counter("wbytes", "", 0)]);
    }

    #[test]
    fn pressure_lines() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=77\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let pressure = parse_pressure(text);
        assert_eq!((pressure.some.avg10, pressure.some.total_us), (1.5, 77));
        assert_eq!(pressure.full.total_us, 3);
    }

    #[test]
    fn a_v2_directory() {
        let root = tempfile::tempdir().expect("has a directory");
        let texts = [
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nnr_throttled 2\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "oom 1\nmax 4\n"),
            ("pids.current", "3\n"),
            ("pids.max", "10\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.events", "max 6\n"),
        ];
        for (file, text) in texts {
            std::fs::write(root.path().join(file), text).expect("is written");
        }
        let stats = read_v2(root.path()).expect("is read");
        assert_eq!(
            (stats.cpu.usage_ns, stats.cpu.throttled_periods),
            (Some(5000), Some(2))
        );
        let memory = stats.memory.memory;
        assert_eq!((memory.usage_bytes, memory.limit_bytes), (Some(4096), None));
        assert_eq!(memory.failures, Some(4));
        assert_eq!(
            stats.pids,
            PidsStats {
                current: Some(3),
                limit: Some(10)
            }
        );
        assert_eq!(stats.hugepages["2MB"].failures, Some(6));
    }
}
