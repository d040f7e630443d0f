//! `--log` and `--log-format`: what engines read, in the form that runc writes.
//!
//! Engines parse the whole JSON file as one object and take its message for the error, so on
//! failure exactly one object is written, and warnings never; steps are, for whom `--debug` asks.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context;
use nix::errno::Errno;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::sys::errno::describe;

/// Where messages go.
#[derive(Debug)]
pub(crate) struct Log {
    /// `--log`; None is stderr alone.
    pub(crate) file: Option<PathBuf>,
    /// `--log-format`.
    pub(crate) format: Format,
    /// `--debug`.
    pub(crate) debug: bool,
}

/// How the log file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `time="..." level=error msg="..."`
    Text,
    /// One JSON object a line.
    Json,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Sets where messages go. A second call changes nothing.
///
/// # Errors
/// The log file cannot be opened. A full or read-only disk is a warning alone: it must not keep
/// a container from being deleted.
pub(crate) fn init(log: Log) -> anyhow::Result<()> {
    let log = LOG.get_or_init(|| log);
    let Some(path) = &log.file else {
        return Ok(());
    };
    match open(path) {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            to_stderr(&format!("warning: {}", not_written(path, &error)));
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("--log {path:?}: open")),
    }
}

/// A line on stderr; if that is closed or full there is nobody left to tell.
fn to_stderr(message: &str) {
    drop(writeln!(io::stderr(), "gocker-runc: {message}"));
}

fn not_written(path: &Path, error: &io::Error) -> String {
    let why = error.raw_os_error().map_or_else(
        || error.to_string(),
        |errno| describe(Errno::from_raw(errno)),
    );
    format!("write to the log {path:?}: {why}")
}

/// Tells of a step that was taken, with `--debug`: in the log file, else on stderr.
pub(crate) fn debug(message: impl FnOnce() -> String) {
    let Some(log) = LOG.get().filter(|log| log.debug) else {
        return;
    };
    match &log.file {
        // Not worth failing for.
        Some(_) => drop(append("debug", &message())),
        None => to_stderr(&format!("debug: {}", message())),
    }
}

/// Tells of something that was passed over.
pub(crate) fn warn(message: &str) {
    match LOG.get().map(|log| (&log.file, log.format)) {
        Some((Some(_), Format::Json)) => {}
        // A warning is not worth failing for, and stderr may be the container's.
        Some((Some(_), Format::Text)) => drop(append("warning", message)),
        _ => to_stderr(&format!("warning: {message}")),
    }
}

/// Tells why the command failed: in the log file and on stderr.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    to_stderr(message);
    if let Some(hint) = hint {
        drop(writeln!(io::stderr(), "hint: {hint}"));
    }
    let path = LOG.get().and_then(|log| log.file.as_deref());
    if let (Some(path), Err(error)) = (path, append("error", message)) {
        to_stderr(&format!("warning: {}", not_written(path, &error)));
    }
}

/// The error that [`init`] met, for which there is no log.
pub(crate) fn error_without_log(message: &str) {
    to_stderr(message);
}

fn append(level: &str, message: &str) -> io::Result<()> {
    let Some(Log {
        file: Some(file),
        format,
        ..
    }) = LOG.get()
    else {
        return Ok(());
    };
    let time = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .map_err(io::Error::other)?;
    let line = match format {
        Format::Json => json!({ "level": level, "msg": message, "time": time }).to_string(),
        Format::Text => format!("time={time:?} level={level} msg={message:?}"),
    };
    open(file)?.write_all(format!("{line}\n").as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
