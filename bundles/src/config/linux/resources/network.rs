//! `linux.resources.network`
//!
//! Spec: config-linux.md#configLinuxNetwork

use oci_spec::runtime::LinuxNetwork;

use crate::FieldError;

/// How the packets of the container are marked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `classID`; 0 is no class, and asks for nothing.
    pub class_id: Option<u32>,
    /// `priorities`, in order.
    pub priorities: Vec<InterfacePriority>,
}

/// The priority of packets that leave by one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfacePriority {
    /// The interface, by its name in the runtime's network namespace.
    pub name: String,
    /// Its priority.
    pub priority: u32,
}

impl Network {
    pub(super) fn from_spec(spec: Option<&LinuxNetwork>) -> Result<Self, FieldError> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        let mut priorities = Vec::new();
        for (index, priority) in spec.priorities().iter().flatten().enumerate() {
            let name = priority.name();
            // The file's lines are `INTERFACE PRIORITY`.
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0') {
                let field = format!("linux.resources.network.priorities[{index}].name");
                return Err(FieldError::new(
                    field,
                    format!("{name:?} is not an interface"),
                ));
            }
            let priority = priority.priority();
            priorities.push(InterfacePriority {
                name: name.clone(),
                priority,
            });
        }
        Ok(Self {
            class_id: spec.class_id().filter(|class| *class != 0),
            priorities,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::resources;
    use super::*;

    #[test]
    fn values_and_refusals() {
        let read = |json: &str| {
            resources(&format!(r#"{{"network": {json}}}"#)).map(|resources| resources.network)
        };
        let expected = Network {
            class_id: Some(0x10_0001),
            priorities: vec![InterfacePriority {
                name: "eth0".into(),
                priority: 5,
            }],
        };
        let json = r#"{"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}"#;
        assert_eq!(read(json), Ok(expected));
        assert_eq!(read(r#"{"classID": 0}"#), Ok(Network::default()));
        for name in ["", "a b"] {
            let json = format!(r#"{{"priorities": [{{"name": "{name}", "priority": 5}}]}}"#);
            let expected =
                format!("linux.resources.network.priorities[0].name: {name:?} is not an interface");
            assert_eq!(read(&json), Err(expected));
        }
    }
}
