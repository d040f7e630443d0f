//! What both programs say on a terminal when something fails, and how they
//! write to it at all.
//!
//! ```text
//! gocker-image: pull "ghcr.io/a/b:1": GET /v2/a/b/manifests/1: MANIFEST_UNKNOWN: … (404)
//! hint: …
//! ```

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::errno::{Cause, errno_of};
use crate::operations;

/// Parses the command line. What is wrong with it is said in one line, and the
/// program is to end with the status that is returned instead.
///
/// # Errors
/// With the exit status: 0 after help and version, 2 after a wrong line.
pub fn parse<C: clap::Parser>(program: &str) -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        if !error.use_stderr() {
            return if print(&error.to_string()).is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
        say(&usage_error(program, &error.to_string()));
        ExitCode::from(2)
    })
}

/// The paragraphs of clap's text as our line and hint.
fn usage_error(program: &str, text: &str) -> String {
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        paragraph
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    });
    let problem = paragraphs.next().unwrap_or_default();
    let problem = problem.strip_prefix("error: ").unwrap_or(&problem);
    let hint = paragraphs.find_map(|paragraph| {
        let tip = paragraph.strip_prefix("tip: ").map(str::to_owned);
        tip.or_else(|| {
            paragraph
                .strip_prefix("Usage: ")
                .map(|usage| format!("usage: {usage}"))
        })
    });
    match hint {
        Some(hint) => format!("{program}: {problem}\nhint: {hint}\n"),
        None => format!("{program}: {problem}\n"),
    }
}

/// An answer for programs.
///
/// # Errors
/// If a path in it is not UTF-8.
pub(crate) fn json(answer: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(answer)?))
}

/// Ends a program: prints the one error of `result`, outermost first, and
/// makes the exit status, which `status_of` says of an error.
#[must_use]
pub fn finish(
    program: &str,
    result: anyhow::Result<ExitCode>,
    status_of: impl Fn(&anyhow::Error) -> u8,
) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    crate::interrupt::wait_if_ending();
    // whoever reads our output has seen enough: not worth a word
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<OutputError>()
            .is_some_and(|output| output.0.kind() == io::ErrorKind::BrokenPipe)
    };
    if !error.chain().any(is_broken_pipe) {
        let mut text = format!("{program}: {}\n", in_one_line(&error));
        if let Some(hint) = operations::hint(&error) {
            text.push_str(&format!("hint: {hint}\n"));
        }
        say(&text);
    }
    ExitCode::from(status_of(&error))
}

/// The whole chain, what the kernel said in the same words wherever it came from.
fn in_one_line(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| match errno_of(cause) {
        Some(errno) => Cause::from(errno).to_string(),
        None => cause.to_string(),
    });
    causes.collect::<Vec<_>>().join(": ")
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
    drop(io::stderr().lock().write_all(text.as_bytes()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_are_one_line_and_a_hint() {
        let cases = [
            (
                "error: invalid value 'a:' for '<REF>': no\n\nFor more information, try '--help'.\n",
                "x: invalid value 'a:' for '<REF>': no\n",
            ),
            (
                "error: the following required arguments were not provided:\n  <REF>\n\nUsage: x pull <REF>\n\nFor more\n",
                "x: the following required arguments were not provided: <REF>\nhint: usage: x pull <REF>\n",
            ),
            (
                "error: unrecognized subcommand 'pul'\n\n  tip: a similar subcommand exists: 'pull'\n\nUsage: x\n",
                "x: unrecognized subcommand 'pul'\nhint: a similar subcommand exists: 'pull'\n",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(usage_error("x", text), expected);
        }
    }
}
