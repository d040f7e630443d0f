//! Parses the command line, runs the command, prints the one error.

use std::process::ExitCode;

use gocker_image::operations::Failure;
use gocker_image::{cli, report};

fn main() -> ExitCode {
    match report::parse::<cli::Cli>("gocker-image") {
        Ok(cli) => report::finish("gocker-image", gocker_image::run(cli), |error| {
            Failure::of(error).exit_status()
        }),
        Err(code) => code,
    }
}
