//! Parses the command line, runs the command, prints the one error.

use std::process::ExitCode;

use clap::Parser;
use gocker_image::{front, report};

fn main() -> ExitCode {
    report::finish("gocker", front::run(front::Cli::parse()))
}
