//! What a user asks of a container beyond its image, and how it is laid over a runtime config.
//!
//! Each value is parsed where it enters, so that what is wrong is said of the flag that it was
//! given by; what two of them say against each other is said here.

mod mount;
mod signal;
mod values;

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};

pub use mount::{MountFlag, MountOption, OptionError, TmpfsFlag, VolumeFlag};
pub use signal::parse_signal;
pub use values::{CapabilityOption, DeviceOption, PairOption, SecurityOption, Ulimit};

/// The annotation by which images and engines say how a container is asked to end.
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";
/// Where the default config has its shared memory.
const SHARED_MEMORY: &str = "/dev/shm";

/// What a user asks for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// More mounts, in their order.
    pub mounts: Vec<MountOption>,
    /// Devices of the host's.
    pub devices: Vec<DeviceOption>,
    /// Capabilities beyond the usual ones.
    pub cap_add: Vec<CapabilityOption>,
    /// Usual capabilities that are taken away.
    pub cap_drop: Vec<CapabilityOption>,
    /// Whether nothing can be written to the root file system.
    pub read_only: bool,
    /// Confinement by the kernel's security modules.
    pub security: Vec<SecurityOption>,
    /// Limits of single processes.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: Vec<PairOption>,
    /// Annotations of config.json, over those of the image.
    pub annotations: Vec<PairOption>,
    /// More groups, by number or by the image's names.
    pub groups: Vec<String>,
    /// How the container is asked to end.
    pub stop_signal: Option<String>,
    /// Memory and swap together; -1 for as much as there is.
    pub memory_swap: Option<i64>,
    /// What the kernel leaves the container of its memory when others need some.
    pub memory_reservation: Option<i64>,
    /// The weight beside other containers; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// The processors, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// The memory nodes.
    pub cpuset_mems: Option<String>,
    /// How much sooner than others it is ended when memory is short.
    pub oom_score_adj: Option<i32>,
    /// The size of /dev/shm.
    pub shm_size: Option<u64>,
}

impl RunOptions {
    /// Lays what was asked for over `spec`.
    pub(super) fn lay_over(&self, spec: &Spec) -> anyhow::Result<Spec> {
        let mut config = serde_json::to_value(spec)?;
        self.check(&config)?;
        self.lay_mounts(&mut config)?;
        self.lay_devices(&mut config)?;
        self.lay_capabilities(&mut config);
        self.lay_limits(&mut config);
        for option in &self.security {
            option.lay_over(&mut config);
        }
        if self.read_only {
            config["root"]["readonly"] = json!(true);
        }
        for (part, pairs) in [
            ("annotations", &self.annotations),
            ("sysctl", &self.sysctls),
        ] {
            let place = match part {
                "sysctl" => &mut config["linux"]["sysctl"],
                part => &mut config[part],
            };
            for pair in pairs {
                object(place).insert(pair.name.clone(), json!(pair.value));
            }
        }
        if let Some(signal) = &self.stop_signal {
            config["annotations"][STOP_SIGNAL] = json!(signal);
        }
        Ok(serde_json::from_value(config)?)
    }

    fn check(&self, config: &Value) -> Result<(), OptionError> {
        let memory = config["linux"]["resources"]["memory"]["limit"].as_i64();
        match (self.memory_swap, memory) {
            (Some(_), None) => {
                return Err(OptionError::new(
                    "--memory-swap",
                    "it needs --memory beside it",
                ));
            }
            (Some(swap), Some(memory)) if swap >= 0 && swap < memory => {
                let reason = "it counts memory and swap together, and is less than --memory";
                return Err(OptionError::new("--memory-swap", reason));
            }
            _ => {}
        }
        if let (Some(reservation), Some(memory)) = (self.memory_reservation, memory)
            && reservation > memory
        {
            return Err(OptionError::new(
                "--memory-reservation",
                "it is more than --memory",
            ));
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            let is_same = |other: &MountOption| other.destination == mount.destination;
            if self.mounts[..index].iter().any(is_same) {
                let reason = format!("two mounts have the destination {:?}", mount.destination);
                return Err(OptionError::new(mount.flag, reason));
            }
        }
        Ok(())
    }

    fn lay_mounts(&self, config: &mut Value) -> anyhow::Result<()> {
        if let Some(bytes) = self.shm_size {
            let mounts = array(&mut config["mounts"]).iter_mut();
            for mount in mounts.filter(|mount| mount["destination"] == SHARED_MEMORY) {
                let options = array(&mut mount["options"]);
                options.retain(|option| !option.as_str().is_some_and(|o| o.starts_with("size=")));
                options.push(json!(format!("size={bytes}")));
            }
        }
        for mount in &self.mounts {
            let mount = mount.to_json()?;
            let mounts = array(&mut config["mounts"]);
            // what a user mounts is instead of what would be there
            mounts.retain(|other| other["destination"] != mount["destination"]);
            mounts.push(mount);
        }
        Ok(())
    }

    fn lay_devices(&self, config: &mut Value) -> Result<(), OptionError> {
        for device in &self.devices {
            let (node, rule) = device.found()?;
            array(&mut config["linux"]["devices"]).push(node);
            array(&mut config["linux"]["resources"]["devices"]).push(rule);
        }
        Ok(())
    }

    /// Root has what it is allowed; another user has only what was asked for by name.
    fn lay_capabilities(&self, config: &mut Value) {
        if self.cap_add.is_empty() && self.cap_drop.is_empty() {
            return;
        }
        let is_root = config["process"]["user"]["uid"] == json!(0);
        let sets = &mut config["process"]["capabilities"];
        let dropped = CapabilityOption::names(&self.cap_drop);
        let mut allowed = array(&mut sets["bounding"]).clone();
        allowed.retain(|name| !dropped.contains(name));
        let mut added = CapabilityOption::names(&self.cap_add);
        if !CapabilityOption::are_all(&self.cap_drop) {
            added.retain(|name| !dropped.contains(name));
        }
        for name in &added {
            if !allowed.contains(name) {
                allowed.push(name.clone());
            }
        }
        let has = if is_root { allowed.clone() } else { added };
        if !is_root {
            // without them they would be lost when the program is executed
            sets["inheritable"] = json!(has);
            sets["ambient"] = json!(has);
        }
        sets["effective"] = json!(has);
        sets["permitted"] = json!(has);
        sets["bounding"] = json!(allowed);
    }

    fn lay_limits(&self, config: &mut Value) {
        let rlimits = array(&mut config["process"]["rlimits"]);
        for ulimit in &self.ulimits {
            rlimits.retain(|other| other["type"] != ulimit.kind);
            rlimits.push(json!({"type": ulimit.kind, "soft": ulimit.soft, "hard": ulimit.hard}));
        }
        if let Some(adjustment) = self.oom_score_adj {
            config["process"]["oomScoreAdj"] = json!(adjustment);
        }
        let resources = &mut config["linux"]["resources"];
        let table = [
            ("memory", "swap", self.memory_swap.map(|bytes| json!(bytes))),
            (
                "memory",
                "reservation",
                self.memory_reservation.map(|bytes| json!(bytes)),
            ),
            ("cpu", "shares", self.cpu_shares.map(|shares| json!(shares))),
            (
                "cpu",
                "cpus",
                self.cpuset_cpus.as_ref().map(|list| json!(list)),
            ),
            (
                "cpu",
                "mems",
                self.cpuset_mems.as_ref().map(|list| json!(list)),
            ),
        ];
        for (part, field, value) in table {
            if let Some(value) = value {
                object(&mut resources[part]).insert(field.to_owned(), value);
            }
        }
    }
}

/// The array at a place of a config that may have none.
fn array(place: &mut Value) -> &mut Vec<Value> {
    if !place.is_array() {
        *place = json!([]);
    }
    match place {
        Value::Array(array) => array,
        _ => unreachable!("it was made one"),
    }
}

/// The object at a place of a config that may have none.
fn object(place: &mut Value) -> &mut Map<String, Value> {
    if !place.is_object() {
        *place = json!({});
    }
    match place {
        Value::Object(object) => object,
        _ => unreachable!("it was made one"),
    }
}

/// Where a path of the host's leads, absolute.
fn host_path(flag: &'static str, path: &str) -> Result<PathBuf, OptionError> {
    let found = std::fs::canonicalize(path);
    found.map_err(|error| {
        OptionError::new(
            flag,
            format!("{path:?}: {}", crate::errno::Cause::from(error)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(options: &RunOptions, uid: u32) -> Value {
        let mut spec = bundles::defaults::spec();
        let mut process = spec.process().clone().unwrap();
        let mut user = process.user().clone();
        user.set_uid(uid);
        process.set_user(user);
        spec.set_process(Some(process));
        serde_json::to_value(options.lay_over(&spec).unwrap()).unwrap()
    }

    fn capabilities(words: &[&str]) -> Vec<CapabilityOption> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        // the default config's are AUDIT_WRITE, KILL, NET_BIND_SERVICE
        type Words = &'static [&'static str];
        let table: [(Words, Words, u32, &str, &str); 5] = [
            (
                &["sys_time"],
                &["KILL"],
                0,
                "AUDIT_WRITE NET_BIND_SERVICE SYS_TIME",
                "AUDIT_WRITE NET_BIND_SERVICE SYS_TIME",
            ),
            (&[], &["all"], 0, "", ""),
            (&["CAP_KILL"], &["ALL"], 0, "KILL", "KILL"),
            (
                &["SYS_TIME"],
                &[],
                7,
                "AUDIT_WRITE KILL NET_BIND_SERVICE SYS_TIME",
                "SYS_TIME",
            ),
            (
                &["KILL", "KILL"],
                &[],
                0,
                "AUDIT_WRITE KILL NET_BIND_SERVICE",
                "AUDIT_WRITE KILL NET_BIND_SERVICE",
            ),
        ];
        for (add, drop, uid, bounding, effective) in table {
            let options = RunOptions {
                cap_add: capabilities(add),
                cap_drop: capabilities(drop),
                ..RunOptions::default()
            };
            let config = laid(&options, uid);
            for (set, expected) in [("bounding", bounding), ("effective", effective)] {
                let mut got: Vec<&str> = config["process"]["capabilities"][set]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|name| name.as_str()?.strip_prefix("CAP_"))
                    .collect();
                got.sort_unstable();
                assert_eq!(got.join(" "), expected, "{set}: {add:?} {drop:?} {uid}");
            }
        }
    }

    #[test]
    fn what_contradicts_itself_names_its_flag() {
        let mount = |text: &str| text.parse::<TmpfsFlag>().unwrap().0;
        let swap = RunOptions {
            memory_swap: Some(1),
            ..RunOptions::default()
        };
        let twice = RunOptions {
            mounts: vec![mount("/a"), mount("/a:size=1m")],
            ..RunOptions::default()
        };
        for (options, flag) in [(swap, "--memory-swap: "), (twice, "--tmpfs: ")] {
            let error = options.lay_over(&bundles::defaults::spec()).unwrap_err();
            assert!(error.to_string().starts_with(flag), "{error}");
        }
    }
}
