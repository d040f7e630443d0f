//! Device rules as systemd keeps them: all is denied but a list.
//!
//! ```text
//! c 1:3 rwm    /dev/char/1:3 rwm
//! c 136:* rw   char-pts rw           by the driver's name in /proc/devices
//! c *:* m      char-* m
//! ```
//! What cannot be said so is left to the rules that are set beside systemd's, which on v2 are a
//! program of ours: a device has to get past both.

use bundles::config::linux::resources::{DeviceKind, DeviceRule};

use super::unit::Property;
use super::value::Value;
use crate::cgroups::detect::Kind;
use crate::cgroups::device_rules::{Exception, Exceptions, container_rules};

/// The properties for `rules`; `drivers` is the text of /proc/devices.
pub(super) fn properties(rules: &[DeviceRule], kind: Kind, drivers: &str) -> Vec<Property> {
    let allowed = match Exceptions::from_rules(&container_rules(rules)) {
        Ok(exceptions) if !exceptions.default_allow => exceptions.list,
        // All but some, or what only a program can say.
        Ok(_) | Err(_) => return list("auto", Vec::new()),
    };
    let mut entries = Vec::new();
    for exception in &allowed {
        match entry(exception, drivers) {
            Some(entry) => entries.push(entry),
            None if kind == Kind::V2 => return list("auto", Vec::new()),
            // On v1 "auto" would allow everything whenever systemd looks at the unit again.
            None => (),
        }
    }
    list("strict", entries)
}

fn list(policy: &str, entries: Vec<Value>) -> Vec<Property> {
    let property = |name: &str, value| Property {
        name: name.into(),
        value,
        field: "linux.resources.devices".into(),
    };
    let mut properties = vec![
        property("DevicePolicy", Value::Text(policy.into())),
        // An empty list takes the one before away.
        property("DeviceAllow", Value::Array("(ss)".into(), Vec::new())),
    ];
    if !entries.is_empty() {
        properties.push(property(
            "DeviceAllow",
            Value::Array("(ss)".into(), entries),
        ));
    }
    properties
}

fn entry(exception: &Exception, drivers: &str) -> Option<Value> {
    let kind = match exception.kind {
        DeviceKind::Block => "block",
        DeviceKind::Char | DeviceKind::All => "char",
    };
    let name = match (exception.major, exception.minor) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{}", driver(drivers, exception.kind, major)?),
        (None, None) => format!("{kind}-*"),
        (None, Some(_)) => return None,
    };
    let line = exception.to_line();
    let access = line.rsplit(' ').next()?.to_owned();
    Some(Value::Struct(vec![Value::Text(name), Value::Text(access)]))
}

/// The name of a major number; names that are paths are not the drivers' own.
fn driver(drivers: &str, kind: DeviceKind, major: u32) -> Option<&str> {
    let section = match kind {
        DeviceKind::Block => "Block devices:",
        DeviceKind::Char | DeviceKind::All => "Character devices:",
    };
    let lines = drivers.lines().skip_while(|line| *line != section).skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim().split_once(' '))
        .find(|(number, name)| number.parse() == Ok(major) && !name.contains('/'))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use bundles::config::linux::resources::Resources;

    use super::*;

    const DRIVERS: &str = "Character devices:\n  1 mem\n  4 /dev/vc/0\n  4 tty\n136 pts\n\n\
                           Block devices:\n  7 loop\n";

    /// The policy, and the entries as `NAME ACCESS`, but for those of every container.
    fn of(rules: &str, kind: Kind) -> (String, Vec<String>) {
        let json = format!(r#"{{"devices": {rules}}}"#);
        let spec = serde_json::from_str(&json).expect("is well-formed");
        let resources = Resources::from_spec(Some(&spec)).expect("is in range");
        let always = properties(&[], Kind::V2, DRIVERS);
        let entries = |properties: &[Property]| match properties.get(2).map(|p| &p.value) {
            Some(Value::Array(_, entries)) => entries.iter().map(text).collect(),
            _ => Vec::new(),
        };
        let properties = properties(&resources.devices, kind, DRIVERS);
        let known = entries(&always);
        let mut found = entries(&properties);
        found.retain(|entry| !known.contains(entry));
        (text(&properties[0].value), found)
    }

    fn text(value: &Value) -> String {
        match value {
            Value::Text(text) => text.clone(),
            Value::Struct(fields) => fields.iter().map(text).collect::<Vec<_>>().join(" "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists() {
        let deny = r#"{"allow": false, "access": "rwm"}"#;
        let rule = |rest: &str| format!(r#"[{deny}, {{"allow": true, {rest}}}]"#);
        let table: [(String, Kind, &str, &[&str]); 7] = [
            (format!("[{deny}]"), Kind::V2, "strict", &[]),
            (
                rule(r#""type": "b", "major": 7, "minor": 2, "access": "rw""#),
                Kind::V2,
                "strict",
                &["/dev/block/7:2 rwm"],
            ),
            (
                rule(r#""type": "b", "major": 7, "access": "r""#),
                Kind::V2,
                "strict",
                &["block-loop rm"],
            ),
            (
                rule(r#""type": "c", "major": 4, "access": "rwm""#),
                Kind::V1,
                "strict",
                &["char-tty rwm"],
            ),
            // No driver of this number: v2's program knows it all the same.
            (
                rule(r#""type": "c", "major": 99, "access": "r""#),
                Kind::V2,
                "auto",
                &[],
            ),
            (
                rule(r#""type": "c", "major": 99, "access": "r""#),
                Kind::V1,
                "strict",
                &[],
            ),
            (
                r#"[{"allow": true, "access": "rwm"}]"#.into(),
                Kind::V2,
                "auto",
                &[],
            ),
        ];
        for (rules, kind, policy, entries) in table {
            let (found_policy, found) = of(&rules, kind);
            assert_eq!(
                (found_policy.as_str(), found),
                (policy, entries.iter().map(|e| (*e).to_owned()).collect()),
                "{rules}"
            );
        }
    }
}
