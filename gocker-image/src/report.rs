//! What both programs say on a terminal when something fails, and how they
//! write to it at all.
//!
//! ```text
//! gocker-image: pull "ghcr.io/a/b:1": GET /v2/a/b/manifests/1: MANIFEST_UNKNOWN: … (404)
//! hint: …
//! ```

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::operations;

/// Ends a program: prints the one error of `result`, outermost first, and
/// makes the exit status.
#[must_use]
pub fn finish(program: &str, result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    // whoever reads our output has seen enough: not worth a word
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<OutputError>()
            .is_some_and(|output| output.0.kind() == io::ErrorKind::BrokenPipe)
    };
    if !error.chain().any(is_broken_pipe) {
        let mut text = format!("{program}: {error:#}\n");
        if let Some(hint) = operations::hint(&error) {
            text.push_str(&format!("hint: {hint}\n"));
        }
        say(&text);
    }
    ExitCode::FAILURE
}

/// One line about something that is no failure.
pub fn warn(program: &str, text: &str) {
    say(&format!("{program}: warning: {text}\n"));
}

/// One line about what is being done.
pub fn note(program: &str, text: &str) {
    say(&format!("{program}: {text}\n"));
}

/// Writes to standard error. If that is closed there is nobody to tell.
pub(crate) fn say(text: &str) {
    if io::stderr().lock().write_all(text.as_bytes()).is_err() {
        return;
    }
}

/// Writes to standard output.
///
/// # Errors
/// If it is closed or full. A closed pipe ends the program without a word.
pub fn print(text: &str) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(OutputError)
}

/// Whether both standard input and output are terminals.
#[must_use]
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write to standard output: {0}")]
pub struct OutputError(io::Error);
