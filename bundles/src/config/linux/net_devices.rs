//! `linux.netDevices`: network devices of the host that the container is given.
//!
//! Spec: config-linux.md#network-devices

use std::collections::HashMap;

use oci_spec::runtime::LinuxNetDevice;

use super::namespaces::{Kind, Namespaces};
use crate::validate::FieldError;

/// One network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_name: String,
    /// Its name in the container.
    pub name: String,
}

/// The kernel's IFNAMSIZ, with a NUL at the end.
const MAX_NAME: usize = 15;

/// Resolves the map, in the order of the names on the host.
///
/// # Errors
/// A name that no device can have, two devices of one name, or no network namespace.
pub(super) fn from_spec(
    devices: Option<&HashMap<String, LinuxNetDevice>>,
    namespaces: &Namespaces,
) -> Result<Vec<NetDevice>, FieldError> {
    let Some(devices) = devices.filter(|devices| !devices.is_empty()) else {
        return Ok(Vec::new());
    };
    if !namespaces.has(Kind::Network) {
        return Err(FieldError::new(
            "linux.netDevices",
            "is given without a network namespace to move the devices to",
        ));
    }
    let mut sorted: Vec<_> = devices.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    let mut resolved: Vec<NetDevice> = Vec::with_capacity(sorted.len());
    for (host_name, device) in sorted {
        let field = format!("linux.netDevices.{host_name}");
        check_name(host_name).map_err(|problem| FieldError::new(&field, problem))?;
        let name = device.name().as_deref().filter(|name| !name.is_empty());
        let name = name.unwrap_or(host_name);
        check_name(name).map_err(|problem| FieldError::new(format!("{field}.name"), problem))?;
        if let Some(other) = resolved.iter().find(|other| other.name == name) {
            let problem = format!("{name:?} is the name of {:?}, too", other.host_name);
            return Err(FieldError::new(format!("{field}.name"), problem));
        }
        resolved.push(NetDevice {
            host_name: host_name.clone(),
            name: name.to_owned(),
        });
    }
    Ok(resolved)
}

/// What the kernel takes for a device's name. A "%" would have it choose a number.
fn check_name(name: &str) -> Result<(), String> {
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_ascii_whitespace();
    let problem = if name.is_empty() {
        "is empty".into()
    } else if name.len() > MAX_NAME {
        format!("{name:?} is longer than {MAX_NAME} bytes")
    } else if name == "." || name == ".." || name.contains(bad) {
        format!("{name:?} is no name for a network device")
    } else {
        return Ok(());
    };
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(kind: &str, devices: &str) -> Result<Vec<NetDevice>, FieldError> {
        let list = format!(r#"[{{"type":"{kind}"}}]"#);
        let list: Vec<_> = serde_json::from_str(&list).expect(kind);
        let devices = serde_json::from_str(devices).expect(devices);
        from_spec(Some(&devices), &Namespaces::from_spec(&list)?)
    }

    #[test]
    fn a_device_keeps_its_name_unless_it_is_given_another() {
        let devices = resolved("network", r#"{"b":{"name":"c"},"a":{}}"#).expect("is good");
        let names: Vec<_> = devices
            .iter()
            .map(|device| (device.host_name.as_str(), device.name.as_str()))
            .collect();
        assert_eq!(names, [("a", "a"), ("b", "c")]);
        assert_eq!(resolved("pid", "{}"), Ok(Vec::new()));
    }

    #[test]
    fn bad_devices_are_named() {
        let cases = [
            ("pid", r#"{"a":{}}"#, "linux.netDevices: "),
            ("network", r#"{"a/b":{}}"#, "linux.netDevices.a/b: "),
            ("network", r#"{"":{}}"#, "linux.netDevices.: is empty"),
            (
                "network",
                r#"{"a":{"name":".."}}"#,
                "linux.netDevices.a.name: ",
            ),
            (
                "network",
                r#"{"a":{"name":"x%d"}}"#,
                "linux.netDevices.a.name: ",
            ),
            (
                "network",
                r#"{"a":{"name":"0123456789abcdef"}}"#,
                "linux.netDevices.a.name: ",
            ),
            (
                "network",
                r#"{"a":{"name":"c"},"b":{"name":"c"}}"#,
                "linux.netDevices.b.name: \"c\" is the name of \"a\", too",
            ),
        ];
        for (kind, devices, expected) in cases {
            let error = resolved(kind, devices).expect_err(devices).to_string();
            assert!(error.starts_with(expected), "{devices}: {error}");
        }
    }
}
