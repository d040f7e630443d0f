//! `linux.devices`: device nodes beyond the ones that every container has.
//!
//! Spec: config-linux.md#devices

use std::fmt;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use crate::validate::FieldError;

/// What mknod(2) makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A named pipe.
    Fifo,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Char => "character",
            Self::Fifo => "pipe",
        })
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where, inside the container; absolute.
    pub path: PathBuf,
    /// Its kind.
    pub kind: DeviceKind,
    /// Major number; 0 for a named pipe.
    pub major: u32,
    /// Minor number; 0 for a named pipe.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
}

/// The kernel's largest major number (12 bits) and minor number (20 bits).
const MAX_MAJOR: i64 = 0xfff;
const MAX_MINOR: i64 = 0xf_ffff;

pub(super) fn from_spec(list: &[LinuxDevice]) -> Result<Vec<Device>, FieldError> {
    let mut devices: Vec<Device> = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let device = resolve(index, entry)?;
        if devices.iter().any(|earlier| earlier.path == device.path) {
            let field = format!("linux.devices[{index}].path");
            return Err(FieldError::new(
                field,
                format!("{:?} is given twice", device.path),
            ));
        }
        devices.push(device);
    }
    Ok(devices)
}

fn resolve(index: usize, entry: &LinuxDevice) -> Result<Device, FieldError> {
    let field = |name: &str| format!("linux.devices[{index}].{name}");
    if !entry.path().is_absolute() {
        let problem = format!("{:?} is not an absolute path", entry.path());
        return Err(FieldError::new(field("path"), problem));
    }
    let kind = match entry.typ() {
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
        LinuxDeviceType::P => DeviceKind::Fifo,
        LinuxDeviceType::A => {
            return Err(FieldError::new(
                field("type"),
                "\"a\" is a rule, not a node: b, c, u or p",
            ));
        }
    };
    let number = |name: &str, value: i64, max: i64| match u32::try_from(value) {
        _ if kind == DeviceKind::Fifo => Ok(0),
        Ok(number) if value <= max => Ok(number),
        _ => Err(FieldError::new(
            field(name),
            format!("{value} is outside 0 to {max}"),
        )),
    };
    if kind != DeviceKind::Fifo && entry.major() == 0 && entry.minor() == 0 {
        return Err(FieldError::new(
            field("major"),
            "major and minor are missing or both 0",
        ));
    }
    let mode = entry.file_mode().unwrap_or(0o666);
    Ok(Device {
        path: entry.path().clone(),
        kind,
        major: number("major", entry.major(), MAX_MAJOR)?,
        minor: number("minor", entry.minor(), MAX_MINOR)?,
        // Engines send st_mode as stat(2) gave it, type bits and all.
        mode: mode & 0o7777,
        uid: entry.uid().unwrap_or(0),
        gid: entry.gid().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_devices_are_named() {
        let cases = [
            (
                r#"[{"path":"dev/x","type":"c","major":1,"minor":3}]"#,
                "linux.devices[0].path: ",
            ),
            (
                r#"[{"path":"/dev/x","type":"a","major":1,"minor":3}]"#,
                "linux.devices[0].type: ",
            ),
            (
                r#"[{"path":"/dev/x","type":"c","major":4096,"minor":3}]"#,
                "linux.devices[0].major: ",
            ),
            (
                r#"[{"path":"/dev/x","type":"b","major":1,"minor":-1}]"#,
                "linux.devices[0].minor: ",
            ),
            (
                r#"[{"path":"/x","type":"p"},{"path":"/x","type":"p"}]"#,
                "linux.devices[1].path: \"/x\" is given twice",
            ),
        ];
        for (text, expected) in cases {
            let list: Vec<LinuxDevice> = serde_json::from_str(text).expect(text);
            let error = from_spec(&list).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
