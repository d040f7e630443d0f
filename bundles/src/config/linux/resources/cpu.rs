//! `linux.resources.cpu`
//!
//! Spec: config-linux.md#configLinuxCPU

use oci_spec::runtime::LinuxCpu;

use super::Limit;
use crate::FieldError;

/// How much of the processors there may be, and which of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// `shares`: weight against siblings. cgroup v1 takes 2 to 262144, where 1024 is usual.
    pub shares: Option<u64>,
    /// `quota`: processor time within each period.
    pub quota_us: Option<Limit>,
    /// `burst`: unused quota that may be saved up.
    pub burst_us: Option<u64>,
    /// `period`, 1000 to 1000000.
    pub period_us: Option<u64>,
    /// `realtimeRuntime`: time for real-time tasks within each real-time period.
    pub realtime_runtime_us: Option<Limit>,
    /// `realtimePeriod`
    pub realtime_period_us: Option<u64>,
    /// `cpus`: a list such as `0-3,7`.
    pub cpus: Option<String>,
    /// `mems`: a list of memory nodes.
    pub mems: Option<String>,
    /// `idle`
    pub idle: Option<Idle>,
}

/// Whether the tasks run only where nobody else wants to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// They take part as usual; 0 in the configuration.
    No,
    /// They get what is left over; 1 in the configuration.
    Yes,
}

/// The kernel's least and greatest period and least quota, in microseconds.
const PERIOD_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const LEAST_QUOTA_US: u64 = 1_000;

impl Cpu {
    pub(super) fn from_spec(spec: Option<&LinuxCpu>) -> Result<Self, FieldError> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        let time = |name: &str, number| {
            Limit::from_optional(&field(name), number, "a time in microseconds")
        };
        let cpu = Self {
            shares: spec.shares().filter(|shares| *shares != 0),
            quota_us: time("quota", spec.quota())?,
            burst_us: spec.burst(),
            period_us: spec.period().filter(|period| *period != 0),
            realtime_runtime_us: time("realtimeRuntime", spec.realtime_runtime())?,
            realtime_period_us: spec.realtime_period().filter(|period| *period != 0),
            cpus: list("cpus", spec.cpus().as_deref())?,
            mems: list("mems", spec.mems().as_deref())?,
            idle: spec.idle().map(idle).transpose()?,
        };
        cpu.check_times()?;
        Ok(cpu)
    }

    fn check_times(&self) -> Result<(), FieldError> {
        let refuse = |name: &str, problem: String| Err(FieldError::new(field(name), problem));
        let quota_us = self.quota_us.and_then(Limit::max);
        match self.period_us {
            Some(period) if !PERIOD_US.contains(&period) => {
                let (least, most) = (PERIOD_US.start(), PERIOD_US.end());
                return refuse("period", format!("{period} is not in {least} to {most} us"));
            }
            _ => (),
        }
        match (quota_us, self.burst_us) {
            (Some(quota), _) if quota < LEAST_QUOTA_US => {
                return refuse("quota", format!("{quota} is below {LEAST_QUOTA_US} us"));
            }
            (Some(quota), Some(burst)) if burst > quota => {
                return refuse("burst", format!("{burst} is above cpu.quota, {quota}"));
            }
            _ => (),
        }
        match (
            self.realtime_runtime_us.and_then(Limit::max),
            self.realtime_period_us,
        ) {
            (Some(runtime), Some(period)) if runtime > period => {
                let problem = format!("{runtime} is above cpu.realtimePeriod, {period}");
                refuse("realtimeRuntime", problem)
            }
            _ => Ok(()),
        }
    }
}

fn field(name: &str) -> String {
    format!("linux.resources.cpu.{name}")
}

fn idle(number: i64) -> Result<Idle, FieldError> {
    match number {
        0 => Ok(Idle::No),
        1 => Ok(Idle::Yes),
        _ => Err(FieldError::new(
            field("idle"),
            format!("{number} is neither 0 nor 1"),
        )),
    }
}

/// Takes a list; an empty one asks for nothing.
fn list(name: &str, text: Option<&str>) -> Result<Option<String>, FieldError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.split(',').find(|item| !is_list_item(item)) {
        None => Ok(Some(text.to_owned())),
        Some(item) => {
            let problem = format!("{text:?}: {item:?} is neither a number nor a range");
            Err(FieldError::new(field(name), problem))
        }
    }
}

/// Whether `item` is `N`, `N-M` or `N-M:USED/GROUP`.
///
/// See <https://man7.org/linux/man-pages/man7/cpuset.7.html>, "List format".
fn is_list_item(item: &str) -> bool {
    let (range, stride) = match item.split_once(':') {
        None => (item, None),
        Some((range, stride)) => (range, Some(stride)),
    };
    let is_stride = stride.is_none_or(|stride| {
        let numbers = stride.split_once('/');
        let numbers = numbers.and_then(|(used, group)| Some((number(used)?, number(group)?)));
        numbers.is_some_and(|(used, group)| used <= group && group != 0)
    });
    let is_range = match range.split_once('-') {
        None => number(range).is_some() && stride.is_none(),
        Some((first, last)) => {
            number(first).is_some_and(|first| number(last).is_some_and(|last| first <= last))
        }
    };
    is_range && is_stride
}

/// Digits only: no sign, no space.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::super::tests::resources;
    use super::*;

    fn cpu(json: &str) -> Result<Cpu, String> {
        resources(&format!(r#"{{"cpu": {json}}}"#)).map(|resources| resources.cpu)
    }

    #[test]
    fn values() {
        let read = cpu(
            r#"{"shares": 512, "quota": 50000, "burst": 0, "period": 100000, "cpus": "0-3,7",
                "mems": "", "idle": 1, "realtimeRuntime": -1}"#,
        );
        let expected = Cpu {
            shares: Some(512),
            quota_us: Some(Limit::Max(50_000)),
            burst_us: Some(0),
            period_us: Some(100_000),
            realtime_runtime_us: Some(Limit::Unlimited),
            cpus: Some("0-3,7".into()),
            idle: Some(Idle::Yes),
            ..Cpu::default()
        };
        assert_eq!(read, Ok(expected));
        let unset = cpu(r#"{"shares": 0, "quota": 0, "period": 0, "realtimePeriod": 0}"#);
        assert_eq!(unset, Ok(Cpu::default()));
    }

    #[test]
    fn refusals() {
        let table = [
            (
                r#"{"quota": -3}"#,
                "quota: -3 is neither a time in microseconds nor -1 (unlimited)",
            ),
            (r#"{"quota": 999}"#, "quota: 999 is below 1000 us"),
            (
                r#"{"period": 999}"#,
                "period: 999 is not in 1000 to 1000000 us",
            ),
            (
                r#"{"period": 1000001}"#,
                "period: 1000001 is not in 1000 to 1000000 us",
            ),
            (
                r#"{"quota": 2000, "burst": 2001}"#,
                "burst: 2001 is above cpu.quota, 2000",
            ),
            (
                r#"{"realtimeRuntime": 2, "realtimePeriod": 1}"#,
                "realtimeRuntime: 2 is above cpu.realtimePeriod, 1",
            ),
            (r#"{"idle": 2}"#, "idle: 2 is neither 0 nor 1"),
            (
                r#"{"cpus": "0,x"}"#,
                r#"cpus: "0,x": "x" is neither a number nor a range"#,
            ),
            (
                r#"{"mems": "1-0"}"#,
                r#"mems: "1-0": "1-0" is neither a number nor a range"#,
            ),
        ];
        for (json, expected) in table {
            assert_eq!(
                cpu(json),
                Err(format!("linux.resources.cpu.{expected}")),
                "{json}"
            );
        }
    }

    #[test]
    fn list_items() {
        for good in ["0", "17", "0-0", "2-31", "0-31:4/8"] {
            assert!(is_list_item(good), "{good}");
        }
        for bad in [
            "", "-", "-1", "1-", "+1", " 1", "1 ", "3-1", "1:2/3", "0-3:", "0-3:2/0", "a",
        ] {
            assert!(!is_list_item(bad), "{bad}");
        }
    }
}
