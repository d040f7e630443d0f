//! Parses the command line, runs the command, prints the one error.

use std::process::ExitCode;

use clap::Parser;
use gocker_image::{cli, report};

fn main() -> ExitCode {
    report::finish("gocker-image", gocker_image::run(cli::Cli::parse()))
}
