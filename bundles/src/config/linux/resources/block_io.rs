//! `linux.resources.blockIO`
//!
//! Spec: config-linux.md#configLinuxBlockIO

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use crate::FieldError;

/// Shares and ceilings for block devices. Weights are 10 to 1000.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// `weight`
    pub weight: Option<u16>,
    /// `leafWeight`: against the cgroups beneath.
    pub leaf_weight: Option<u16>,
    /// `weightDevice`
    pub weight_devices: Vec<DeviceWeight>,
    /// `throttleReadBpsDevice`: bytes per second.
    pub read_bps: Vec<DeviceRate>,
    /// `throttleWriteBpsDevice`: bytes per second.
    pub write_bps: Vec<DeviceRate>,
    /// `throttleReadIOPSDevice`: operations per second.
    pub read_iops: Vec<DeviceRate>,
    /// `throttleWriteIOPSDevice`: operations per second.
    pub write_iops: Vec<DeviceRate>,
}

/// A weight for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceWeight {
    /// The device's major number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// `weight`
    pub weight: Option<u16>,
    /// `leafWeight`
    pub leaf_weight: Option<u16>,
}

/// A ceiling for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRate {
    /// The device's major number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// Bytes or operations per second; 0 lifts the ceiling.
    pub rate: u64,
}

impl BlockIo {
    pub(super) fn from_spec(spec: Option<&LinuxBlockIo>) -> Result<Self, FieldError> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        Ok(Self {
            weight: weight(&field("weight"), spec.weight())?,
            leaf_weight: weight(&field("leafWeight"), spec.leaf_weight())?,
            weight_devices: weight_devices(spec.weight_device().as_deref().unwrap_or_default())?,
            read_bps: rates("throttleReadBpsDevice", spec.throttle_read_bps_device())?,
            write_bps: rates("throttleWriteBpsDevice", spec.throttle_write_bps_device())?,
            read_iops: rates("throttleReadIOPSDevice", spec.throttle_read_iops_device())?,
            write_iops: rates("throttleWriteIOPSDevice", spec.throttle_write_iops_device())?,
        })
    }
}

fn field(name: &str) -> String {
    format!("linux.resources.blockIO.{name}")
}

fn weight(field: &str, number: Option<u16>) -> Result<Option<u16>, FieldError> {
    match number {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => Err(FieldError::new(
            field,
            format!("{weight} is not in 10 to 1000"),
        )),
    }
}

fn device_number(field: String, number: i64) -> Result<u32, FieldError> {
    let refuse = |_| FieldError::new(field, format!("{number} is not a device number"));
    u32::try_from(number).map_err(refuse)
}

fn weight_devices(spec: &[LinuxWeightDevice]) -> Result<Vec<DeviceWeight>, FieldError> {
    let read = |(index, device): (usize, &LinuxWeightDevice)| {
        let field = |name: &str| field(&format!("weightDevice[{index}].{name}"));
        let read = DeviceWeight {
            major: device_number(field("major"), device.major())?,
            minor: device_number(field("minor"), device.minor())?,
            weight: weight(&field("weight"), device.weight())?,
            leaf_weight: weight(&field("leafWeight"), device.leaf_weight())?,
        };
        if read.weight.is_none() && read.leaf_weight.is_none() {
            return Err(FieldError::new(
                field("weight"),
                "is missing, as is leafWeight",
            ));
        }
        Ok(read)
    };
    spec.iter().enumerate().map(read).collect()
}

fn rates(
    name: &str,
    spec: &Option<Vec<LinuxThrottleDevice>>,
) -> Result<Vec<DeviceRate>, FieldError> {
    let read = |(index, device): (usize, &LinuxThrottleDevice)| {
        let field = |part: &str| field(&format!("{name}[{index}].{part}"));
        Ok(DeviceRate {
            major: device_number(field("major"), device.major())?,
            minor: device_number(field("minor"), device.minor())?,
            rate: device.rate(),
        })
    };
    spec.iter().flatten().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::resources;
    use super::*;

    fn block_io(json: &str) -> Result<BlockIo, String> {
        resources(&format!(r#"{{"blockIO": {json}}}"#)).map(|resources| resources.block_io)
    }

    #[test]
    fn values() {
        let read = block_io(
            r#"{"weight": 10, "leafWeight": 0,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}]}"#,
        );
        let expected = BlockIo {
            weight: Some(10),
            weight_devices: vec![DeviceWeight {
                major: 8,
                minor: 0,
                weight: Some(500),
                leaf_weight: Some(300),
            }],
            read_bps: vec![DeviceRate {
                major: 8,
                minor: 0,
                rate: 600,
            }],
            write_iops: vec![DeviceRate {
                major: 8,
                minor: 16,
                rate: 300,
            }],
            ..BlockIo::default()
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn refusals() {
        let table = [
            (r#"{"weight": 9}"#, "weight: 9 is not in 10 to 1000"),
            (
                r#"{"leafWeight": 1001}"#,
                "leafWeight: 1001 is not in 10 to 1000",
            ),
            (
                r#"{"weightDevice": [{"major": 8, "minor": 0}]}"#,
                "weightDevice[0].weight: is missing, as is leafWeight",
            ),
            (
                r#"{"throttleReadIOPSDevice": [{"major": -8, "minor": 0, "rate": 1}]}"#,
                "throttleReadIOPSDevice[0].major: -8 is not a device number",
            ),
        ];
        for (json, expected) in table {
            assert_eq!(
                block_io(json),
                Err(format!("linux.resources.blockIO.{expected}")),
                "{json}"
            );
        }
    }
}
