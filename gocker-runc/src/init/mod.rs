//! The container process, from the clone to execve(2).
//!
//! Init reads no config.json, no flag and no environment, and does not know that a state
//! directory exists: it gets an [`InitPlan`] and one socket. Its memory is a copy of the
//! runtime's, which had one thread, so it may allocate.

mod cgroup_mounts;
mod credentials;
mod execve;
pub(crate) mod intermediate;
pub(crate) mod join;
pub(crate) mod plan;
mod rootfs_plan;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use anyhow::Context;
use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::unistd::{Uid, getpid, sethostname, setsid};

use crate::capabilities::FilterRight;
use crate::console::Console;
use crate::container::state::Process;
use crate::container::status::Status;
use crate::lsm::Labels;
use crate::process::handshake::{FromInit, InitEnd, ToInit};
use crate::process::start_socket;
use crate::seccomp::Filter;
use crate::sys::in_root::RootFd;
use crate::sys::procfs::ProcFd;
use crate::sys::{Called, keyctl, network};
use crate::{
    accounts, console, cpu_affinity, errors, hooks, namespaces, rlimits, rootfs, scheduling, sys,
    sysctl,
};
use plan::{InitPlan, ProcessPlan};

/// A program that is ready to be executed.
struct Prepared {
    file: CString,
    env: Vec<CString>,
}

/// Runs init. `listener` is the start socket; without one the runtime itself says Start.
pub(crate) fn run(mut plan: InitPlan, end: InitEnd, listener: Option<OwnedFd>) -> ! {
    if let Err(error) = close_the_runtimes(&plan, &end, listener.as_ref()) {
        fail(&end.0, &error);
    }
    let prepared = match prepare(&mut plan, &end) {
        Ok(prepared) => prepared,
        Err(error) => fail(&end.0, &error),
    };
    plan.close_used();
    if listener.is_some() && plan.may_be_joined_by_its_user() {
        // Else only root could look up its namespaces.
        if let Err(error) = prctl::set_dumpable(true).context("prctl(DUMPABLE)") {
            fail(&end.0, &error);
        }
    }
    let answer_to = match wait_for_start(end, listener, plan.awaits_record) {
        Ok(answer_to) => answer_to,
        // Nobody is left to hear why.
        Err(_) => std::process::exit(1),
    };
    let error = execute(&plan, &prepared);
    match answer_to {
        Some(answer_to) => fail(&answer_to, &error),
        None => std::process::exit(1),
    }
}

/// Closes every descriptor that is the runtime's own: its lock, its sockets. They would keep
/// the lock held and the sockets' other sides waiting for as long as init waits.
fn close_the_runtimes(
    plan: &InitPlan,
    end: &InitEnd,
    listener: Option<&OwnedFd>,
) -> anyhow::Result<()> {
    let preserved = plan
        .process
        .as_ref()
        .map_or(0, |process| process.preserve_fds);
    let mut kept = plan.descriptors();
    kept.push(end.0.as_raw_fd());
    kept.extend(listener.map(AsRawFd::as_raw_fd));
    let first = 3 + i32::try_from(preserved).context("--preserve-fds")?;
    sys::close_range::close_all_but(first, kept).called(|| "close_range".into())?;
    Ok(())
}

/// Sends the reason and ends.
fn fail(socket: &OwnedFd, error: &anyhow::Error) -> ! {
    let end = InitEnd(socket.try_clone().unwrap_or_else(|_| std::process::exit(1)));
    // If the runtime is gone there is nobody to tell; the exit status remains.
    drop(end.send(&FromInit::Failed(errors::one_line(error))));
    std::process::exit(1)
}

/// Everything up to execve(2), in the order that the kernel and the specification ask for.
fn prepare(plan: &mut InitPlan, end: &InitEnd) -> anyhow::Result<Prepared> {
    // If the runtime is killed meanwhile, so is init.
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).context("prctl(PDEATHSIG)")?;
    // Before this process is another user to v1's cgroups, and before the cgroup namespace, whose
    // root is where its maker is.
    enter_cgroups(plan.awaits_cgroup, &mut plan.way_in, end)?;
    cpu_affinity::reset()?;
    set_own_oom_score(plan)?;
    enter_namespaces(plan, end)?;
    // A session of its own, so that no terminal of the caller's is the container's.
    setsid().context("setsid")?;
    let labels = plan.process.as_ref().map(|process| &process.labels);
    // While /proc is the host's, and not anything that the container has made.
    let proc = if plan.sysctl.is_empty() && !labels.is_some_and(Labels::are_given) {
        None
    } else {
        Some(ProcFd::private()?)
    };
    if plan.new_keyring {
        join_keyring(&plan.id, labels.zip(proc.as_ref()))?;
    }
    if plan.bring_loopback_up {
        network::bring_loopback_up().called(|| "bring lo up".into())?;
    }
    let root = rootfs::prepare(&mut plan.rootfs)?;
    if plan.has_runtime_hooks {
        end.send(&FromInit::RootReady)?;
        end.expect(ToInit::HooksDone)?;
    }
    if !plan.create_container.is_empty() {
        hooks::run(
            "createContainer",
            &plan.create_container,
            &state_json(plan, Status::Creating)?,
        )?;
    }
    let console = open_console(plan, &root)?;
    if let Some(proc) = &proc {
        sysctl::write(proc, &plan.sysctl)?;
    }
    set_names(plan)?;
    if let Some(process) = &plan.process {
        rootfs::make_cwd(&root, &process.cwd)?;
    }
    rootfs::conceal(&plan.rootfs, &root)?;
    rootfs::enter(&plan.rootfs, &root)?;
    let process = plan
        .process
        .as_ref()
        .context("config.json: process: is missing")?;
    let console = give_console(console, end, process)?;
    let env = with_home(process, &root);
    if let Some(console) = console {
        console.attach().context("attach the terminal")?;
    } else if plan.rootfs.dev.is_some() {
        reopen_null(&root)?;
    }
    drop(root);
    let whose = (plan.in_user_namespace, plan.may_be_joined_by_its_user());
    let prepared = prepare_program((process, env), whose, proc.as_ref(), end)?;
    end.send(&FromInit::Prepared)?;
    Ok(prepared)
}

/// Enters every namespace that this process was not born into.
fn enter_namespaces(plan: &mut InitPlan, end: &InitEnd) -> anyhow::Result<()> {
    let time = plan.namespaces.open_time()?;
    if plan.new_user_namespace {
        become_mapped(plan, end)?;
    }
    // No process of a joined namespace may look into this one (CVE-2016-9962).
    prctl::set_dumpable(false).context("prctl(DUMPABLE)")?;
    plan.namespaces.join()?;
    plan.namespaces.unshare_cgroup()?;
    Ok(plan.namespaces.enter_time(time.as_ref())?)
}

/// Tells the kernel how gladly it may kill this process, while its files in /proc are its own:
/// the children inherit it.
fn set_own_oom_score(plan: &mut InitPlan) -> anyhow::Result<()> {
    let Some(score) = plan.oom_score_adj.take() else {
        return Ok(());
    };
    let written = ProcFd::host()?.write("self/oom_score_adj", score.to_string().as_bytes());
    written.context("process.oomScoreAdj")
}

/// Becomes root of the user namespace that this process was born into.
fn become_mapped(plan: &InitPlan, end: &InitEnd) -> anyhow::Result<()> {
    // An ordinary user can map only what is dumpable. No namespace of a container's is joined by
    // then, unless by root.
    if !plan.of_ordinary_user {
        prctl::set_dumpable(false).context("prctl(DUMPABLE)")?;
    }
    end.expect(ToInit::IdsMapped)?;
    namespaces::user::become_root().context("take root's ids in the user namespace")?;
    // Another user's process has lost it.
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).context("prctl(PDEATHSIG)")
}

/// The configured environment, and `HOME` where it has none.
fn with_home(process: &ProcessPlan, root: &RootFd) -> Vec<String> {
    let mut env = process.env.clone();
    if !env.iter().any(|pair| pair.starts_with("HOME=")) {
        env.push(format!(
            "HOME={}",
            accounts::home_of(root, process.user.uid)
        ));
    }
    env
}

/// What init and `exec` have in common: the last steps before execve(2). `is_its_users` says that
/// nobody but the ordinary user who made it sees this process.
fn prepare_program(
    (process, env): (&ProcessPlan, Vec<String>),
    (in_user_namespace, is_its_users): (bool, bool),
    proc: Option<&ProcFd>,
    end: &InitEnd,
) -> anyhow::Result<Prepared> {
    if let Some(policy) = &process.memory_policy {
        policy.set()?;
    }
    sys::process::reset_signals();
    let first_unknown = 3 + i32::try_from(process.preserve_fds).context("--preserve-fds")?;
    sys::close_range::close_on_exec_from(first_unknown).called(|| "close_range".into())?;
    if let Some(proc) = proc {
        process.labels.apply_at_exec(proc)?;
    }
    if let Some(domain) = process.personality {
        scheduling::set_personality(domain)?;
    }
    become_process(process, in_user_namespace)?;
    let file = execve::find(&process.args[0], &env)?;
    prctl::set_name(start_socket::WAITING).context("prctl(NAME)")?;
    // From here on the process outlives the runtime.
    prctl::set_pdeathsig(None).context("prctl(PDEATHSIG)")?;
    let env = env
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .context("process.env")?;
    if is_its_users && agent_filter(process).is_some() {
        // Else only root could take its listener.
        prctl::set_dumpable(true).context("prctl(DUMPABLE)")?;
    }
    notify_agent(process, end)?;
    Ok(Prepared { file, env })
}

/// Waits until it is in its cgroup, where systemd has to move it, or writes itself into each v1
/// hierarchy: a process of one thread that moves itself does not
/// wait for the lock over all threads of the machine.
fn enter_cgroups(is_moved: bool, way_in: &mut Vec<OwnedFd>, end: &InitEnd) -> anyhow::Result<()> {
    if is_moved {
        end.expect(ToInit::InCgroup)?;
    }
    for tasks in way_in.drain(..) {
        nix::unistd::write(&tasks, b"0").context("enter the cgroup")?;
    }
    Ok(())
}

/// Joins the container's session keyring, which is made where there is none.
fn join_keyring(id: &str, labels: Option<(&Labels, &ProcFd)>) -> anyhow::Result<()> {
    if let Some((labels, proc)) = labels {
        labels.apply_to_keys(proc)?;
    }
    let name = CString::new(format!("_ses.{id}")).context("session keyring")?;
    // Who may search it finds it by its name: so the processes of `exec` get this very one.
    let joined = keyctl::join_session_keyring(&name).and_then(keyctl::let_user_search);
    match joined {
        // A kernel without keyrings has none to leak, and one whose profile forbids keyctl
        // hides them.
        Ok(()) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        done => Ok(done.called(|| format!("keyctl(JOIN_SESSION_KEYRING, {name:?})"))?),
    }
}

fn set_names(plan: &InitPlan) -> anyhow::Result<()> {
    if let Some(name) = &plan.hostname {
        sethostname(name)
            .called(|| format!("sethostname({name:?})"))
            .context("hostname")?;
    }
    if let Some(name) = &plan.domainname {
        sys::process::setdomainname(name)
            .called(|| format!("setdomainname({name:?})"))
            .context("domainname")?;
    }
    Ok(())
}

fn open_console(plan: &InitPlan, root: &RootFd) -> anyhow::Result<Option<Console>> {
    let Some(process) = plan.process.as_ref().filter(|process| process.terminal) else {
        return Ok(None);
    };
    let console = console::open(root, process.console_size).context("open a terminal")?;
    console
        .bind_on_dev_console(root)
        .context("bind the terminal on /dev/console")?;
    Ok(Some(console))
}

/// Hands the master out and keeps the peer.
fn give_console(
    console: Option<Console>,
    end: &InitEnd,
    process: &ProcessPlan,
) -> anyhow::Result<Option<Console>> {
    let Some(console) = console else {
        return Ok(None);
    };
    console
        .give_to(Uid::from_raw(process.user.uid))
        .context("give the terminal to the user")?;
    let master = console.master.try_clone().context("dup the terminal")?;
    end.send(&FromInit::Console {
        name: console.name.clone(),
        master,
    })?;
    Ok(Some(console))
}

/// A descriptor of the host's null device would be a way to the host's /dev.
fn reopen_null(root: &RootFd) -> anyhow::Result<()> {
    use nix::sys::stat::{fstat, makedev};
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let is_null =
        |fd: std::os::fd::BorrowedFd<'_>| fstat(fd).is_ok_and(|stat| stat.st_rdev == makedev(1, 3));
    let which = [
        is_null(stdin.as_fd()),
        is_null(stdout.as_fd()),
        is_null(stderr.as_fd()),
    ];
    if which == [false; 3] {
        return Ok(());
    }
    let null = root
        .open_beneath(std::path::Path::new("/dev/null"), OFlag::O_RDWR)
        .context("open the container's /dev/null")?;
    if which[0] {
        nix::unistd::dup2_stdin(&null).context("dup2(0)")?;
    }
    if which[1] {
        nix::unistd::dup2_stdout(&null).context("dup2(1)")?;
    }
    if which[2] {
        nix::unistd::dup2_stderr(&null).context("dup2(2)")?;
    }
    Ok(())
}

/// Becomes the user, with the capabilities and the working directory that it is to have.
fn become_process(process: &ProcessPlan, in_user_namespace: bool) -> anyhow::Result<()> {
    credentials::set_umask(&process.user);
    // A directory that only root may enter is entered as root; one that only the user may
    // enter (NFS) as the user.
    let early = execve::change_dir(&process.cwd);
    credentials::give_stdio(&process.user)?;
    // With the runtime's capabilities still there; in a user namespace the runtime does it,
    // whose capabilities are the ones that count.
    if !in_user_namespace {
        rlimits::set(getpid(), &process.rlimits)?;
    }
    process.capabilities.limit_bounding()?;
    credentials::become_user(&process.user)?;
    process.capabilities.apply(filter_right(process))?;
    if early.is_err()
        || !process
            .capabilities
            .is_effective(Capability::CAP_DAC_OVERRIDE)
    {
        match execve::change_dir(&process.cwd) {
            Err(error) if early.is_err() => return Err(error.into()),
            _ => {}
        }
    }
    execve::check_cwd(&process.cwd)?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().context("prctl(NO_NEW_PRIVS)")?;
    }
    Ok(())
}

/// Without `no_new_privs` a filter takes CAP_SYS_ADMIN, which is kept until then: so the
/// profile need allow as little of what init does as with it.
fn filter_right(process: &ProcessPlan) -> FilterRight {
    if process.seccomp.is_some() && !process.no_new_privileges {
        FilterRight::Kept
    } else {
        FilterRight::Dropped
    }
}

/// Puts this process under its filter, for good, has `told` see to its listener, and gives up
/// what the filter took.
fn confine(
    process: &ProcessPlan,
    filter: &Filter,
    told: impl FnOnce(Option<OwnedFd>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    told(filter.load().context("linux.seccomp")?)?;
    if filter_right(process) == FilterRight::Kept {
        process.capabilities.settle()?;
    }
    Ok(())
}

/// The filter, if it asks an agent.
fn agent_filter(process: &ProcessPlan) -> Option<&Filter> {
    process.seccomp.as_ref().filter(|filter| filter.notifies())
}

/// Where a filter asks an agent: loads it, and has the runtime give the agent its listener. From
/// here on this process is under the filter. The listener ends with execve(2).
fn notify_agent(process: &ProcessPlan, end: &InitEnd) -> anyhow::Result<()> {
    let Some(filter) = agent_filter(process) else {
        return Ok(());
    };
    confine(process, filter, |listener| {
        let listener = listener.context("linux.seccomp: no listener")?;
        // Not closed here: that would be one more call which the profile has to allow.
        end.send(&FromInit::SeccompListener(listener.into_raw_fd()))?;
        end.expect(ToInit::ListenerTaken)?;
        Ok(())
    })
}

/// Waits until the container is started; returns where to answer.
fn wait_for_start(
    end: InitEnd,
    listener: Option<OwnedFd>,
    awaits_record: bool,
) -> anyhow::Result<Option<OwnedFd>> {
    let Some(listener) = listener else {
        end.expect(ToInit::Start)?;
        return Ok(Some(end.0));
    };
    if awaits_record {
        end.expect(ToInit::Recorded)?;
    }
    drop(end);
    Ok(start_socket::wait(&listener)?)
}

fn execute(plan: &InitPlan, prepared: &Prepared) -> anyhow::Error {
    if !plan.start_container.is_empty() {
        let run = || -> anyhow::Result<()> {
            let json = state_json(plan, Status::Created)?;
            hooks::run("startContainer", &plan.start_container, &json)?;
            Ok(())
        };
        if let Err(error) = run() {
            return error;
        }
    }
    let Some(process) = &plan.process else {
        return anyhow::anyhow!("no process");
    };
    become_program(process, prepared)
}

/// Executes the program. Returns only on failure.
fn become_program(process: &ProcessPlan, prepared: &Prepared) -> anyhow::Error {
    // Last, so that of ours next to nothing but execve(2) is under it.
    if let Some(filter) = process.seccomp.as_ref().filter(|filter| !filter.notifies())
        && let Err(error) = confine(process, filter, |_| Ok(()))
    {
        return error;
    }
    execve::run(&prepared.file, &process.c_args, &prepared.env).into()
}

/// The state that hooks in the container namespace read; the pid is the one seen there.
fn state_json(plan: &InitPlan, status: Status) -> anyhow::Result<Vec<u8>> {
    let mut state = plan.state.clone();
    state.init = Some(Process {
        pid: getpid().as_raw(),
        start_time: 0,
    });
    serde_json::to_vec(&state.report(status)).context("state for hooks")
}
