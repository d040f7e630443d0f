//! `linux.resources.devices`: who may read, write and make which device nodes.
//!
//! The rules are ordered. For each kind of access to a device the last rule that covers it
//! decides; what no rule covers is denied.
//!
//! Spec: config-linux.md#configLinuxDeviceAllowedlist

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::FieldError;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether what the rule covers is allowed or denied.
    pub allow: bool,
    /// The kind of device.
    pub kind: DeviceKind,
    /// The major number; None covers all.
    pub major: Option<u32>,
    /// The minor number; None covers all.
    pub minor: Option<u32>,
    /// The kinds of access.
    pub access: DeviceAccess,
}

/// Which devices a rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// Block and character devices: `a`, or no type.
    All,
    /// Block devices: `b`.
    Block,
    /// Character devices: `c`.
    Char,
}

/// A set of kinds of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceAccess {
    /// `r`
    pub read: bool,
    /// `w`
    pub write: bool,
    /// `m`: making a node.
    pub mknod: bool,
}

impl DeviceAccess {
    /// Every kind of access.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        mknod: true,
    };
    /// Making nodes, which gives no access to what they name.
    pub const MKNOD: Self = Self {
        read: false,
        write: false,
        mknod: true,
    };

    fn parse(text: &str) -> Result<Self, String> {
        let mut access = Self::default();
        for letter in text.chars() {
            let part = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.mknod,
                other => return Err(format!("{text:?}: {other:?} is none of r, w and m")),
            };
            *part = true;
        }
        if access == Self::default() {
            return Err("is empty; it names some of r, w and m".to_owned());
        }
        Ok(access)
    }
}

/// Displays as the letters that stand for it, in the order `rwm`.
impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, has) in [("r", self.read), ("w", self.write), ("m", self.mknod)] {
            f.write_str(if has { letter } else { "" })?;
        }
        Ok(())
    }
}

/// The rules of every container, which come after those of its configuration: any node may be
/// made, and the nodes of the default `/dev` may be used.
///
/// Spec: config-linux.md#configLinuxDefaultDevices
pub const DEFAULT_RULES: [DeviceRule; 11] = [
    DeviceRule {
        access: DeviceAccess::MKNOD,
        ..char_device(None, None)
    },
    DeviceRule {
        access: DeviceAccess::MKNOD,
        kind: DeviceKind::Block,
        ..char_device(None, None)
    },
    // null, zero, full, random, urandom
    char_device(Some(1), Some(3)),
    char_device(Some(1), Some(5)),
    char_device(Some(1), Some(7)),
    char_device(Some(1), Some(8)),
    char_device(Some(1), Some(9)),
    // tty, console, ptmx
    char_device(Some(5), Some(0)),
    char_device(Some(5), Some(1)),
    char_device(Some(5), Some(2)),
    // every terminal beneath /dev/pts
    char_device(Some(136), None),
];

const fn char_device(major: Option<u32>, minor: Option<u32>) -> DeviceRule {
    DeviceRule {
        allow: true,
        kind: DeviceKind::Char,
        major,
        minor,
        access: DeviceAccess::ALL,
    }
}

pub(super) fn from_spec(spec: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, FieldError> {
    let rule = |(index, rule)| DeviceRule::from_spec(index, rule);
    spec.iter().enumerate().map(rule).collect()
}

impl DeviceRule {
    fn from_spec(index: usize, spec: &LinuxDeviceCgroup) -> Result<Self, FieldError> {
        let field = |name: &str| format!("linux.resources.devices[{index}].{name}");
        let number = |name: &str, number: Option<i64>| match number {
            // -1 is what engines write for "all".
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number).map(Some).map_err(|_| {
                FieldError::new(field(name), format!("{number} is not a device number"))
            }),
        };
        let kind = match spec.typ() {
            None | Some(LinuxDeviceType::A) => DeviceKind::All,
            Some(LinuxDeviceType::B) => DeviceKind::Block,
            Some(LinuxDeviceType::C) => DeviceKind::Char,
            Some(other) => {
                let problem = format!("{:?} is none of \"a\", \"b\" and \"c\"", other.as_str());
                return Err(FieldError::new(field("type"), problem));
            }
        };
        let access = DeviceAccess::parse(spec.access().as_deref().unwrap_or_default());
        Ok(Self {
            allow: spec.allow(),
            kind,
            major: number("major", spec.major())?,
            minor: number("minor", spec.minor())?,
            access: access.map_err(|problem| FieldError::new(field("access"), problem))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::resources;
    use super::*;

    fn rule(json: &str) -> Result<DeviceRule, String> {
        resources(&format!(r#"{{"devices": [{json}]}}"#)).map(|resources| resources.devices[0])
    }

    #[test]
    fn values() {
        let all = DeviceRule {
            allow: false,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: DeviceAccess::ALL,
        };
        let disk = DeviceRule {
            allow: true,
            kind: DeviceKind::Block,
            major: Some(8),
            access: DeviceAccess {
                read: true,
                ..DeviceAccess::default()
            },
            ..all
        };
        let table = [
            (r#"{"allow": false, "access": "rwm"}"#, all),
            (
                r#"{"type": "a", "major": -1, "minor": -1, "access": "mwrr"}"#,
                all,
            ),
            (
                r#"{"allow": true, "type": "b", "major": 8, "access": "r"}"#,
                disk,
            ),
        ];
        for (json, expected) in table {
            assert_eq!(rule(json), Ok(expected), "{json}");
        }
    }

    #[test]
    fn refusals() {
        let table = [
            (
                r#"{"allow": true}"#,
                "access: is empty; it names some of r, w and m",
            ),
            (
                r#"{"access": "rx"}"#,
                r#"access: "rx": 'x' is none of r, w and m"#,
            ),
            (
                r#"{"type": "p", "access": "r"}"#,
                r#"type: "p" is none of "a", "b" and "c""#,
            ),
            (
                r#"{"major": -2, "access": "r"}"#,
                "major: -2 is not a device number",
            ),
            (
                r#"{"minor": 4294967296, "access": "r"}"#,
                "minor: 4294967296 is not a device number",
            ),
        ];
        for (json, expected) in table {
            let expected = format!("linux.resources.devices[0].{expected}");
            assert_eq!(rule(json), Err(expected), "{json}");
        }
    }

    #[test]
    fn access_letters() {
        assert_eq!(DeviceAccess::ALL.to_string(), "rwm");
        assert_eq!(DeviceAccess::MKNOD.to_string(), "m");
    }
}
