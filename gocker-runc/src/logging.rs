//! `--log` and `--log-format`: what engines read, in the form that runc writes.
//!
//! Engines parse the whole JSON file as one object and take its message for the error, so on
//! failure exactly one object is written, and warnings never.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
pub(crate) fn init(log: Log) {
    LOG.get_or_init(|| log);
}

/// Tells of a step that was taken, with `--debug`: in a log file for people, else on stderr.
pub(crate) fn debug(message: impl FnOnce() -> String) {
    let Some(log) = LOG.get().filter(|log| log.debug) else {
        return;
    };
    match (&log.file, log.format) {
        // Not worth failing for.
        (Some(_), Format::Text) => drop(append("debug", &message())),
        _ => eprintln!("gocker-runc: debug: {}", message()),
    }
}

/// Tells of something that was passed over.
pub(crate) fn warn(message: &str) {
    match LOG.get().map(|log| (&log.file, log.format)) {
        Some((Some(_), Format::Json)) => {}
        // A warning is not worth failing for, and stderr may be the container's.
        Some((Some(_), Format::Text)) => drop(append("warning", message)),
        _ => eprintln!("gocker-runc: warning: {message}"),
    }
}

/// Tells why the command failed: in the log file and on stderr.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    eprintln!("gocker-runc: {message}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    if let Err(error) = append("error", message) {
        eprintln!("gocker-runc: write the log: {error}");
    }
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
    let mut file = OpenOptions::new().append(true).create(true).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())
}
