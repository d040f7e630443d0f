//! `exec`: a further process in a container.
//!
//! No lock is held: the process joins the namespaces of the very init that the pidfd means, and
//! if that one ends meanwhile the kernel refuses.

use std::fs;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use bundles::config::parse;
use bundles::config::process::Process;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode as FileMode;
use nix::unistd::Pid;

use super::create::{Mode, connect_console, send_pidfd, set_oom_score_adj, write_pid_file};
use super::exec_process::{self, Changes};
use super::run::exit_status;
use super::spawn::{Outside, Spawned, spawn_further};
use super::undo::{self, Made};
use super::{State, status};
use crate::cgroups::Cgroup;
use crate::cgroups::sub_paths::SubPaths;
use crate::container::state::Template;
use crate::container::state_dir;
use crate::container::status::Status;
use crate::init::join::JoinPlan;
use crate::init::plan::ProcessPlan;
use crate::process::attend::{Attended, Signals, attend};
use crate::process::handshake::{FromInit, RuntimeEnd, ToInit};
use crate::process::{seccomp_agent, stdio};
use crate::sys::caller::is_ordinary_user;
use crate::sys::in_root::RootFd;
use crate::sys::pidfd::pidfd_open;
use crate::{logging, rlimits, scheduling, seccomp};

/// What `exec` is asked for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// `--root`.
    pub(crate) root: &'a Path,
    /// The container's id.
    pub(crate) id: &'a str,
    /// What to run.
    pub(crate) source: Source<'a>,
    /// `--tty` in addition to a process.json's own word.
    pub(crate) terminal: bool,
    /// Whether the process is attended to.
    pub(crate) mode: Mode,
    /// `--console-socket`.
    pub(crate) console_socket: Option<&'a Path>,
    /// `--pidfd-socket`.
    pub(crate) pidfd_socket: Option<&'a Path>,
    /// `--pid-file`.
    pub(crate) pid_file: Option<&'a Path>,
    /// `--cgroup`.
    pub(crate) sub_cgroups: &'a [String],
    /// `--preserve-fds`.
    pub(crate) preserve_fds: u32,
    /// `--ignore-paused`.
    pub(crate) ignore_paused: bool,
}

/// Where the process is described.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// `--process`.
    File(&'a Path),
    /// The other flags.
    Flags(Box<Changes>),
}

/// Runs a process in a container. Returns the exit status to pass on: the process's own in the
/// foreground, 0 when detached.
///
/// # Errors
/// The container's status; the field, step or call that failed, and then there is no process.
pub(crate) fn exec(request: &Request<'_>) -> anyhow::Result<u8> {
    let dir = state_dir::existing(request.root, request.id)?;
    let state: State = state_dir::read_state(&dir)?
        .context("container does not exist: its creation was cut short")?;
    let init = living_init(&dir, &state, request.ignore_paused)?;
    let mut process = process(request, &state, &init)?;
    let console = connect_console(process.terminal, request.console_socket, request.mode)?;
    let sub_paths = SubPaths::parse(request.sub_cgroups)?;
    let way_in = Cgroup::from_record(&state.cgroup)
        .way_in_beneath(&sub_paths)
        .context("open the cgroup")?;
    let plan = plan(request, &dir, &state, &process, &init)?;
    if is_ordinary_user() {
        // The process's files in /proc will be root's; so it inherits this.
        set_oom_score_adj(Pid::this(), &process)?;
        process.oom_score_adj = None;
    }
    let signals = match request.mode {
        // Before the clone, so that none is lost.
        Mode::Foreground => Some(Signals::block().context("signalfd")?),
        Mode::Create | Mode::Detached => None,
    };
    let init_pid = state.init.map(|init| Pid::from_raw(init.pid));
    let elsewhere = init_pid.filter(|_| !sub_paths.are_given());
    let ended = |error: anyhow::Error| match has_ended(&init) {
        true => error.context("the container has stopped meanwhile"),
        false => error,
    };
    let outside = Outside::when(state.unit.is_some());
    let Spawned {
        pid,
        pidfd,
        end,
        awaits_cgroup,
    } = spawn_further(plan, way_in, elsewhere, outside).map_err(ended)?;

    let mut made = Made::default();
    let (pid, pidfd) = &*made.init.insert((pid, pidfd));
    let waiting = awaits_cgroup.then_some(&end);
    enter_groups(&state, *pid, &sub_paths, waiting).map_err(ended)?;
    if let Some(socket) = request.pidfd_socket {
        send_pidfd(socket, pidfd)?;
    }
    let agent = Agent(&state, &dir, pidfd);
    let master = converse(&end, (*pid, &agent), &process, console).map_err(ended)?;
    drop(end);
    if let Some(file) = request.pid_file {
        write_pid_file(file, *pid).with_context(|| format!("write the pid file {file:?}"))?;
    }
    let (Some(signals), Some((pid, pidfd))) = (signals, made.init.take()) else {
        return Ok(0);
    };
    let attended = Attended {
        pid,
        pidfd: pidfd.as_fd(),
    };
    match attend(&attended, master, &signals, None).context("attend the process") {
        Ok(status) => Ok(exit_status(status)),
        Err(error) => {
            // Nobody would be left to attend to it.
            undo::kill_and_wait(&pidfd)?;
            Err(error)
        }
    }
}

/// Puts the process into the container's resctrl groups, where it has some; and one that is
/// `waiting` into the cgroup, by the user's systemd, where this caller may not put it.
fn enter_groups(
    state: &State,
    pid: Pid,
    sub_paths: &SubPaths,
    waiting: Option<&RuntimeEnd>,
) -> anyhow::Result<()> {
    if let Some(groups) = &state.rdt {
        groups.enter(pid)?;
    }
    let Some(end) = waiting else { return Ok(()) };
    if let Some(unit) = &state.unit {
        unit.attach(pid, sub_paths.for_all()?)?;
    }
    Ok(end.send(ToInit::InCgroup)?)
}

/// The pidfd of a container's init that can be joined.
fn living_init(dir: &Path, state: &State, ignore_paused: bool) -> anyhow::Result<OwnedFd> {
    const STOPPED: &str = "cannot exec in a stopped container";
    let Some(init) = state.init else {
        bail!("cannot exec in a container in the creating state");
    };
    // First the descriptor, then the look at whose it is.
    let pidfd = match pidfd_open(Pid::from_raw(init.pid)) {
        Err(Errno::ESRCH) => bail!(STOPPED),
        opened => opened.context("pidfd_open")?,
    };
    match status::of(dir, state)? {
        Status::Stopped => bail!(STOPPED),
        Status::Paused if !ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => Ok(pidfd),
    }
}

/// What to run, from the file or the flags and from what the container was made with.
fn process(request: &Request<'_>, state: &State, init: &OwnedFd) -> anyhow::Result<Process> {
    let template = &state.template.process;
    let path = match &request.source {
        Source::Flags(changes) => {
            let root = || open_root(state, init).map(RootFd::from_fd);
            let user = changes.user.as_ref().map(|user| user.resolve(root));
            let changed = exec_process::changed(template, (**changes).clone(), user.transpose()?);
            return Ok(changed?);
        }
        Source::File(path) => *path,
    };
    let named = || format!("--process {path:?}");
    let text = fs::read(path).with_context(named)?;
    let (mut process, warnings) = parse::process(&text).with_context(named)?;
    for warning in &warnings {
        logging::warn(&format!("{path:?}: {warning}"));
    }
    if request.terminal {
        process.set_terminal(Some(true));
    }
    exec_process::completed(template, process).with_context(named)
}

fn flags(template: &Template) -> CloneFlags {
    // Not every kind has a name in nix.
    CloneFlags::from_bits_retain(template.namespaces)
}

fn plan(
    request: &Request<'_>,
    dir: &Path,
    state: &State,
    process: &Process,
    init: &OwnedFd,
) -> anyhow::Result<JoinPlan> {
    let template = &state.template;
    let filter = if template.seccomp {
        let bytes = state_dir::read_file(dir, state_dir::SECCOMP_BPF)?;
        let filter = seccomp::Filter::from_bytes(&bytes);
        Some(filter.with_context(|| format!("{} is not whole", state_dir::SECCOMP_BPF))?)
    } else {
        None
    };
    let namespaces = flags(template);
    let root = if namespaces.contains(CloneFlags::CLONE_NEWNS) {
        None
    } else {
        Some(open_root(state, init)?)
    };
    let in_user_namespace = namespaces.contains(CloneFlags::CLONE_NEWUSER);
    let mut process_plan = ProcessPlan::new(process, filter, request.preserve_fds)?;
    process_plan
        .memory_policy
        .clone_from(&template.memory_policy);
    process_plan.personality = template.personality;
    Ok(JoinPlan {
        id: state.id.clone(),
        init: init.try_clone().context("dup the pidfd")?,
        namespaces,
        in_user_namespace,
        root,
        way_in: Vec::new(),
        awaits_cgroup: false,
        keyring: template.keyring,
        awaits_runtime: state.rdt.is_some()
            || process.oom_score_adj.is_some()
            || scheduling::is_given(process)
            || (in_user_namespace && !process.rlimits.is_empty()),
        process: process_plan,
    })
}

/// The root directory of the container.
fn open_root(state: &State, init: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let pid = state.init.map_or(0, |init| init.pid);
    let path = format!("/proc/{pid}/root");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(path.as_str(), flags, FileMode::empty())
        .with_context(|| format!("open({path:?})"))?;
    // It is the container's only if the id has not changed hands since.
    if has_ended(init) {
        bail!("cannot exec in a stopped container");
    }
    Ok(root)
}

/// Whether the process that `pidfd` means has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut ended, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Talks with the process until its program runs. Returns the terminal's master, if it is ours.
fn converse(
    end: &RuntimeEnd,
    (pid, agent): (Pid, &Agent<'_>),
    process: &Process,
    console: Option<UnixStream>,
) -> anyhow::Result<Option<OwnedFd>> {
    let mut kept = None;
    loop {
        match end.receive()? {
            Some(FromInit::Console { name, master }) => match &console {
                Some(socket) => stdio::send_console(socket, &name, &master)
                    .context("send the terminal to the console socket")?,
                None => kept = Some(master),
            },
            Some(FromInit::SeccompListener(number)) => {
                agent.hand_over(pid, number)?;
                end.send(ToInit::ListenerTaken)?;
            }
            Some(FromInit::Prepared) => {
                set_from_outside(pid, process)?;
                end.send(ToInit::Start)?;
            }
            Some(FromInit::Failed(why)) => return Err(anyhow!(why)),
            Some(FromInit::RootReady | FromInit::Cloned { .. }) => {
                bail!("the process said what only init says")
            }
            // The end of the conversation: execve(2) has closed the other side.
            None => return Ok(kept),
        }
    }
}

/// What the agent of a seccomp filter has to know: the container, its directory, and the further
/// process.
struct Agent<'a>(&'a State, &'a Path, &'a OwnedFd);

impl Agent<'_> {
    fn hand_over(&self, pid: Pid, number: RawFd) -> anyhow::Result<()> {
        let Self(state, dir, pidfd) = self;
        let listener = state.template.seccomp_listener.as_ref();
        let listener = listener.context("a seccomp listener of no profile")?;
        let told = (
            state.oci_version.as_str(),
            &state.report(status::of(dir, state)?),
        );
        Ok(seccomp_agent::hand_over(
            listener,
            (pid, pidfd),
            number,
            told,
        )?)
    }
}

/// Sets what the runtime's own capabilities count for, and not those in a user namespace.
fn set_from_outside(pid: Pid, process: &Process) -> anyhow::Result<()> {
    rlimits::set(pid, &process.rlimits)?;
    scheduling::set(pid, process)?;
    set_oom_score_adj(pid, process)
}
