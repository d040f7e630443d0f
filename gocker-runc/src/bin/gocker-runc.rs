//! Runs the command line and ends with its exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    gocker_runc::main()
}
