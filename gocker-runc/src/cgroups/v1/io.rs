//! blkio: weights and ceilings for block devices.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/blkio-controller.html>.

use std::path::Path;

use bundles::config::linux::resources::BlockIo;
use bundles::config::linux::resources::block_io::DeviceRate;
use nix::errno::Errno;

use crate::cgroups::Error;
use crate::cgroups::files;

pub(super) fn set(dir: &Path, io: &BlockIo) -> Result<(), Error> {
    if let Some(weight) = io.weight {
        set_weight(dir, "weight", &weight.to_string(), "blockIO.weight")?;
    }
    if let Some(weight) = io.leaf_weight {
        files::set(
            dir,
            "blkio.leaf_weight",
            &weight.to_string(),
            "blockIO.leafWeight",
        )?;
    }
    for (index, device) in io.weight_devices.iter().enumerate() {
        let field = |name| format!("blockIO.weightDevice[{index}].{name}");
        let line = |weight| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = device.weight {
            set_weight(dir, "weight_device", &line(weight), &field("weight"))?;
        }
        if let Some(weight) = device.leaf_weight {
            files::set(
                dir,
                "blkio.leaf_weight_device",
                &line(weight),
                &field("leafWeight"),
            )?;
        }
    }
    let throttles: [(&[DeviceRate], &str, &str); 4] = [
        (&io.read_bps, "read_bps", "throttleReadBpsDevice"),
        (&io.write_bps, "write_bps", "throttleWriteBpsDevice"),
        (&io.read_iops, "read_iops", "throttleReadIOPSDevice"),
        (&io.write_iops, "write_iops", "throttleWriteIOPSDevice"),
    ];
    for (devices, file, field) in throttles {
        for (index, device) in devices.iter().enumerate() {
            let line = format!("{}:{} {}", device.major, device.minor, device.rate);
            let file = format!("blkio.throttle.{file}_device");
            files::set(dir, &file, &line, &format!("blockIO.{field}[{index}]"))?;
        }
    }
    Ok(())
}

/// Kernels before 5.0 have weights of their own (CFQ), later ones those of the BFQ scheduler.
fn set_weight(dir: &Path, file: &str, value: &str, field: &str) -> Result<(), Error> {
    match files::write(&dir.join(format!("blkio.{file}")), value) {
        Err(Errno::ENOENT) => files::set(dir, &format!("blkio.bfq.{file}"), value, field),
        Err(answer) => Err(files::refused(
            &dir.join(format!("blkio.{file}")),
            value,
            field,
            answer,
        )),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::config::linux::resources::block_io::DeviceWeight;

    #[test]
    fn files_and_values() {
        let root = tempfile::tempdir().expect("has a directory");
        let dir = root.path();
        let files = [
            "blkio.bfq.weight",
            "blkio.weight_device",
            "blkio.throttle.write_iops_device",
        ];
        for file in files {
            std::fs::write(dir.join(file), "").expect("is written");
        }
        let io = BlockIo {
            weight: Some(500),
            weight_devices: vec![DeviceWeight {
                major: 8,
                minor: 1,
                weight: Some(30),
                leaf_weight: None,
            }],
            write_iops: vec![DeviceRate {
                major: 8,
                minor: 0,
                rate: 7,
            }],
            ..BlockIo::default()
        };
        set(dir, &io).expect("is set");
        let texts = files.map(|file| std::fs::read_to_string(dir.join(file)).expect("is there"));
        assert_eq!(texts, ["500", "8:1 30", "8:0 7"]);

        let io = BlockIo {
            leaf_weight: Some(10),
            ..BlockIo::default()
        };
        let error = set(dir, &io).expect_err("has no such file").to_string();
        let expected = format!("linux.resources.blockIO.leafWeight: {dir:?} has no");
        assert!(error.starts_with(&expected), "{error}");
    }
}
