//! One file for each subcommand: its arguments and one function that parses and prints.

pub(crate) mod checkpoint;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod pause;
mod preserved;
pub(crate) mod ps;
pub(crate) mod restore;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
mod state_root;
pub(crate) mod update;

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::cli::{Cli, Command};
use crate::sys::{errno, process, sealed_exe};

/// Runs the command.
///
/// # Errors
/// The command, its container, and what failed.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let root = state_root::state_root(cli)?;
    match &cli.command {
        Command::Checkpoint(args) => {
            checkpoint::run(&root, args).context(named("checkpoint", &args.id))
        }
        Command::Create(args) => preserved::check(preserved::listened(), args.preserve_fds)
            .and_then(|()| make_ready())
            .and_then(|()| create::run(&root, args, cli.into()))
            .context(named("create", &args.id)),
        Command::Delete(args) => delete::run(&root, args).context(named("delete", &args.id)),
        Command::Events(args) => events::run(&root, args).context(named("events", &args.id)),
        Command::Exec(args) => preserved::check(0, args.preserve_fds)
            .and_then(|()| make_ready())
            .and_then(|()| exec::run(&root, args))
            .context(named("exec", args.id())),
        Command::Features(args) => features::run(args).context("features"),
        Command::Kill(args) => kill::run(&root, args).context(named("kill", &args.id)),
        Command::List(args) => list::run(&root, args).context("list"),
        Command::Pause(args) => pause::run(&root, args).context(named("pause", &args.id)),
        Command::Ps(args) => ps::run(&root, args).context(named("ps", args.id())),
        Command::Restore(args) => {
            restore::run(&root, args, cli.into()).context(named("restore", &args.id))
        }
        Command::Resume(args) => resume::run(&root, args).context(named("resume", &args.id)),
        Command::Run(args) => preserved::check(preserved::listened(), args.preserve_fds)
            .and_then(|()| make_ready())
            .and_then(|()| run::run(&root, args, cli.into()))
            .context(named("run", &args.id)),
        Command::Spec(args) => spec::run(args).context("spec"),
        Command::Start(args) => start::run(&root, args).context(named("start", &args.id)),
        Command::State(args) => state::run(&root, args).context(named("state", &args.id)),
        Command::Update(args) => update::run(&root, args).context(named("update", &args.id)),
    }
}

fn named(command: &str, id: &str) -> String {
    format!("{command} {id:?}")
}

/// The socket of a service manager that waits until the container is ready.
fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// What comes before a container process may be made: refusals that concern the whole
/// command, and a program file that a container cannot write to.
fn make_ready() -> anyhow::Result<()> {
    let file = match sealed_exe::running().context("open(/proc/self/exe)")? {
        sealed_exe::Running::Protected => return Ok(()),
        sealed_exe::Running::Plain(file) => file,
    };
    let protected = sealed_exe::protect(&file).context("protect the runtime's own file")?;
    let c_string = |text: &std::ffi::OsStr| CString::new(text.as_bytes());
    let args: Vec<CString> = std::env::args_os()
        .map(|arg| c_string(&arg))
        .collect::<Result<_, _>>()?;
    let env: Vec<CString> = std::env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<_, _>>()?;
    let args: Vec<_> = args.iter().map(CString::as_c_str).collect();
    let env: Vec<_> = env.iter().map(CString::as_c_str).collect();
    let errno = process::execveat(protected.as_fd(), &args, &env);
    bail!(
        "execute the protected copy of the runtime: {}",
        errno::describe(errno)
    )
}

/// Prints `bytes` on stdout.
///
/// # Errors
/// write(2)'s; a reader that has gone away is none.
pub(crate) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("write to stdout"),
    }
}
