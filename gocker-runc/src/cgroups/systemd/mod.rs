//! The cgroup of a container in the care of systemd: a unit that is started when the container
//! is made and goes when it is deleted.
//!
//! ```text
//! Scope::plan ── connect, name the unit and its cgroup      (nothing is made)
//!     the cgroup is made, init is cloned into it
//! Scope::start ── StartTransientUnit(PIDs=[init], limits) ── JobRemoved
//!     files are written that systemd has no property for
//!
//! Unit, in state.json ── update: SetUnitProperties    stop: StopUnit, ResetFailedUnit
//! ```
//!
//! The directory is made before the unit, at the place where systemd will look for it: so init
//! is born in it, and does not wait for systemd.
//!
//! See <https://systemd.io/CONTROL_GROUP_INTERFACE/>.

mod address;
mod annotations;
mod dbus;
mod devices;
mod error;
mod instance;
mod message;
mod name;
mod text;
mod unit;
mod value;

use std::collections::HashMap;
use std::path::Path;

use bundles::config::linux::resources::Resources;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::detect::Kind;
use super::files;
pub(crate) use annotations::ANNOTATION;
use annotations::annotated;
use dbus::{Connection, Ended};
pub(crate) use error::Error;
pub(crate) use instance::Instance;
use message::{Message, Target};
use name::Name;
use unit::Property;
use value::Value;

/// A unit that is there: what `state.json` keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// Its name, with its suffix.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) instance: Instance,
}

/// A unit that is to be started.
#[derive(Debug)]
pub(crate) struct Scope {
    name: Name,
    instance: Instance,
    id: String,
    connection: Connection,
    /// The cgroup of the systemd that makes it; empty for the machine's.
    above: String,
    /// `org.systemd.property.*`
    annotated: Vec<Property>,
    /// Whether systemd has agreed to start it.
    is_started: bool,
}

const MANAGER: Target<'_> = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

impl Scope {
    /// Names the unit of container `id`, and connects to systemd. Makes nothing.
    ///
    /// # Errors
    /// A `cgroupsPath` of another form, an annotation that is no property; no systemd.
    pub(crate) fn plan(
        instance: Instance,
        cgroups_path: Option<&str>,
        id: &str,
        annotations: &HashMap<String, String>,
    ) -> Result<Self, super::Error> {
        let name = Name::parse(cgroups_path, id, instance.default_slice())?;
        let annotated = annotated(annotations)?;
        let mut connection = instance.connect()?;
        let above = match instance {
            Instance::System => String::new(),
            Instance::User => text_property(&mut connection, "ControlGroup")?,
        };
        Ok(Self {
            name,
            instance,
            id: id.to_owned(),
            connection,
            above,
            annotated,
            is_started: false,
        })
    }

    /// Where the cgroup is, from the root of each hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        format!("{}{}", self.above, self.name.cgroup())
    }

    /// What to keep in `state.json`.
    pub(crate) fn unit(&self) -> Unit {
        Unit {
            name: self.name.unit.clone(),
            instance: self.instance,
        }
    }

    /// The unit, where systemd has agreed to start it: what has to be stopped again.
    pub(crate) fn started(&self) -> Option<Unit> {
        self.is_started.then(|| self.unit())
    }

    /// Has systemd start the unit with the process `pid`, and waits until it is there.
    ///
    /// # Errors
    /// A unit of this name that is there; a limit that systemd refuses, by its field; a time-out.
    pub(crate) fn start(
        &mut self,
        pid: Pid,
        resources: &Resources,
        kind: Kind,
    ) -> Result<(), super::Error> {
        let unit = self.name.unit.clone();
        let step = format!("start unit {unit:?}");
        let mut properties = self.fixed(pid, kind);
        properties.extend(limits(&mut self.connection, resources, kind)?);
        if self.instance == Instance::System {
            properties.extend(device_list(resources, kind)?);
        }
        properties.extend(self.annotated.iter().cloned());
        let arguments = [
            text(&unit),
            text("fail"),
            written(&properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let start = member("StartTransientUnit");
        let mut started = self.connection.call(&step, &start, &arguments);
        if is_refusal(&started, UNIT_EXISTS) {
            // What failed once is kept until somebody asks.
            reset_failed(&mut self.connection, &unit)?;
            started = self.connection.call(&step, &start, &arguments);
        }
        let started = started.map_err(|error| named(error, &properties, &unit))?;
        self.is_started = true;
        match self.connection.wait_for_job(&step, &first(&started))? {
            Ended::Done => Ok(()),
            Ended::Unheard => Ok(check_active(&mut self.connection, &step, &unit)?),
        }
    }

    fn fixed(&self, pid: Pid, kind: Kind) -> Vec<Property> {
        let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
        let io = match kind {
            Kind::V1 => "BlockIOAccounting",
            Kind::V2 => "IOAccounting",
        };
        let mut properties = vec![
            fixed(
                "Description",
                text(&format!("gocker-runc container {}", self.id)),
            ),
            fixed("DefaultDependencies", Value::Bool(false)),
        ];
        for name in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", io] {
            properties.push(fixed(name, Value::Bool(true)));
        }
        let slice = &self.name.slice;
        if self.name.is_slice() {
            // It holds other units; who is in it is not systemd's affair.
            let wants = Value::Array("s".into(), vec![text(slice)]);
            properties.push(fixed("Wants", wants));
        } else {
            let pids = Value::Array("u".into(), vec![Value::Uint32(pid)]);
            properties.push(fixed("Slice", text(slice)));
            properties.push(fixed("Delegate", Value::Bool(true)));
            properties.push(fixed("PIDs", pids));
        }
        properties
    }
}

impl Unit {
    /// Tells systemd the limits that change.
    ///
    /// # Errors
    /// No systemd; a limit that it refuses, by its field; a time-out.
    pub(crate) fn update(&self, resources: &Resources, kind: Kind) -> Result<(), super::Error> {
        let mut connection = self.instance.connect()?;
        let mut properties = limits(&mut connection, resources, kind)?;
        if self.instance == Instance::System && !resources.devices.is_empty() {
            properties.extend(device_list(resources, kind)?);
        }
        if properties.is_empty() {
            return Ok(());
        }
        let step = format!("change unit {:?}", self.name);
        // For as long as it runs.
        let arguments = [text(&self.name), Value::Bool(true), written(&properties)];
        connection
            .call(&step, &member("SetUnitProperties"), &arguments)
            .map_err(|error| named(error, &properties, &self.name))?;
        Ok(())
    }

    /// Moves process `pid` to `place` beneath the unit's cgroup, where this caller has not the
    /// right.
    ///
    /// # Errors
    /// No systemd; its refusal.
    pub(crate) fn attach(&self, pid: Pid, place: &Path) -> Result<(), super::Error> {
        let step = format!("move process {pid} into unit {:?}", self.name);
        let pid = Value::Uint32(u32::try_from(pid.as_raw()).unwrap_or_default());
        let pids = Value::Array("u".into(), vec![pid]);
        // Empty, or a path from the unit's cgroup on.
        let place = match place.to_string_lossy().trim_start_matches('/') {
            "" => String::new(),
            place => format!("/{place}"),
        };
        let arguments = [text(&self.name), text(&place), pids];
        let mut connection = self.instance.connect()?;
        connection.call(&step, &member("AttachProcessesToUnit"), &arguments)?;
        Ok(())
    }

    /// Stops the unit, whose processes have ended. One that is gone is no error.
    ///
    /// # Errors
    /// No systemd; its refusal; a time-out.
    pub(crate) fn stop(&self) -> Result<(), super::Error> {
        let mut connection = self.instance.connect()?;
        let step = format!("stop unit {:?}", self.name);
        let arguments = [text(&self.name), text("replace")];
        let stopped = connection.call(&step, &member("StopUnit"), &arguments);
        if is_refusal(&stopped, NO_SUCH_UNIT) {
            return Ok(());
        }
        connection.wait_for_job(&step, &first(&stopped?))?;
        Ok(reset_failed(&mut connection, &self.name)?)
    }
}

/// What a job has left where nobody heard how it ended.
fn check_active(connection: &mut Connection, step: &str, unit: &str) -> Result<(), Error> {
    let found = connection.call(step, &member("GetUnit"), &[text(unit)])?;
    let path = first(&found);
    let target = Target {
        path: &path,
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
        ..MANAGER
    };
    let names = ["org.freedesktop.systemd1.Unit", "ActiveState"].map(text);
    let answer = connection.call(step, &target, &names)?;
    match first(&answer) {
        state if state == "active" => Ok(()),
        result => Err(Error::Job {
            step: step.to_owned(),
            result,
        }),
    }
}

/// A unit that has failed stays in systemd's list; nobody asks for this one any more.
fn reset_failed(connection: &mut Connection, unit: &str) -> Result<(), Error> {
    let step = format!("forget unit {unit:?}");
    let reset = connection.call(&step, &member("ResetFailedUnit"), &[text(unit)]);
    if is_refusal(&reset, NO_SUCH_UNIT) {
        return Ok(());
    }
    reset.map(drop)
}

fn limits(
    connection: &mut Connection,
    resources: &Resources,
    kind: Kind,
) -> Result<Vec<Property>, super::Error> {
    let version = if unit::needs_version(resources) {
        version(&text_property(connection, "Version")?)
    } else {
        0
    };
    Ok(unit::properties(resources, kind, version)?)
}

fn device_list(resources: &Resources, kind: Kind) -> Result<Vec<Property>, super::Error> {
    let drivers = files::read_in(Path::new("/proc"), "devices")?;
    Ok(devices::properties(&resources.devices, kind, &drivers))
}

/// `252.39-1~deb12u1`, `v249` or `256~rc3`.
fn version(text: &str) -> u32 {
    let text = text.trim_start_matches(|char: char| !char.is_ascii_digit());
    let end = text.find(|char: char| !char.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().unwrap_or(0)
}

/// A property of systemd itself.
fn text_property(connection: &mut Connection, name: &str) -> Result<String, Error> {
    let target = Target {
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
        ..MANAGER
    };
    let step = format!("ask systemd for its {name}");
    let answer = connection.call(&step, &target, &[text(MANAGER.interface), text(name)])?;
    Ok(answer
        .texts()
        .and_then(|texts| texts.into_iter().next())
        .unwrap_or_default())
}

/// Names the field that asked for a property which systemd refuses.
fn named(error: Error, properties: &[Property], unit: &str) -> Error {
    let Error::Refused { name, text, step } = error else {
        return error;
    };
    let is_part = |char: char| !char.is_ascii_alphanumeric();
    let refused = properties
        .iter()
        .rev()
        .find(|property| text.split(is_part).any(|word| word == property.name));
    match refused.filter(|property| !property.field.is_empty()) {
        Some(property) => Error::Property {
            field: property.field.clone(),
            property: property.name.clone(),
            unit: unit.to_owned(),
            name,
            text,
        },
        None => Error::Refused { step, name, text },
    }
}

fn member(member: &str) -> Target<'_> {
    Target { member, ..MANAGER }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn fixed(name: &str, value: Value) -> Property {
    Property {
        name: name.to_owned(),
        value,
        field: String::new(),
    }
}

fn written(properties: &[Property]) -> Value {
    let pair = |property: &Property| {
        let value = Value::Variant(Box::new(property.value.clone()));
        Value::Struct(vec![text(&property.name), value])
    };
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

/// The first text of a reply: the path of a job or a unit, or a property.
fn first(reply: &Message) -> String {
    reply
        .texts()
        .unwrap_or_default()
        .into_iter()
        .next()
        .unwrap_or_default()
}

fn is_refusal(answer: &Result<Message, Error>, wanted: &str) -> bool {
    matches!(answer, Err(Error::Refused { name, .. }) if name == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("252.39-1~deb12u1", 252),
            ("v249.11-0ubuntu3", 249),
            ("256~rc3", 256),
            ("", 0),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn a_refused_property_is_told_by_its_field() {
        let refused = |text: &str| Error::Refused {
            step: "start unit \"a.scope\"".into(),
            name: "org.x.No".into(),
            text: text.into(),
        };
        let properties = [
            fixed("Slice", text("x")),
            Property {
                name: "TasksMax".into(),
                value: Value::Uint64(0),
                field: "linux.resources.pids.limit".into(),
            },
        ];
        let out_of_range = "Value specified in TasksMax is out of range";
        let error = named(refused(out_of_range), &properties, "a.scope");
        assert_eq!(
            error.to_string(),
            "linux.resources.pids.limit: property TasksMax of \"a.scope\": systemd: \
             Value specified in TasksMax is out of range (org.x.No)"
        );
        let error = named(refused("Slice is bad"), &properties, "a.scope");
        assert_eq!(
            error.to_string(),
            "start unit \"a.scope\": systemd: Slice is bad (org.x.No)"
        );
    }
}
