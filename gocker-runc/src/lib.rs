//! `gocker-runc`: a low-level OCI runtime with runc's command line.
//!
//! The modules stand on floors, and each imports only from lower ones: `commands` parse and
//! print; `operations` are the runtime process; `init` is the container process; `container`
//! and `process` hold what lies between; the features (`rootfs`, `namespaces`, `cgroups`, ...)
//! do one thing each; `sys` is the kernel.

mod accounts;
mod capabilities;
mod cgroups;
mod cli;
mod commands;
mod console;
mod container;
mod cpu_affinity;
mod criu;
mod errors;
mod hooks;
mod init;
mod intel_rdt;
mod logging;
mod lsm;
mod memory_policy;
mod namespaces;
mod network_devices;
mod operations;
mod process;
mod rlimits;
mod rootfs;
mod rootless;
mod scheduling;
mod seccomp;
mod sys;
mod sysctl;

#[cfg(feature = "compare-libseccomp")]
pub use seccomp::program as seccomp_program;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// The definition of the command line, of which completions and man pages are made.
#[must_use]
pub fn command() -> clap::Command {
    cli::Cli::command()
}

/// Parses the command line, runs the command, prints the one error.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse_from(cli::normalize(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // --help and --version come this way, too; if printing fails there is nobody to
            // tell.
            drop(error.print());
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let log = logging::Log {
        file: cli.log.clone(),
        format: cli.log_format.into(),
        debug: cli.debug,
    };
    if let Err(error) = logging::init(log) {
        logging::error_without_log(&errors::one_line(&error));
        return cli.command.failure();
    }
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            let message = errors::one_line(&error);
            logging::error(&message, errors::hint(&message));
            cli.command.failure()
        }
    }
}
