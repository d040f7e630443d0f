//! Parses the command line, runs the command, prints the one error.

use std::process::ExitCode;

use gocker_image::{front, report};

fn main() -> ExitCode {
    match report::parse::<front::Cli>("gocker") {
        Ok(cli) => report::finish("gocker", front::run(cli), |_| 1),
        Err(code) => code,
    }
}
