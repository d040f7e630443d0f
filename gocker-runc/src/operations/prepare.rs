//! What is read, checked and planned before a container is made, by `create` or by `restore`.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bundles::Bundle;
use bundles::config::Config;
use bundles::config::linux::namespaces::Kind;
use nix::unistd::Uid;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::create::{Driver, Mode, Request, connect_console, listener};
use super::{State, activation, id_mapping, unserved, user_namespace};
use crate::cgroups::Cgroup;
use crate::cgroups::detect::Layout;
use crate::cgroups::mounts::View;
use crate::cgroups::systemd::{Instance, Scope};
use crate::container::state::Template;
use crate::container::state_dir::{self, StateDir};
use crate::init::plan::{Choices, InitPlan};
use crate::intel_rdt::{self, Wish};
use crate::memory_policy::MemoryPolicy;
use crate::namespaces::user::IdMaps;
use crate::network_devices::NetDevices;
use crate::process::notify;
use crate::rootless::Rootless;
use crate::{cgroups, logging, namespaces};

/// A container that is about to be made; nothing of it is there.
pub(super) struct Prepared {
    /// `config.json`.
    pub(super) config: Config,
    /// The engine's console socket.
    pub(super) console: Option<UnixStream>,
    /// The mappings of a new user namespace.
    pub(super) id_maps: Option<IdMaps>,
    /// The unit, where systemd makes the cgroup.
    pub(super) scope: Option<Scope>,
    /// The machine's cgroups.
    pub(super) layout: Option<Layout>,
    /// The container's.
    pub(super) cgroup: Cgroup,
    /// `state.json`, as far as it is known.
    pub(super) state: State,
    /// What init needs.
    pub(super) plan: InitPlan,
    /// The resctrl groups.
    pub(super) rdt: Option<Wish>,
    /// The network devices that it is given.
    pub(super) net_devices: Option<NetDevices>,
    /// Whether the container can say that it is ready.
    pub(super) notifies: bool,
}

/// Reads the bundle and plans the container.
///
/// # Errors
/// The id is taken; the field that cannot be served.
pub(super) fn prepare(request: &Request<'_>) -> anyhow::Result<Prepared> {
    check_id_is_free(request)?;
    // Who has lost a race may have come upon the winner's cgroup.
    plan(request).map_err(|error| check_id_is_free(request).err().unwrap_or(error))
}

/// A duplicate is told as one, whatever else is wrong with it; that two callers at once do not both
/// succeed is seen to when the directory is made.
fn check_id_is_free(request: &Request<'_>) -> anyhow::Result<()> {
    match state_dir::existing(request.root, request.id) {
        Ok(_) => Err(state_dir::Error::Exists.into()),
        Err(_) => Ok(()),
    }
}

fn plan(request: &Request<'_>) -> anyhow::Result<Prepared> {
    crate::container::id::check(request.id)?;
    let (bundle, mut config) = read(request)?;
    let state_dir = request.root.join(request.id);
    let notifies = request.activation.add_to(&mut config);
    let terminal = config
        .process
        .as_ref()
        .is_some_and(|process| process.terminal);
    let console = connect_console(terminal, request.console_socket, request.mode)?;
    let id_maps = user_namespace::plan(&config).context("config.json")?;
    let scope = plan_scope(request, &config)?;
    let (layout, cgroup) = plan_cgroup(request, &config, scope.as_ref())?;
    cgroup
        .check(&config.linux.resources)
        .context("config.json")?;
    let mut state = new_state(request, &bundle, &config, &cgroup)?;
    state.unit = scope.as_ref().map(Scope::unit);
    state.template.memory_policy = memory_policy(&bundle)?;
    let rdt = plan_rdt(request, &bundle)?;
    state.rdt = rdt.as_ref().map(Wish::groups);
    let view = View::of(&config.linux.namespaces);
    let cgroup_mounts = cgroup.mount_list(layout.as_ref(), view);
    let mut plan = InitPlan::new(&config, state.clone(), request.choices, &cgroup_mounts)
        .context("config.json")?;
    if let Some(process) = &mut plan.process {
        process
            .memory_policy
            .clone_from(&state.template.memory_policy);
    }
    user_namespace::check_joined(&config, plan.namespaces.joined_user()).context("config.json")?;
    id_mapping::map_mounts(&mut plan).context("config.json")?;
    plan.awaits_record = cgroup.is_shared() && request.mode == Mode::Create;
    if notifies {
        activation::add_mount(&mut plan, &state_dir)?;
    }
    let net_devices = NetDevices::find(&config.linux.net_devices).context("config.json")?;
    Ok(Prepared {
        config,
        console,
        id_maps,
        scope,
        layout,
        cgroup,
        state,
        plan,
        rdt,
        net_devices,
        notifies,
    })
}

/// Writes the files of a new container's directory.
///
/// # Errors
/// The step and the system's answer.
pub(super) fn write_files(
    dir: &StateDir,
    state: &State,
    plan: &InitPlan,
    notifies: bool,
) -> anyhow::Result<()> {
    dir.write_state(state)?;
    if notifies {
        notify::make_directory(&dir.file("")).context("make the directory of NOTIFY_SOCKET")?;
    }
    let process = plan.process.as_ref();
    if let Some(filter) = process.and_then(|process| process.seccomp.as_ref()) {
        dir.write_file(state_dir::SECCOMP_BPF, &filter.to_bytes())?;
    }
    Ok(())
}

/// Where the container's cgroup will be. One whose place was not chosen may be missing, where the
/// caller has not the right to make it.
fn plan_cgroup(
    request: &Request<'_>,
    config: &Config,
    scope: Option<&Scope>,
) -> anyhow::Result<(Option<Layout>, Cgroup)> {
    let detected = Layout::detect(Path::new("/proc"));
    let in_slice = scope.map(Scope::cgroup);
    let cgroups_path = in_slice.as_deref().or(config.linux.cgroups_path.as_deref());
    if cgroups_path.is_none() && request.globals.rootless.holds() {
        let layout = match detected {
            Err(cgroups::Error::NotMounted) => None,
            detected => Some(detected?),
        };
        let cgroup = Cgroup::plan_rootless(layout.as_ref(), request.id).context("config.json")?;
        return Ok((layout, cgroup));
    }
    let layout = detected?;
    let cgroup = Cgroup::plan(&layout, cgroups_path, request.id).context("config.json")?;
    Ok((Some(layout), cgroup))
}

/// A rootless container does without what only the machine's root may do, and what it cannot
/// harm with.
pub(super) fn forgive_lack_of_rights(
    applied: Result<(), cgroups::Error>,
    rootless: Rootless,
) -> Result<(), cgroups::Error> {
    match applied {
        Err(error) if error.is_for_lack_of_rights() && rootless.holds() => Ok(()),
        applied => applied,
    }
}

/// The unit that the cgroup will be, where systemd makes it.
fn plan_scope(request: &Request<'_>, config: &Config) -> anyhow::Result<Option<Scope>> {
    if request.globals.driver == Driver::Files {
        return Ok(None);
    }
    let instance = if request.globals.rootless.holds() {
        Instance::User
    } else {
        Instance::System
    };
    let cgroups_path = config.linux.cgroups_path.as_deref();
    let scope = Scope::plan(instance, cgroups_path, request.id, &config.annotations);
    scope.context("config.json").map(Some)
}

/// Reads the bundle and refuses what cannot be served.
fn read(request: &Request<'_>) -> anyhow::Result<(Bundle, Config)> {
    let bundle = Bundle::open(request.bundle)?;
    for warning in &bundle.warnings {
        logging::warn(&format!("config.json: {warning}"));
    }
    for (index, mount) in bundle.spec.mounts().iter().flatten().enumerate() {
        let destination = mount.destination();
        if destination.is_relative() && !destination.as_os_str().is_empty() {
            logging::warn(&format!(
                "config.json: mounts[{index}].destination: {destination:?} is relative, and taken from \"/\""
            ));
        }
    }
    unserved::check(&bundle.spec).context("config.json")?;
    let config = Config::from_spec(&bundle.spec).context("config.json")?;
    ensure!(
        config.process.is_some(),
        "config.json: process.args: is missing or empty"
    );
    Ok((bundle, config))
}

fn new_state(
    request: &Request<'_>,
    bundle: &Bundle,
    config: &Config,
    cgroup: &Cgroup,
) -> anyhow::Result<State> {
    let rootfs: PathBuf = fs::canonicalize(bundle.dir.join(&config.root_path))
        .with_context(|| format!("config.json: root.path: {:?}", config.root_path))?;
    ensure!(
        rootfs.is_dir(),
        "config.json: root.path: {rootfs:?} is not a directory"
    );
    Ok(State {
        oci_version: config.oci_version.clone(),
        id: request.id.to_owned(),
        init: None,
        bundle: bundle.dir.clone(),
        rootfs,
        created: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .context("the time of day")?,
        annotations: config.annotations.clone(),
        owner: super::list::user_name(Uid::current().as_raw()),
        cgroup: cgroup.record(),
        unit: None,
        rdt: None,
        own_pid_namespace: config.linux.namespaces.is_new(Kind::Pid),
        hooks: config.hooks.clone(),
        template: template(bundle, config, request.choices),
    })
}

/// What `exec` needs of the configuration.
fn template(bundle: &Bundle, config: &Config, choices: Choices) -> Template {
    let mut process = bundle.spec.process().clone().unwrap_or_default();
    process.set_args(None);
    Template {
        process,
        namespaces: namespaces::flags_of(&config.linux.namespaces).bits(),
        keyring: !choices.no_new_keyring,
        seccomp: config.linux.seccomp.is_some(),
        memory_policy: None,
        personality: config.linux.personality,
        seccomp_listener: listener(config).cloned(),
    }
}

/// The resctrl groups that `linux.intelRdt` asks for.
fn plan_rdt(request: &Request<'_>, bundle: &Bundle) -> anyhow::Result<Option<Wish>> {
    let linux = bundle.spec.linux().as_ref();
    let Some(spec) = linux.and_then(|linux| linux.intel_rdt().as_ref()) else {
        return Ok(None);
    };
    let wish =
        intel_rdt::find_root(Path::new("/proc")).and_then(|root| Wish::new(spec, request.id, root));
    wish.context("config.json").map(Some)
}

/// `linux.memoryPolicy`, which the processes of `exec` get, too.
fn memory_policy(bundle: &Bundle) -> anyhow::Result<Option<MemoryPolicy>> {
    let linux = bundle.spec.linux().as_ref();
    let spec = linux.and_then(|linux| linux.memory_policy().as_ref());
    let policy = spec.map(MemoryPolicy::new).transpose();
    policy.context("config.json")
}
