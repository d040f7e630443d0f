//! What systemd is told of the limits: `linux.resources` as properties of a unit.
//!
//! systemd writes its properties into the cgroup whenever it looks at the unit again, so it has
//! to know them, even where a file is written afterwards with the exact value.
//!
//! See <https://www.freedesktop.org/software/systemd/man/latest/systemd.resource-control.html>.

use bundles::FieldError;
use bundles::config::linux::resources::block_io::DeviceRate;
use bundles::config::linux::resources::cpu::Idle;
use bundles::config::linux::resources::{BlockIo, Cpu, Limit, Memory, Resources};

use super::value::Value;
use crate::cgroups::detect::Kind;
use crate::cgroups::refusals::refuse;
use crate::cgroups::v2;

/// A property, and the field that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) value: Value,
    /// Empty where no field asks.
    pub(super) field: String,
}

/// How systemd writes that there is no limit.
const INFINITY: u64 = u64::MAX;
const PERIOD_US: u64 = 100_000;
/// systemd keeps whole percents of a processor.
const PERCENT_OF_A_SECOND_US: u64 = 10_000;
/// The greatest number that a set of processors or nodes may hold.
const GREATEST: usize = 8191;

/// The versions of systemd that learned a property.
const KNOWS_PERIOD: u32 = 242;
const KNOWS_CPUSET: u32 = 244;
const KNOWS_IDLE: u32 = 252;

/// The properties for `resources`, but for the devices, on a systemd of this `version`. A later
/// one of the same name has the last word.
///
/// # Errors
/// A value that systemd's property cannot say.
pub(super) fn properties(
    resources: &Resources,
    kind: Kind,
    version: u32,
) -> Result<Vec<Property>, FieldError> {
    let mut list = List {
        properties: Vec::new(),
        version,
    };
    match kind {
        Kind::V1 => list.v1(resources),
        Kind::V2 => list.v2(resources)?,
    }
    Ok(list.properties)
}

/// Whether [`properties`] needs to know the version.
pub(super) fn needs_version(resources: &Resources) -> bool {
    let Cpu {
        period_us,
        cpus,
        mems,
        idle,
        ..
    } = &resources.cpu;
    let in_unified = ["cpu.max", "cpu.idle", "cpuset.cpus", "cpuset.mems"];
    period_us.is_some()
        || cpus.is_some()
        || mems.is_some()
        || idle.is_some()
        || in_unified
            .iter()
            .any(|name| resources.unified.contains_key(*name))
}

struct List {
    properties: Vec<Property>,
    version: u32,
}

impl List {
    fn push(&mut self, field: &str, name: &str, value: Value) {
        self.properties.push(Property {
            name: name.to_owned(),
            value,
            field: format!("linux.resources.{field}"),
        });
    }

    fn push_limit(&mut self, field: &str, name: &str, limit: Option<Limit>) {
        if let Some(limit) = limit {
            let value = limit.max().unwrap_or(INFINITY);
            self.push(field, name, Value::Uint64(value));
        }
    }

    fn v1(&mut self, resources: &Resources) {
        self.push_limit("memory.limit", "MemoryLimit", resources.memory.limit_bytes);
        if let Some(shares) = resources.cpu.shares {
            self.push("cpu.shares", "CPUShares", Value::Uint64(shares));
        }
        self.quota("cpu.quota", resources.cpu.quota_us, resources.cpu.period_us);
        let io = &resources.block_io;
        if let Some(weight) = io.weight {
            self.push(
                "blockIO.weight",
                "BlockIOWeight",
                Value::Uint64(weight.into()),
            );
        }
        self.tasks("pids.limit", resources.pids_limit);
    }

    fn v2(&mut self, resources: &Resources) -> Result<(), FieldError> {
        self.memory(&resources.memory);
        self.cpu(&resources.cpu)?;
        self.block_io(&resources.block_io);
        self.tasks("pids.limit", resources.pids_limit);
        for (file, value) in &resources.unified {
            self.unified(file, value)?;
        }
        Ok(())
    }

    fn memory(&mut self, memory: &Memory) {
        self.push_limit("memory.limit", "MemoryMax", memory.limit_bytes);
        self.push_limit("memory.reservation", "MemoryLow", memory.reservation_bytes);
        let swap = match (memory.limit_bytes, memory.swap_bytes) {
            (_, Some(Limit::Unlimited)) | (Some(Limit::Unlimited), None) => Some(Limit::Unlimited),
            (Some(Limit::Max(limit)), Some(Limit::Max(swap))) => {
                Some(Limit::Max(swap.saturating_sub(limit)))
            }
            // It depends on what the cgroup holds, and is written there.
            _ => None,
        };
        self.push_limit("memory.swap", "MemorySwapMax", swap);
    }

    fn cpu(&mut self, cpu: &Cpu) -> Result<(), FieldError> {
        if let Some(shares) = cpu.shares {
            let weight = v2::cpu::weight(shares);
            self.push("cpu.shares", "CPUWeight", Value::Uint64(weight));
        }
        if cpu.idle == Some(Idle::Yes) {
            self.idle("cpu.idle");
        }
        self.quota("cpu.quota", cpu.quota_us, cpu.period_us);
        if let Some(list) = &cpu.cpus {
            self.set("cpu.cpus", "AllowedCPUs", list)?;
        }
        if let Some(list) = &cpu.mems {
            self.set("cpu.mems", "AllowedMemoryNodes", list)?;
        }
        Ok(())
    }

    /// systemd's word for idle.
    fn idle(&mut self, field: &str) {
        if self.version >= KNOWS_IDLE {
            self.push(field, "CPUWeight", Value::Uint64(0));
        }
    }

    fn quota(&mut self, field: &str, quota: Option<Limit>, period_us: Option<u64>) {
        if let Some(period) = period_us.filter(|_| self.version >= KNOWS_PERIOD) {
            self.push(field, "CPUQuotaPeriodUSec", Value::Uint64(period));
        }
        let Some(quota) = quota else { return };
        let per_second = quota.max().map_or(INFINITY, |quota| {
            let per_second = quota.saturating_mul(1_000_000) / period_us.unwrap_or(PERIOD_US);
            // Rounded up: the exact value is written later, and must not be above this one's.
            per_second
                .checked_next_multiple_of(PERCENT_OF_A_SECOND_US)
                .unwrap_or(INFINITY)
        });
        self.push(field, "CPUQuotaPerSecUSec", Value::Uint64(per_second));
    }

    fn set(&mut self, field: &str, name: &str, list: &str) -> Result<(), FieldError> {
        let bits = bits_of(list).ok_or_else(|| {
            refuse(
                field,
                format!("{list:?} is not a list of numbers and ranges, such as 0-3,7"),
            )
        })?;
        if self.version >= KNOWS_CPUSET {
            self.push(field, name, Value::bytes(&bits));
        }
        Ok(())
    }

    fn tasks(&mut self, field: &str, limit: Option<Limit>) {
        // systemd does not take 0, which is written afterwards.
        let limit = limit.map(|limit| match limit {
            Limit::Max(0) => Limit::Max(1),
            limit => limit,
        });
        self.push_limit(field, "TasksMax", limit);
    }

    fn block_io(&mut self, io: &BlockIo) {
        if let Some(weight) = io.weight {
            let weight = Value::Uint64(v2::io::scaled(weight));
            self.push("blockIO.weight", "IOWeight", weight);
        }
        let weights: Vec<Value> = io
            .weight_devices
            .iter()
            .filter_map(|device| Some((device, device.weight?)))
            .map(|(device, weight)| {
                device_value(device.major, device.minor, v2::io::scaled(weight))
            })
            .collect();
        self.push_devices("blockIO.weightDevice", "IODeviceWeight", weights);
        let rates = |devices: &[DeviceRate]| {
            let of_one = |device: &DeviceRate| {
                // 0 lifts the limit.
                let rate = if device.rate == 0 {
                    INFINITY
                } else {
                    device.rate
                };
                device_value(device.major, device.minor, rate)
            };
            devices.iter().map(of_one).collect::<Vec<_>>()
        };
        for (field, name, devices) in [
            ("throttleReadBpsDevice", "IOReadBandwidthMax", &io.read_bps),
            (
                "throttleWriteBpsDevice",
                "IOWriteBandwidthMax",
                &io.write_bps,
            ),
            ("throttleReadIOPSDevice", "IOReadIOPSMax", &io.read_iops),
            ("throttleWriteIOPSDevice", "IOWriteIOPSMax", &io.write_iops),
        ] {
            self.push_devices(&format!("blockIO.{field}"), name, rates(devices));
        }
    }

    fn push_devices(&mut self, field: &str, name: &str, devices: Vec<Value>) {
        if !devices.is_empty() {
            self.push(field, name, Value::Array("(st)".into(), devices));
        }
    }

    /// Files of cgroup v2 that systemd has a property for; the others are written only.
    fn unified(&mut self, file: &str, text: &str) -> Result<(), FieldError> {
        let field = format!("unified[{file:?}]");
        let text = text.trim();
        let number = |text: &str| {
            let problem = || refuse(&field, format!("{text:?} is neither a number nor \"max\""));
            match text {
                "max" => Ok(Limit::Unlimited),
                _ => text.parse().map(Limit::Max).map_err(|_| problem()),
            }
        };
        match file {
            "cpu.max" => {
                let (quota, period) = text.split_once(' ').unwrap_or((text, ""));
                let period = match period {
                    "" => None,
                    period => number(period)?.max().filter(|period| *period != 0),
                };
                self.quota(&field, Some(number(quota)?), period);
            }
            "cpu.weight" => self.push_limit(&field, "CPUWeight", Some(number(text)?)),
            "cpu.idle" if text == "1" => self.idle(&field),
            "cpuset.cpus" => self.set(&field, "AllowedCPUs", text)?,
            "cpuset.mems" => self.set(&field, "AllowedMemoryNodes", text)?,
            "memory.min" => self.push_limit(&field, "MemoryMin", Some(number(text)?)),
            "memory.low" => self.push_limit(&field, "MemoryLow", Some(number(text)?)),
            "memory.high" => self.push_limit(&field, "MemoryHigh", Some(number(text)?)),
            "memory.max" => self.push_limit(&field, "MemoryMax", Some(number(text)?)),
            "memory.swap.max" => self.push_limit(&field, "MemorySwapMax", Some(number(text)?)),
            "pids.max" => self.tasks(&field, Some(number(text)?)),
            _ => (),
        }
        Ok(())
    }
}

fn device_value(major: u32, minor: u32, number: u64) -> Value {
    let path = format!("/dev/block/{major}:{minor}");
    Value::Struct(vec![Value::Text(path), Value::Uint64(number)])
}

/// A list such as `0-3,7` as bits, the lowest number in the lowest bit of the first byte.
fn bits_of(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > GREATEST {
            return None;
        }
        for number in first..=last {
            let byte = number / 8;
            if bits.len() <= byte {
                bits.resize(byte + 1, 0);
            }
            bits[byte] |= 1 << (number % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, kind: Kind, version: u32) -> Result<Vec<(String, Value)>, String> {
        let spec = serde_json::from_str(json).expect("is well-formed");
        let resources = Resources::from_spec(Some(&spec)).expect("is in range");
        let properties =
            properties(&resources, kind, version).map_err(|error| error.to_string())?;
        let pair = |property: Property| (property.name, property.value);
        Ok(properties.into_iter().map(pair).collect())
    }

    #[track_caller]
    fn check(kind: Kind, table: &[(&str, &[(&str, Value)])]) {
        for (json, expected) in table {
            let expected: Vec<(String, Value)> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect();
            assert_eq!(of(json, kind, 252), Ok(expected), "{json}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn properties_on_v2() {
        use Value::Uint64 as N;
        let device = |number| {
            let pair = vec![Value::Text("/dev/block/8:0".into()), N(number)];
            Value::Array("(st)".into(), vec![Value::Struct(pair)])
        };
        check(
            Kind::V2,
            &[
                ("{}", &[]),
                (
                    r#"{"memory": {"limit": 100, "reservation": 50}}"#,
                    &[("MemoryMax", N(100)), ("MemoryLow", N(50))],
                ),
                (
                    r#"{"memory": {"limit": 100, "swap": 150}}"#,
                    &[("MemoryMax", N(100)), ("MemorySwapMax", N(50))],
                ),
                (
                    r#"{"memory": {"limit": -1}}"#,
                    &[("MemoryMax", N(INFINITY)), ("MemorySwapMax", N(INFINITY))],
                ),
                (
                    r#"{"cpu": {"shares": 1024, "quota": 50000}}"#,
                    &[("CPUWeight", N(100)), ("CPUQuotaPerSecUSec", N(500_000))],
                ),
                // 3333 of 100000 is 3.333 %: 4 %.
                (
                    r#"{"cpu": {"quota": 3333, "period": 100000}}"#,
                    &[
                        ("CPUQuotaPeriodUSec", N(100_000)),
                        ("CPUQuotaPerSecUSec", N(40_000)),
                    ],
                ),
                (
                    r#"{"cpu": {"quota": -1}}"#,
                    &[("CPUQuotaPerSecUSec", N(INFINITY))],
                ),
                (r#"{"cpu": {"idle": 1}}"#, &[("CPUWeight", N(0))]),
                (
                    r#"{"cpu": {"cpus": "0-2,9", "mems": "0"}}"#,
                    &[
                        ("AllowedCPUs", Value::bytes(&[7, 2])),
                        ("AllowedMemoryNodes", Value::bytes(&[1])),
                    ],
                ),
                (r#"{"pids": {"limit": 7}}"#, &[("TasksMax", N(7))]),
                (r#"{"pids": {"limit": 0}}"#, &[("TasksMax", N(1))]),
                (r#"{"pids": {"limit": -1}}"#, &[("TasksMax", N(INFINITY))]),
                (
                    r#"{"blockIO": {"weight": 1000}}"#,
                    &[("IOWeight", N(10_000))],
                ),
                (
                    r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}]}}"#,
                    &[
                        ("IOReadBandwidthMax", device(INFINITY)),
                        ("IOWriteIOPSMax", device(9)),
                    ],
                ),
            ],
        );
    }

    #[test]
    fn unified_files_that_have_a_property() {
        use Value::Uint64 as N;
        check(
            Kind::V2,
            &[
                (
                    r#"{"unified": {"cpu.max": "50000 200000"}}"#,
                    &[
                        ("CPUQuotaPeriodUSec", N(200_000)),
                        ("CPUQuotaPerSecUSec", N(250_000)),
                    ],
                ),
                (
                    r#"{"unified": {"cpu.max": "max"}}"#,
                    &[("CPUQuotaPerSecUSec", N(INFINITY))],
                ),
                (
                    r#"{"unified": {"cpu.weight": "99", "cpu.idle": "0"}}"#,
                    &[("CPUWeight", N(99))],
                ),
                (
                    r#"{"unified": {"cpuset.cpus": "1"}}"#,
                    &[("AllowedCPUs", Value::bytes(&[2]))],
                ),
                (
                    r#"{"unified": {"memory.high": "5", "memory.swap.max": "max"}}"#,
                    &[("MemoryHigh", N(5)), ("MemorySwapMax", N(INFINITY))],
                ),
                (
                    r#"{"unified": {"pids.max": "3", "memory.oom.group": "1"}}"#,
                    &[("TasksMax", N(3))],
                ),
            ],
        );
        for (json, expected) in [
            (
                r#"{"unified": {"pids.max": "x"}}"#,
                "unified[\"pids.max\"]: \"x\" is neither",
            ),
            (
                r#"{"unified": {"cpuset.mems": "3-1"}}"#,
                "unified[\"cpuset.mems\"]: \"3-1\" is not",
            ),
            (
                r#"{"cpu": {"cpus": "0-9999"}}"#,
                "cpu.cpus: \"0-9999\" is not a list",
            ),
        ] {
            let error = of(json, Kind::V2, 252).expect_err(json);
            assert!(
                error.starts_with(&format!("linux.resources.{expected}")),
                "{error}"
            );
        }
    }

    #[test]
    fn properties_on_v1() {
        use Value::Uint64 as N;
        check(
            Kind::V1,
            &[
                (
                    r#"{"memory": {"limit": 100, "reservation": 50}}"#,
                    &[("MemoryLimit", N(100))],
                ),
                (
                    r#"{"cpu": {"shares": 512, "quota": 50000, "cpus": "0"}}"#,
                    &[("CPUShares", N(512)), ("CPUQuotaPerSecUSec", N(500_000))],
                ),
                (
                    r#"{"blockIO": {"weight": 20}, "pids": {"limit": 3}}"#,
                    &[("BlockIOWeight", N(20)), ("TasksMax", N(3))],
                ),
            ],
        );
    }

    #[test]
    fn an_old_systemd_is_not_told_what_it_does_not_know() {
        let json = r#"{"cpu": {"quota": 5000, "period": 10000, "cpus": "0", "idle": 1}}"#;
        let expected = vec![("CPUQuotaPerSecUSec".to_owned(), Value::Uint64(500_000))];
        assert_eq!(of(json, Kind::V2, 241), Ok(expected));
    }
}
