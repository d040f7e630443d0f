//! `create`: from a bundle to a process that waits to be started.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use bundles::config::linux::namespaces::Kind;
use bundles::config::linux::seccomp::Listener;
use bundles::config::mounts::Mount;
use bundles::config::{self, Config};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};

use super::State;
use super::activation::Activation;
use super::prepare::{Prepared, forgive_lack_of_rights, prepare, write_files};
use super::spawn::{Outside, Spawned, spawn};
use super::undo::Made;
use crate::cgroups::WayIn;
use crate::container::state::Process;
use crate::container::state_dir::StateDir;
use crate::container::status::Status;
use crate::init::plan::Choices;
use crate::network_devices::{Moved, NetDevices};
use crate::process::handshake::{FromInit, RuntimeEnd, ToInit};
use crate::process::{seccomp_agent, start_socket, stdio};
use crate::rootless::Rootless;
use crate::sys::caller::is_ordinary_user;
use crate::sys::procfs::ProcFd;
use crate::sys::{seqpacket, unix_socket};
use crate::{hooks, logging, rlimits, scheduling};

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
    let Prepared {
        config,
        console,
        id_maps,
        mut scope,
        layout,
        cgroup,
        mut state,
        mut plan,
        rdt,
        net_devices,
        notifies,
    } = prepare(request)?;

    // From here on things are made; `made` unmakes them if a later step fails.
    let mut made = Made::default();
    let dir = made.dir.insert(StateDir::create(request.root, request.id)?);
    write_files(dir, &state, &plan, notifies)?;
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
    let awaits_record = plan.awaits_record;
    let is_late = scope.is_some() && cgroup.is_entered_late();
    plan.awaits_cgroup = is_late;
    let way_in = if is_late {
        WayIn::default()
    } else {
        cgroup.way_in().context("open the cgroup")?
    };
    let joined_network = match net_devices {
        Some(_) => plan.namespaces.joined_network()?,
        None => None,
    };
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
        if let Some(cgroup) = made.cgroup.as_mut().filter(|_| is_late) {
            cgroup.complete(pid).context("enter the cgroup")?;
            let set = cgroup.apply_before_entry(&config.linux.resources);
            set.context("config.json")?;
        }
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
    if let Some(devices) = net_devices {
        let moved = move_devices(devices, joined_network, pid).context("config.json")?;
        made.net_devices = Some(moved);
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
    let master = converse(&end, (pid, pidfd), &config, &state, console)?;
    if let Some(dir) = &made.dir {
        dir.write_state(&state)?;
    }
    if awaits_record {
        end.send(ToInit::Recorded)?;
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
    if let Some(devices) = made.net_devices.take() {
        devices.keep();
    }
    Ok(Created {
        dir,
        state,
        pid,
        pidfd,
        end,
        master,
    })
}

/// Gives the container its network devices. Init waits with what needs them, as for hooks.
fn move_devices(devices: NetDevices, joined: Option<OwnedFd>, init: Pid) -> anyhow::Result<Moved> {
    let namespace = match joined {
        Some(namespace) => namespace,
        None => ProcFd::host()?.open_namespace(&format!("{init}/ns/net"))?,
    };
    Ok(devices.move_to(&namespace)?)
}

/// The container's root, as the host knows it, where the container may divide its cgroup: it
/// sees it as the root of a cgroup namespace, through a mount that can be written.
pub(super) fn cgroup_owner(config: &Config) -> Option<Uid> {
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

/// Who answers for the container's seccomp filter.
pub(super) fn listener(config: &Config) -> Option<&Listener> {
    let profile = config.linux.seccomp.as_ref();
    profile.and_then(|profile| profile.listener.as_ref())
}

/// Talks with init until it is prepared. Returns the terminal's master, if it is ours.
fn converse(
    end: &RuntimeEnd,
    (pid, pidfd): (Pid, &OwnedFd),
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
            Some(FromInit::SeccompListener(number)) => {
                let listener = listener(config).context("a seccomp listener of no profile")?;
                let report = state.report(Status::Creating);
                seccomp_agent::hand_over(
                    listener,
                    (pid, pidfd),
                    number,
                    (&state.oci_version, &report),
                )
                .context("config.json")?;
                end.send(ToInit::ListenerTaken)?;
            }
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
        scheduling::set(pid, process)?;
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

/// Runs the hooks that come between the container's namespaces and its program.
///
/// # Errors
/// The hook that failed.
pub(super) fn run_runtime_hooks(config: &Config, state: &State) -> anyhow::Result<()> {
    let json = serde_json::to_vec(&state.report(Status::Creating)).context("state for hooks")?;
    hooks::run("prestart", &config.hooks.prestart, &json)?;
    hooks::run("createRuntime", &config.hooks.create_runtime, &json)?;
    Ok(())
}

pub(super) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> anyhow::Result<()> {
    let socket = unix_socket::connect_stream(path)
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
