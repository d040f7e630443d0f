//! cpu: weight and bandwidth.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu>.

use std::path::Path;

use bundles::FieldError;
use bundles::config::linux::resources::Cpu;
use bundles::config::linux::resources::cpu::Idle;

use crate::cgroups::Error;
use crate::cgroups::files::{Setting, read_in, set_in_workable_order};
use crate::cgroups::refusals::refuse;

pub(super) fn check(cpu: &Cpu) -> Result<(), FieldError> {
    let realtime = [
        ("cpu.realtimeRuntime", cpu.realtime_runtime_us.is_some()),
        ("cpu.realtimePeriod", cpu.realtime_period_us.is_some()),
    ];
    match realtime.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(refuse(field, "cgroup v2 has no limit for real-time tasks")),
        None => Ok(()),
    }
}

pub(super) fn set(dir: &Path, cpu: &Cpu) -> Result<(), Error> {
    weight_settings(cpu)
        .iter()
        .try_for_each(|setting| setting.write(dir))?;
    let mut settings = Vec::new();
    if cpu.quota_us.is_some() || cpu.period_us.is_some() {
        settings.push(max_setting(dir, cpu)?);
    }
    settings.extend(
        cpu.burst_us
            .map(|us| Setting::new("cpu.burst", "cpu.max.burst", us)),
    );
    set_in_workable_order(dir, settings)
}

/// The period that a quota is for; None where it cannot be read.
pub(in crate::cgroups) fn period_us(dir: &Path) -> Option<u64> {
    let text = read_in(dir, "cpu.max").ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

/// A weight is refused while a cgroup is idle.
fn weight_settings(cpu: &Cpu) -> Vec<Setting> {
    let weight = cpu
        .shares
        .map(|shares| Setting::new("cpu.shares", "cpu.weight", weight(shares)));
    let idle = |value| Setting::new("cpu.idle", "cpu.idle", value);
    match cpu.idle {
        None => weight.into_iter().collect(),
        Some(Idle::No) => [Some(idle(0)), weight].into_iter().flatten().collect(),
        // It may be idle already, or by systemd's hand.
        Some(Idle::Yes) => [weight.is_some().then(|| idle(0)), weight, Some(idle(1))]
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// The file holds quota and period; a quota that is not asked for stays.
fn max_setting(dir: &Path, cpu: &Cpu) -> Result<Setting, Error> {
    let field = if cpu.quota_us.is_some() {
        "cpu.quota"
    } else {
        "cpu.period"
    };
    let quota = match cpu.quota_us {
        Some(quota) => quota.to_string(),
        None => {
            let current = read_in(dir, "cpu.max")?;
            current
                .split_whitespace()
                .next()
                .unwrap_or("max")
                .to_owned()
        }
    };
    let value = match cpu.period_us {
        Some(period) => format!("{quota} {period}"),
        None => quota,
    };
    Ok(Setting::new(field, "cpu.max", value))
}

/// The weight (1 to 10000, 100 is usual) for v1's shares (2 to 262144, 1024 is usual).
///
/// The least, the usual and the greatest share become the least, the usual and the greatest
/// weight; in between, the exponent is a quadratic function of the shares' logarithm. Other
/// runtimes use the same function, so a container weighs the same under each of them.
pub(in crate::cgroups) fn weight(shares: u64) -> u64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "numbers up to 262144 are exact, and the result is in 1 to 10000"
    )]
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::config::linux::resources::Limit;

    #[test]
    fn weights() {
        let table = [
            (1, 1),
            (2, 1),
            (3, 2),
            (10, 4),
            (102, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (10_240, 639),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ];
        for (shares, expected) in table {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn quota_and_period() {
        let root = tempfile::tempdir().expect("has a directory");
        std::fs::write(root.path().join("cpu.max"), "70000 100000\n").expect("is written");
        let table = [
            (Some(Limit::Max(5000)), None, "5000"),
            (Some(Limit::Max(5000)), Some(9000), "5000 9000"),
            (Some(Limit::Unlimited), None, "max"),
            (None, Some(9000), "70000 9000"),
        ];
        for (quota_us, period_us, expected) in table {
            let cpu = Cpu {
                quota_us,
                period_us,
                ..Cpu::default()
            };
            assert_eq!(
                max_setting(root.path(), &cpu).expect("is set").value,
                expected
            );
        }
    }
}
