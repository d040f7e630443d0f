//! io: weights and ceilings for block devices.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v2.html#io>.

use std::path::Path;

use bundles::FieldError;
use bundles::config::linux::resources::BlockIo;
use bundles::config::linux::resources::block_io::DeviceRate;
use nix::errno::Errno;

use crate::cgroups::Error;
use crate::cgroups::files;
use crate::cgroups::refusals::refuse;

/// Weights of the BFQ scheduler, where a kernel has it: 1 to 1000.
const BFQ_WEIGHT: &str = "io.bfq.weight";
/// Weights of the cost model: 1 to 10000.
const WEIGHT: &str = "io.weight";

pub(super) fn check(io: &BlockIo) -> Result<(), FieldError> {
    let problem = "cgroup v2, which this machine has, cannot serve it";
    if io.leaf_weight.is_some() {
        return Err(refuse("blockIO.leafWeight", problem));
    }
    match io
        .weight_devices
        .iter()
        .position(|device| device.leaf_weight.is_some())
    {
        Some(index) => Err(refuse(
            &format!("blockIO.weightDevice[{index}].leafWeight"),
            problem,
        )),
        None => Ok(()),
    }
}

pub(super) fn set(dir: &Path, io: &BlockIo) -> Result<(), Error> {
    if let Some(weight) = io.weight {
        set_weight(dir, "default", weight, "blockIO.weight")?;
    }
    for (index, device) in io.weight_devices.iter().enumerate() {
        if let Some(weight) = device.weight {
            let name = format!("{}:{}", device.major, device.minor);
            set_weight(
                dir,
                &name,
                weight,
                &format!("blockIO.weightDevice[{index}].weight"),
            )?;
        }
    }
    let throttles: [(&[DeviceRate], &str, &str); 4] = [
        (&io.read_bps, "rbps", "throttleReadBpsDevice"),
        (&io.write_bps, "wbps", "throttleWriteBpsDevice"),
        (&io.read_iops, "riops", "throttleReadIOPSDevice"),
        (&io.write_iops, "wiops", "throttleWriteIOPSDevice"),
    ];
    for (devices, key, field) in throttles {
        for (index, device) in devices.iter().enumerate() {
            let rate = if device.rate == 0 {
                "max".to_owned()
            } else {
                device.rate.to_string()
            };
            let line = format!("{}:{} {key}={rate}", device.major, device.minor);
            files::set(dir, "io.max", &line, &format!("blockIO.{field}[{index}]"))?;
        }
    }
    Ok(())
}

/// Both files have a line for each device and one for all others, called `default`.
fn set_weight(dir: &Path, device: &str, weight: u16, field: &str) -> Result<(), Error> {
    let path = dir.join(BFQ_WEIGHT);
    let line = format!("{device} {weight}");
    match files::write(&path, &line) {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) => {
            files::set(dir, WEIGHT, &format!("{device} {}", scaled(weight)), field)
        }
        Err(answer) => Err(files::refused(&path, &line, field, answer)),
    }
}

/// Stretches 10 to 1000 over 1 to 10000.
pub(in crate::cgroups) fn scaled(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_values() {
        let root = tempfile::tempdir().expect("has a directory");
        let dir = root.path();
        for file in [WEIGHT, "io.max"] {
            std::fs::write(dir.join(file), "").expect("is written");
        }
        let read = |file| std::fs::read_to_string(dir.join(file)).expect("is there");
        let rate = |rate| {
            vec![DeviceRate {
                major: 8,
                minor: 16,
                rate,
            }]
        };
        let io = BlockIo {
            weight: Some(1000),
            read_bps: rate(512),
            ..BlockIo::default()
        };
        set(dir, &io).expect("is set");
        assert_eq!(
            (read(WEIGHT), read("io.max")),
            ("default 10000".into(), "8:16 rbps=512".into())
        );

        std::fs::write(dir.join(BFQ_WEIGHT), "").expect("is written");
        std::fs::write(dir.join("io.max"), "").expect("is emptied");
        let io = BlockIo {
            weight: Some(1000),
            write_iops: rate(0),
            ..BlockIo::default()
        };
        set(dir, &io).expect("is set");
        assert_eq!(
            (read(BFQ_WEIGHT), read("io.max")),
            ("default 1000".into(), "8:16 wiops=max".into())
        );
    }

    #[test]
    fn scale() {
        for (weight, expected) in [(10, 1), (500, 4950), (1000, 10_000)] {
            assert_eq!(scaled(weight), expected);
        }
    }
}
