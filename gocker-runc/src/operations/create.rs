//! `create`: from a bundle to a process that waits to be started.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use bundles::Bundle;
use bundles::config::linux::namespaces::Kind;
use bundles::config::mounts::Mount;
use bundles::config::{self, Config};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::activation::{self, Activation};
use super::spawn::{Outside, Spawned, spawn};
use super::undo::Made;
use super::{State, id_mapping, unserved, user_namespace};
use crate::cgroups::Cgroup;
use crate::cgroups::detect::Layout;
use crate::cgroups::mounts::View;
use crate::cgroups::systemd::{Instance, Scope};
use crate::container::state::{Process, Template};
use crate::container::state_dir::{self, StateDir};
use crate::container::status::Status;
use crate::init::plan::{Choices, InitPlan};
use crate::intel_rdt::{self, Wish};
use crate::memory_policy::MemoryPolicy;
use crate::process::handshake::{FromInit, RuntimeEnd, ToInit};
use crate::process::{notify, start_socket, stdio};
use crate::rootless::Rootless;
use crate::sys::caller::is_ordinary_user;
use crate::sys::procfs::ProcFd;
use crate::sys::seqpacket;
use crate::{cgroups, hooks, logging, namespaces, rlimits};

/// What `create` and `run` are asked for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// `--root`.
    pub(crate) root: &'a Path,
    /// The container's id.
    pub(crate) id: &'a str,
    /// `--bundle`.
    pub(crate) bundle: &'a Path,
    /// `--console-socket`.
    pub(crate) console_socket: Option<&'a Path>,
    /// `--pid-file`.
    pub(crate) pid_file: Option<&'a Path>,
    /// `--pidfd-socket`.
    pub(crate) pidfd_socket: Option<&'a Path>,
    /// What the command line adds to the configuration.
    pub(crate) choices: Choices,
    /// Who starts it, and who has the terminal.
    pub(crate) mode: Mode,
    /// The flags of the whole program.
    pub(crate) globals: Globals,
    /// What a service manager gives.
    pub(crate) activation: Activation,
}

/// What the whole program was told of how containers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Globals {
    /// `--rootless`.
    pub(crate) rootless: Rootless,
    /// `--systemd-cgroup`.
    pub(crate) driver: Driver,
}

/// Who makes the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// The runtime, in the file system.
    Files,
    /// systemd, as a unit.
    Systemd,
}

/// What comes after the container is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `create`: somebody calls `start` later.
    Create,
    /// `run --detach`: it is started at once, and left.
    Detached,
    /// `run`: it is started at once, and attended.
    Foreground,
}

/// A container that was made.
pub(crate) struct Created {
    /// Its locked directory.
    pub(crate) dir: StateDir,
    /// What `state.json` says.
    pub(crate) state: State,
    /// Init.
    pub(crate) pid: Pid,
    /// Init, and no later process of that id.
    pub(crate) pidfd: OwnedFd,
    /// The conversation with init.
    pub(crate) end: RuntimeEnd,
    /// The terminal's master, in the foreground.
    pub(crate) master: Option<OwnedFd>,
}

/// Makes the container. When it fails, nothing of it is left.
///
/// # Errors
/// The field, step or call that failed.
#[expect(clippy::too_many_lines, reason = "all of `create`, top to bottom")]
pub(crate) fn create(request: &Request<'_>) -> anyhow::Result<Created> {
    // A duplicate is told as one, whatever else is wrong with it; that two callers at once do
    // not both succeed is seen to when the directory is made.
    if state_dir::existing(request.root, request.id).is_ok() {
        return Err(state_dir::Error::Exists.into());
    }
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
    let mut scope = plan_scope(request, &config)?;
    let (layout, cgroup) = plan_cgroup(request, &config, scope.as_ref())?;
    cgroup
        .check(&config.linux.resources)
        .context("config.json")?;
    let mut state = new_state(request, &bundle, &config, &cgroup)?;
    state.unit = scope.as_ref().map(Scope::unit);
    state.template.memory_policy = memory_policy(&bundle)?;
    let rdt = plan_rdt(request, &bundle)?;
    state.rdt = rdt.as_ref().map(Wish::groups);
    let view = if config.linux.namespaces.has(Kind::Cgroup) {
        View::Namespace
    } else {
        View::Host
    };
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
    if notifies {
        activation::add_mount(&mut plan, &state_dir)?;
    }

    // From here on things are made; `made` unmakes them if a later step fails.
    let mut made = Made::default();
    let dir = made.dir.insert(StateDir::create(request.root, request.id)?);
    dir.write_state(&state)?;
    if notifies {
        notify::make_directory(&state_dir).context("make the directory of NOTIFY_SOCKET")?;
    }
    if let Some(filter) = plan
        .process
        .as_ref()
        .and_then(|process| process.seccomp.as_ref())
    {
        dir.write_file(state_dir::SECCOMP_BPF, &filter.to_bytes())?;
    }
    let listener = match request.mode {
        Mode::Create => Some(start_socket::listen_in(&dir.fd()?)?),
        Mode::Detached | Mode::Foreground => None,
    };
    let cgroup = made.cgroup.insert(cgroup);
    cgroup.create().context("make the cgroup")?;
    logging::debug(|| format!("{:?}: cgroup: {:?}", request.id, cgroup.record().0));
    forgive_lack_of_rights(
        cgroup.apply_before_entry(&config.linux.resources),
        request.globals.rootless,
    )
    .context("config.json")?;
    plan.open_sources()?;
    let way_in = cgroup.way_in().context("open the cgroup")?;
    let outside = Outside::when(scope.is_some());
    let Spawned {
        pid,
        pidfd,
        end,
        awaits_cgroup,
    } = spawn(plan, way_in, listener, outside)?;
    let pidfd = &made.init.insert((pid, pidfd)).1;
    logging::debug(|| format!("{:?}: init is process {pid}", request.id));
    if let Some(socket) = request.pidfd_socket {
        send_pidfd(socket, pidfd)?;
    }
    if let (Some(scope), Some(layout)) = (&mut scope, &layout) {
        let started = scope.start(pid, &config.linux.resources, layout.kind());
        made.unit = scope.started();
        started.context("config.json")?;
    }
    if let (Some(rdt), Some(groups)) = (rdt, &state.rdt) {
        let groups = made.rdt.insert(groups.clone());
        rdt.make(groups).context("config.json")?;
        groups.enter(pid).context("config.json")?;
    }
    if awaits_cgroup {
        end.send(ToInit::InCgroup)?;
    }
    if let Some(id_maps) = id_maps {
        id_maps
            .write(&ProcFd::host()?, pid)
            .context("config.json")?;
        end.send(ToInit::IdsMapped)?;
        if let (Some(owner), Some(cgroup)) = (cgroup_owner(&config), &made.cgroup) {
            forgive_lack_of_rights(cgroup.delegate(owner), request.globals.rootless)
                .context("hand over the cgroup")?;
        }
    }
    // While init mounts, on the other core.
    if let Some(cgroup) = &made.cgroup {
        forgive_lack_of_rights(
            cgroup.apply(&config.linux.resources),
            request.globals.rootless,
        )
        .context("config.json")?;
    }
    state.init = Process::of(pid);
    let master = converse(&end, pid, &config, &state, console)?;
    if let Some(dir) = &made.dir {
        dir.write_state(&state)?;
    }
    if let Some(file) = request.pid_file {
        write_pid_file(file, pid).with_context(|| format!("write the pid file {file:?}"))?;
    }
    let (Some(dir), Some((pid, pidfd))) = (made.dir.take(), made.init.take()) else {
        bail!("the container vanished while it was made");
    };
    made.cgroup = None;
    made.unit = None;
    made.rdt = None;
    Ok(Created {
        dir,
        state,
        pid,
        pidfd,
        end,
        master,
    })
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
fn forgive_lack_of_rights(
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

/// The container's root, as the host knows it, where the container may divide its cgroup: it
/// sees it as the root of a cgroup namespace, through a mount that can be written.
fn cgroup_owner(config: &Config) -> Option<Uid> {
    let is_writable = |mount: &Mount| {
        matches!(mount.kind.as_str(), "cgroup" | "cgroup2")
            && !mount
                .options
                .iter()
                .any(|option| option == "ro" || option == "rro")
    };
    if !config.linux.namespaces.has(Kind::Cgroup) || !config.mounts.iter().any(is_writable) {
        return None;
    }
    let root = config
        .linux
        .uid_mappings
        .iter()
        .find(|mapping| mapping.container_id == 0);
    root.map(|mapping| Uid::from_raw(mapping.host_id))
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

/// A terminal needs somebody to give it to.
pub(super) fn connect_console(
    terminal: bool,
    socket: Option<&Path>,
    mode: Mode,
) -> anyhow::Result<Option<UnixStream>> {
    match (terminal, socket, mode) {
        (true, None, Mode::Create | Mode::Detached) => {
            bail!("process.terminal is true: a detached container needs --console-socket")
        }
        (true, Some(_), Mode::Foreground) => {
            bail!("--console-socket is for a detached container: add --detach")
        }
        (false, Some(_), _) => {
            bail!("--console-socket is given, and process.terminal is false")
        }
        (true, Some(path), _) => stdio::connect_console(path)
            .with_context(|| format!("connect to the console socket {path:?}"))
            .map(Some),
        (true, None, Mode::Foreground) => stdio::own_terminal()
            .context("process.terminal is true, and no standard descriptor is a terminal")
            .map(|_| None),
        (false, None, _) => Ok(None),
    }
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

/// Talks with init until it is prepared. Returns the terminal's master, if it is ours.
fn converse(
    end: &RuntimeEnd,
    pid: Pid,
    config: &Config,
    state: &State,
    console: Option<UnixStream>,
) -> anyhow::Result<Option<OwnedFd>> {
    let mut kept = None;
    loop {
        match end.receive()? {
            Some(FromInit::RootReady) => {
                logging::debug(|| format!("{:?}: the root is ready, hooks run", state.id));
                run_runtime_hooks(config, state)?;
                end.send(ToInit::HooksDone)?;
            }
            Some(FromInit::Console { name, master }) => match &console {
                Some(socket) => stdio::send_console(socket, &name, &master)
                    .context("send the terminal to the console socket")?,
                None => kept = Some(master),
            },
            Some(FromInit::Prepared) => {
                logging::debug(|| format!("{:?}: init is prepared", state.id));
                break;
            }
            Some(FromInit::Failed(why)) => return Err(anyhow!(why)),
            Some(FromInit::Cloned { .. }) => bail!("init was made twice"),
            None => bail!("the container process ended early: {}", fate(pid)),
        }
    }
    if let Some(process) = &config.process {
        if config.linux.namespaces.has(Kind::User) {
            rlimits::set(pid, &process.rlimits)?;
        }
        // Init has done it before it became another user, where nobody else could.
        if !is_ordinary_user() {
            set_oom_score_adj(pid, process)?;
        }
    }
    Ok(kept)
}

/// Tells the kernel how gladly it may kill process `pid` for want of memory.
///
/// # Errors
/// EACCES for a value below the caller's own without CAP_SYS_RESOURCE.
pub(super) fn set_oom_score_adj(
    pid: Pid,
    process: &config::process::Process,
) -> anyhow::Result<()> {
    let Some(score) = process.oom_score_adj else {
        return Ok(());
    };
    let path = format!("{pid}/oom_score_adj");
    let written = ProcFd::host()?.write(&path, score.to_string().as_bytes());
    written.context("process.oomScoreAdj")
}

/// How a process ended that was not to end.
fn fate(pid: Pid) -> String {
    match waitpid(pid, None) {
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            format!("killed by {signal}; is linux.resources.memory.limit too small to start in?")
        }
        Ok(WaitStatus::Exited(_, code)) => format!("exit status {code}"),
        _ => "nobody knows how".into(),
    }
}

fn run_runtime_hooks(config: &Config, state: &State) -> anyhow::Result<()> {
    let json = serde_json::to_vec(&state.report(Status::Creating)).context("state for hooks")?;
    hooks::run("prestart", &config.hooks.prestart, &json)?;
    hooks::run("createRuntime", &config.hooks.create_runtime, &json)?;
    Ok(())
}

pub(super) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> anyhow::Result<()> {
    let socket = UnixStream::connect(path)
        .with_context(|| format!("connect to the pidfd socket {path:?}"))?;
    seqpacket::send(socket.as_fd(), b"pidfd", Some(pidfd.as_fd())).context("send the pidfd")
}

/// Digits alone, under a temporary name first: who sees the file sees all of it.
pub(super) fn write_pid_file(path: &Path, pid: Pid) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let open = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o644);
        options.open(&temporary)
    };
    let mut file = match open() {
        // Of a runtime that had this process id and was killed.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary)?;
            open()?
        }
        opened => opened?,
    };
    let written = file
        .write_all(pid.to_string().as_bytes())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        drop(fs::remove_file(&temporary));
    }
    written
}
