//! cpu: weight and bandwidth.
//!
//! See <https://docs.kernel.org/scheduler/sched-bwc.html>.

use std::ops::RangeInclusive;
use std::path::Path;

use bundles::FieldError;
use bundles::config::linux::resources::cpu::Idle;
use bundles::config::linux::resources::{Cpu, Limit};

use super::limit;
use crate::cgroups::Error;
use crate::cgroups::files::{self, Setting, set_in_workable_order};
use crate::cgroups::refusals::refuse;

/// The kernel silently takes the nearest of these for anything else.
const SHARES: RangeInclusive<u64> = 2..=262_144;

pub(super) fn check(cpu: &Cpu) -> Result<(), FieldError> {
    match cpu.shares {
        Some(shares) if !SHARES.contains(&shares) => {
            let (least, most) = (SHARES.start(), SHARES.end());
            Err(refuse(
                "cpu.shares",
                format!("{shares} is not in {least} to {most}"),
            ))
        }
        _ => Ok(()),
    }
}

pub(super) fn set(dir: &Path, cpu: &Cpu) -> Result<(), Error> {
    weight_settings(cpu)
        .iter()
        .try_for_each(|setting| setting.write(dir))?;
    set_in_workable_order(dir, realtime_settings(cpu))?;
    set_in_workable_order(dir, bandwidth_settings(cpu))
}

/// The period that a quota is for; None where it cannot be read.
pub(in crate::cgroups) fn period_us(dir: &Path) -> Option<u64> {
    let text = files::read(&dir.join("cpu.cfs_period_us")).ok()?;
    text.trim().parse().ok()
}

/// Shares are refused while a cgroup is idle.
fn weight_settings(cpu: &Cpu) -> Vec<Setting> {
    let shares = cpu
        .shares
        .map(|shares| Setting::new("cpu.shares", "cpu.shares", shares));
    let idle = |value| Setting::new("cpu.idle", "cpu.idle", value);
    match cpu.idle {
        None => shares.into_iter().collect(),
        Some(Idle::No) => [Some(idle(0)), shares].into_iter().flatten().collect(),
        // It may be idle already, or by systemd's hand.
        Some(Idle::Yes) => [shares.is_some().then(|| idle(0)), shares, Some(idle(1))]
            .into_iter()
            .flatten()
            .collect(),
    }
}

fn realtime_settings(cpu: &Cpu) -> Vec<Setting> {
    let period = cpu.realtime_period_us;
    let runtime = cpu.realtime_runtime_us.map(limit);
    [
        period.map(|us| Setting::new("cpu.realtimePeriod", "cpu.rt_period_us", us)),
        runtime.map(|us| Setting::new("cpu.realtimeRuntime", "cpu.rt_runtime_us", us)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn bandwidth_settings(cpu: &Cpu) -> Vec<Setting> {
    let quota = cpu.quota_us.map(|quota: Limit| limit(quota));
    [
        cpu.period_us
            .map(|us| Setting::new("cpu.period", "cpu.cfs_period_us", us)),
        quota.map(|us| Setting::new("cpu.quota", "cpu.cfs_quota_us", us)),
        cpu.burst_us
            .map(|us| Setting::new("cpu.burst", "cpu.cfs_burst_us", us)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(settings: Vec<Setting>) -> Vec<(&'static str, String)> {
        settings
            .into_iter()
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    #[test]
    fn idle_and_shares_in_an_order_that_works() {
        let cpu = |idle| Cpu {
            shares: Some(5),
            idle,
            ..Cpu::default()
        };
        let files = |idle| {
            written(weight_settings(&cpu(idle)))
                .into_iter()
                .map(|(file, _)| file)
                .collect::<Vec<_>>()
        };
        assert_eq!(files(None), ["cpu.shares"]);
        assert_eq!(files(Some(Idle::No)), ["cpu.idle", "cpu.shares"]);
        assert_eq!(
            files(Some(Idle::Yes)),
            ["cpu.idle", "cpu.shares", "cpu.idle"]
        );
    }

    #[test]
    fn bandwidth() {
        let cpu = Cpu {
            quota_us: Some(Limit::Unlimited),
            period_us: Some(5000),
            burst_us: Some(0),
            ..Cpu::default()
        };
        let expected = [
            ("cpu.cfs_period_us", "5000".to_owned()),
            ("cpu.cfs_quota_us", "-1".to_owned()),
            ("cpu.cfs_burst_us", "0".to_owned()),
        ];
        assert_eq!(written(bandwidth_settings(&cpu)), expected);
        assert_eq!(written(realtime_settings(&cpu)), []);
    }

    #[test]
    fn shares_out_of_range() {
        for (shares, good) in [(1, false), (2, true), (262_144, true), (262_145, false)] {
            let cpu = Cpu {
                shares: Some(shares),
                ..Cpu::default()
            };
            assert_eq!(check(&cpu).is_ok(), good, "{shares}");
        }
    }
}
