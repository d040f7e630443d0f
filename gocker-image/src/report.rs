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
            let printed = print(&error.to_string()).map(|()| ExitCode::SUCCESS);
            return finish(program, printed.map_err(Into::into), |_| 1);
        }
        say(&usage_error(program, &error.to_string()));
        ExitCode::from(2)
    })
}

/// The paragraphs of clap's text as our line and hint.
fn usage_error(program: &str, text: &str) -> String {
    let mut paragraphs = text.split("\n\n");
    let problem = unwrapped(paragraphs.next().unwrap_or_default());
    let problem = problem.strip_prefix("error: ").unwrap_or(&problem);
    match paragraphs.find_map(usage_hint) {
        Some(hint) => format!("{program}: {problem}\nhint: {hint}\n"),
        None => format!("{program}: {problem}\n"),
    }
}

/// The tip or the usage that a paragraph of clap's has.
fn usage_hint(paragraph: &str) -> Option<String> {
    let tips = paragraph.lines().map(str::trim);
    let mut tips = tips.filter_map(|line| line.strip_prefix("tip: "));
    // whoever mistypes an option does not mean it as an image or a file
    let tip = tips.find(|tip| !tip.starts_with("to pass "));
    tip.map(str::to_owned).or_else(|| {
        let text = unwrapped(paragraph);
        let usage = text.strip_prefix("Usage: ")?;
        Some(format!("usage: {usage}"))
    })
}

/// A paragraph as one line.
fn unwrapped(paragraph: &str) -> String {
    let lines: Vec<_> = paragraph.lines().map(str::trim).collect();
    lines.join(" ")
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
#[error("write to standard output")]
pub struct OutputError(#[source] io::Error);

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
            (
                "error: unexpected argument '--rm' found\n\n  tip: a similar argument exists: '--root'\n  tip: to pass '--rm' as a value, use '-- --rm'\n\nUsage: x\n",
                "x: unexpected argument '--rm' found\nhint: a similar argument exists: '--root'\n",
            ),
            (
                "error: unexpected argument '-x' found\n\n  tip: to pass '-x' as a value, use '-- -x'\n\nUsage: x pull <REF>\n",
                "x: unexpected argument '-x' found\nhint: usage: x pull <REF>\n",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(usage_error("x", text), expected);
        }
    }
}
