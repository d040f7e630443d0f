//! From an image's config to a runtime's: a pure function.
//!
//! Spec: image-spec conversion.md

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxMemoryBuilder,
    LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, MountBuilder, Process, ProcessBuilder,
    Root, Spec, UserBuilder,
};

use super::annotations::annotations;
use super::options::RunOptions;
use super::user::Ids;
use crate::image::ImageConfig;

/// The search path of a process whose image names none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The period of a processor limit, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// What images expect to be allowed: what all engines allow.
const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Which network a container has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// One of its own, with a loopback device.
    #[default]
    Own,
    /// The one of the host, with its name servers.
    Host,
}

/// What becomes of the directories that an image declares as volumes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Volumes {
    /// They are part of the root, with what the image has there.
    #[default]
    InRootfs,
    /// Each is an empty tmpfs.
    Tmpfs,
}

/// Where a container shall differ from its image.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Overrides {
    /// The arguments in the place of the image's `Cmd`; empty: the image's.
    pub args: Vec<String>,
    /// The arguments in the place of the image's `Entrypoint`. `Cmd` goes too.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` each, over the image's.
    pub env: Vec<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// The host name; None: the bundle's id.
    pub hostname: Option<String>,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// The most memory.
    pub memory_bytes: Option<u64>,
    /// The most processor time, in processors.
    pub cpus: Option<f64>,
    /// The most processes.
    pub pids_limit: Option<u32>,
    /// Which network it has.
    pub network: Network,
    /// What becomes of volumes.
    pub volumes: Volumes,
    /// All else that was asked for.
    pub options: RunOptions,
}

/// Why an image's config gives no runtime config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("nothing to run: the image has neither Entrypoint nor Cmd, and no command was given")]
    NoArgs,
    #[error("the {field} {value:?} is invalid: {reason}")]
    Invalid {
        field: &'static str,
        value: String,
        reason: &'static str,
    },
    #[error("the default config lacks {0}")]
    Default(&'static str),
}

/// The version of the specification that a bundle names. None of its fields is newer, and runtimes
/// of some years ago (crun 1.8) take no later one.
const VERSION: &str = "1.0.2";

/// What to put into a runtime config.
pub(super) struct Parts<'a> {
    pub(super) config: &'a ImageConfig,
    pub(super) overrides: &'a Overrides,
    pub(super) ids: &'a Ids,
    pub(super) root_path: &'a str,
    pub(super) hostname: &'a str,
}

/// Lays `parts` over `spec`. What is left out on purpose is told to `warn`.
pub(super) fn convert(
    mut spec: Spec,
    parts: &Parts<'_>,
    warn: &mut dyn FnMut(String),
) -> Result<Spec, ConfigError> {
    spec.set_version(VERSION.to_owned());
    let mut root = Root::default();
    root.set_path(parts.root_path.into())
        .set_readonly(Some(false));
    spec.set_root(Some(root));
    spec.set_hostname(Some(parts.hostname.to_owned()));
    spec.set_process(Some(process(parts)?));
    spec.set_annotations(Some(annotations(parts.config, warn)));
    set_network(&mut spec, parts.overrides.network)?;
    set_volumes(&mut spec, parts)?;
    set_limits(&mut spec, parts.overrides)?;
    Ok(spec)
}

/// The working directory: absolute, `/` if there is none.
pub(super) fn cwd(config: &ImageConfig, overrides: &Overrides) -> Result<String, ConfigError> {
    let cwd = overrides
        .cwd
        .as_deref()
        .unwrap_or(&config.config.working_dir);
    match cwd {
        "" => Ok("/".to_owned()),
        cwd if cwd.contains('\0') => Err(invalid("working directory", cwd, "it holds a NUL byte")),
        cwd if cwd.starts_with('/') => Ok(cwd.to_owned()),
        cwd if overrides.cwd.is_some() => {
            Err(invalid("working directory", cwd, "it is not absolute"))
        }
        cwd => Ok(format!("/{cwd}")),
    }
}

/// The directories that are volumes, without the root itself.
pub(super) fn volumes(config: &ImageConfig) -> Result<Vec<&str>, ConfigError> {
    let mut volumes = Vec::new();
    for volume in config.config.volumes.keys() {
        if !volume.starts_with('/') || volume.contains('\0') {
            return Err(invalid("volume", volume, "it is not an absolute path"));
        }
        let stays_down = volume.split('/').all(|component| component != "..");
        if !stays_down || volume.trim_matches('/').is_empty() {
            return Err(invalid(
                "volume",
                volume,
                "it is not a directory below the root",
            ));
        }
        volumes.push(volume.as_str());
    }
    Ok(volumes)
}

fn invalid(field: &'static str, value: &str, reason: &'static str) -> ConfigError {
    let value = value.to_owned();
    ConfigError::Invalid {
        field,
        value,
        reason,
    }
}

/// What is run: entrypoint and command, the user's before the image's.
pub(super) fn args(
    config: &ImageConfig,
    overrides: &Overrides,
) -> Result<Vec<String>, ConfigError> {
    let image = &config.config;
    let (mut args, command) = match &overrides.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), &[][..]),
        None => (image.entrypoint.clone(), image.cmd.as_slice()),
    };
    args.extend_from_slice(if overrides.args.is_empty() {
        command
    } else {
        &overrides.args
    });
    match args.first() {
        None => Err(ConfigError::NoArgs),
        Some(_) if args.iter().any(|arg| arg.contains('\0')) => {
            Err(invalid("command", &args.join(" "), "it holds a NUL byte"))
        }
        Some(_) => Ok(args),
    }
}

fn process(parts: &Parts<'_>) -> Result<Process, ConfigError> {
    let Parts {
        config,
        overrides,
        ids,
        ..
    } = parts;
    let mut user = UserBuilder::default().uid(ids.uid).gid(ids.gid);
    if !ids.additional_gids.is_empty() {
        user = user.additional_gids(ids.additional_gids.clone());
    }
    let all: Capabilities = CAPABILITIES.into_iter().collect();
    let none = Capabilities::new();
    // Another user than root has none of them, but may get them back by a
    // set-user-id program.
    let now = if ids.uid == 0 {
        all.clone()
    } else {
        none.clone()
    };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(all)
        .effective(now.clone())
        .permitted(now)
        .inheritable(none.clone())
        .ambient(none)
        .build();
    ProcessBuilder::default()
        .terminal(overrides.terminal)
        .user(user.build().map_err(|_| ConfigError::Default("a user"))?)
        .args(args(config, overrides)?)
        .env(env(parts)?)
        .cwd(cwd(config, overrides)?)
        .capabilities(capabilities.map_err(|_| ConfigError::Default("capabilities"))?)
        .no_new_privileges(false)
        .build()
        .map_err(|_| ConfigError::Default("a process"))
}

/// The image's variables, each as it is; the user's over them; PATH, HOME and
/// TERM where they are absent. The environment of this program is not asked.
fn env(parts: &Parts<'_>) -> Result<Vec<String>, ConfigError> {
    let mut env = parts.config.config.env.clone();
    for new in &parts.overrides.env {
        let Some((name, _)) = new.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(invalid("variable", new, "it is not of the form NAME=value"));
        };
        env.retain(|old| old.split('=').next() != Some(name));
        env.push(new.clone());
    }
    if let Some(bad) = env.iter().find(|variable| variable.contains('\0')) {
        return Err(invalid("variable", bad, "it holds a NUL byte"));
    }
    let has = |env: &[String], name: &str| env.iter().any(|v| v.split('=').next() == Some(name));
    if !has(&env, "PATH") {
        env.push(DEFAULT_PATH.to_owned());
    }
    if parts.overrides.terminal && !has(&env, "TERM") {
        env.push("TERM=xterm".to_owned());
    }
    if !has(&env, "HOME") {
        env.push(format!("HOME={}", parts.ids.home.as_deref().unwrap_or("/")));
    }
    Ok(env)
}

fn set_network(spec: &mut Spec, network: Network) -> Result<(), ConfigError> {
    if network == Network::Own {
        return Ok(());
    }
    let linux = spec
        .linux_mut()
        .as_mut()
        .ok_or(ConfigError::Default("linux"))?;
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    linux.set_namespaces(Some(namespaces));
    let resolv_conf = MountBuilder::default()
        .destination("/etc/resolv.conf")
        .source("/etc/resolv.conf")
        .typ("bind")
        .options(["rbind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned))
        .build()
        .map_err(|_| ConfigError::Default("a mount"))?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(resolv_conf);
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn set_volumes(spec: &mut Spec, parts: &Parts<'_>) -> Result<(), ConfigError> {
    if parts.overrides.volumes == Volumes::InRootfs {
        return Ok(());
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for volume in volumes(parts.config)? {
        let mount = MountBuilder::default()
            .destination(volume)
            .source("tmpfs")
            .typ("tmpfs")
            .options(["nosuid", "nodev", "mode=0755"].map(str::to_owned))
            .build();
        mounts.push(mount.map_err(|_| ConfigError::Default("a mount"))?);
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn set_limits(spec: &mut Spec, overrides: &Overrides) -> Result<(), ConfigError> {
    let linux = spec
        .linux_mut()
        .as_mut()
        .ok_or(ConfigError::Default("linux"))?;
    let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
    let wrong = |_| ConfigError::Default("resources");
    if let Some(bytes) = overrides.memory_bytes {
        let limit = i64::try_from(bytes)
            .map_err(|_| invalid("memory limit", &bytes.to_string(), "it is too large"))?;
        let memory = LinuxMemoryBuilder::default().limit(limit).build();
        resources.set_memory(Some(memory.map_err(wrong)?));
    }
    if let Some(cpus) = overrides.cpus {
        let cpu = LinuxCpuBuilder::default()
            .quota(cpu_quota_us(cpus)?)
            .period(CPU_PERIOD_US)
            .build();
        resources.set_cpu(Some(cpu.map_err(wrong)?));
    }
    if let Some(limit) = overrides.pids_limit {
        let pids = LinuxPidsBuilder::default().limit(i64::from(limit)).build();
        resources.set_pids(Some(pids.map_err(wrong)?));
    }
    linux.set_resources(Some(resources));
    Ok(())
}

/// Microseconds of processor time in one period.
fn cpu_quota_us(cpus: f64) -> Result<i64, ConfigError> {
    if !(0.01..=10_000.0).contains(&cpus) {
        let value = cpus.to_string();
        return Err(invalid(
            "processor limit",
            &value,
            "it is not between 0.01 and 10000",
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most 10^9, as checked above"
    )]
    let quota = (cpus * 100_000.0).round() as i64;
    Ok(quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &str) -> ImageConfig {
        let text = format!(
            r#"{{"os":"linux","architecture":"amd64","created":"2026-01-02T03:04:05Z",
                "rootfs":{{"type":"layers","diff_ids":[]}},"config":{config}}}"#
        );
        ImageConfig::parse(text.as_bytes()).unwrap()
    }

    fn converted(config: &ImageConfig, overrides: &Overrides) -> Result<Spec, ConfigError> {
        let ids = Ids {
            home: Some("/root".to_owned()),
            ..Ids::default()
        };
        let parts = Parts {
            config,
            overrides,
            ids: &ids,
            root_path: "rootfs",
            hostname: "box",
        };
        convert(bundles::defaults::spec(), &parts, &mut |_| {})
    }

    #[test]
    fn arguments_are_entrypoint_and_command() {
        let both = r#"{"Entrypoint":["e","1"],"Cmd":["c"]}"#;
        type Case = (
            &'static str,
            &'static [&'static str],
            Option<&'static str>,
            &'static [&'static str],
        );
        let table: [Case; 6] = [
            (both, &[], None, &["e", "1", "c"]),
            (both, &["x", "y"], None, &["e", "1", "x", "y"]),
            (both, &[], Some("n"), &["n"]),
            (both, &["x"], Some("n"), &["n", "x"]),
            (r#"{"Cmd":["c"]}"#, &[], None, &["c"]),
            ("{}", &["x"], None, &["x"]),
        ];
        for (config, given, entrypoint, expected) in table {
            let overrides = Overrides {
                args: given.iter().map(|arg| (*arg).to_owned()).collect(),
                entrypoint: entrypoint.map(|program| vec![program.to_owned()]),
                ..Overrides::default()
            };
            assert_eq!(args(&image(config), &overrides).unwrap(), expected);
        }
        let nothing = args(&image("{}"), &Overrides::default());
        assert_eq!(nothing, Err(ConfigError::NoArgs));
    }

    #[test]
    fn the_environment_is_the_images_with_what_is_missing() {
        let config = image(r#"{"Cmd":["c"],"Env":["A=1","B","PATH=/x","A=2"]}"#);
        let overrides = Overrides {
            env: vec!["A=3".to_owned(), "C=".to_owned()],
            ..Overrides::default()
        };
        let spec = converted(&config, &overrides).unwrap();
        let process = spec.process().clone().unwrap();
        let expected = ["B", "PATH=/x", "A=3", "C=", "HOME=/root"].map(str::to_owned);
        assert_eq!(process.env().clone().unwrap(), expected);
        let bad = Overrides {
            env: vec!["A".to_owned()],
            ..Overrides::default()
        };
        assert!(converted(&config, &bad).is_err());
    }

    #[test]
    fn limits_and_network_are_laid_over_the_default() {
        let config = image(r#"{"Cmd":["c"],"WorkingDir":"srv","Volumes":{"/data":{}}}"#);
        let overrides = Overrides {
            memory_bytes: Some(1 << 20),
            cpus: Some(0.5),
            pids_limit: Some(7),
            network: Network::Host,
            volumes: Volumes::Tmpfs,
            ..Overrides::default()
        };
        let spec = converted(&config, &overrides).unwrap();
        let linux = spec.linux().clone().unwrap();
        let resources = linux.resources().clone().unwrap();
        assert_eq!(resources.memory().unwrap().limit(), Some(1 << 20));
        assert_eq!(resources.cpu().clone().unwrap().quota(), Some(50_000));
        assert!(
            resources.devices().is_some(),
            "the default's device rules stay"
        );
        let namespaces = linux.namespaces().clone().unwrap();
        assert!(
            namespaces
                .iter()
                .all(|n| n.typ() != LinuxNamespaceType::Network)
        );
        let mounts = spec.mounts().clone().unwrap();
        assert!(
            mounts
                .iter()
                .any(|m| m.destination().as_os_str() == "/data")
        );
        assert_eq!(spec.process().clone().unwrap().cwd().as_os_str(), "/srv");
        assert_eq!(spec.root().clone().unwrap().readonly(), Some(false));
    }

    #[test]
    fn volumes_and_directories_stay_inside() {
        for bad in ["data", "/", "/../x", "/a/../.."] {
            let config = image(&format!(r#"{{"Volumes":{{"{bad}":{{}}}}}}"#));
            assert!(volumes(&config).is_err(), "{bad}");
        }
        let relative = Overrides {
            cwd: Some("x".to_owned()),
            ..Overrides::default()
        };
        assert!(cwd(&image("{}"), &relative).is_err());
    }
}
