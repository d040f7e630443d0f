//! Opens a bundle and writes one.
//!
//! Spec: bundle.md

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::Serialize;

use crate::config::parse;

/// A bundle whose `config.json` has been read.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The bundle's directory, absolute and without symlinks.
    pub dir: PathBuf,
    /// What its `config.json` says.
    pub spec: Spec,
    /// What was passed over while reading, one line each, for the caller to log.
    pub warnings: Vec<String>,
}

/// Why a bundle could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be reached.
    #[error("bundle {dir:?}")]
    Directory {
        /// The directory that was named.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `config.json` cannot be read.
    #[error("open {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `config.json` cannot be written.
    #[error("write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `config.json` is not what runtime-spec's config.md describes.
    #[error("config.json")]
    Config(#[from] parse::Error),
}

impl Bundle {
    /// The longest `config.json` that is read, in bytes.
    const MAX_CONFIG: u64 = 64 << 20;

    /// The file that makes a directory a bundle.
    pub const CONFIG_JSON: &'static str = "config.json";

    /// Opens the bundle at `dir` and reads its `config.json`.
    ///
    /// # Errors
    /// [`Error`]: the directory or the file is not there, or the file is not a
    /// configuration. Whether the values make sense is [`crate::config::Config`]'s to say.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let dir = fs::canonicalize(dir).map_err(|source| Error::Directory {
            dir: dir.to_owned(),
            source,
        })?;
        let path = dir.join(Self::CONFIG_JSON);
        let text = read_config(&path).map_err(|source| Error::Read { path, source })?;
        let (spec, warnings) = parse::spec(&text)?;
        Ok(Self {
            dir,
            spec,
            warnings,
        })
    }

    /// Makes the directory `dir` if it is missing and writes `spec` as its `config.json`,
    /// by rename, so that a reader sees the old file or the whole new one.
    ///
    /// # Errors
    /// [`Error::Directory`] and [`Error::Write`], with the system's answer.
    pub fn write(dir: &Path, spec: &Spec) -> Result<Self, Error> {
        let directory = |source| Error::Directory {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(directory)?;
        let dir = fs::canonicalize(dir).map_err(directory)?;
        let path = dir.join(Self::CONFIG_JSON);
        let temporary = dir.join(format!(".config.json.{}", std::process::id()));
        let write = || -> io::Result<()> {
            let text = to_json(spec)?;
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&text)?;
            fs::rename(&temporary, &path)
        };
        if let Err(source) = write() {
            // The first error is the one to report; the file may never have been made.
            drop(fs::remove_file(&temporary));
            return Err(Error::Write { path, source });
        }
        Ok(Self {
            dir,
            spec: spec.clone(),
            warnings: Vec::new(),
        })
    }
}

/// Reads a file that must be one: who opens a fifo would wait for its writer for ever.
fn read_config(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = fs::OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).min(1 << 20));
    file.take(Bundle::MAX_CONFIG + 1).read_to_end(&mut text)?;
    if text.len() as u64 > Bundle::MAX_CONFIG {
        let problem = format!("it is longer than {} MiB", Bundle::MAX_CONFIG >> 20);
        return Err(io::Error::other(problem));
    }
    Ok(text)
}

/// `spec` as JSON text, indented by tabs as `spec` commands print it, with a final newline.
///
/// # Errors
/// None in practice: every field of a [`Spec`] can be written as JSON.
pub fn to_json(spec: &Spec) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(8192);
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    spec.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, formatter,
    ))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_opened_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let spec = crate::defaults::spec();
        Bundle::write(&dir.path().join("b"), &spec).expect("written");
        let bundle = Bundle::open(&dir.path().join("b")).expect("opened");
        assert_eq!(bundle.spec, spec);
        let names: Vec<_> = fs::read_dir(&bundle.dir).expect("listed").collect();
        assert_eq!(names.len(), 1, "no temporary file stays: {names:?}");
    }

    #[test]
    fn a_missing_config_names_its_path() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = Bundle::open(dir.path()).expect_err("no config.json");
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}
