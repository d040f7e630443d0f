//! The files of a cgroup: one value is one write, and a failure says which field asked for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use nix::errno::Errno;

use super::Error;

/// A value on its way into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The field of the configuration that asks for it, beneath `linux.resources`.
    pub(super) field: &'static str,
    pub(super) file: &'static str,
    pub(super) value: String,
}

impl Setting {
    pub(super) fn new(field: &'static str, file: &'static str, value: impl ToString) -> Self {
        Self {
            field,
            file,
            value: value.to_string(),
        }
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), Error> {
        set(dir, self.file, &self.value, self.field)
    }
}

/// Writes `value` for `field` (named beneath `linux.resources`).
pub(super) fn set(dir: &Path, file: &str, value: &str, field: &str) -> Result<(), Error> {
    let path = dir.join(file);
    write(&path, value).map_err(|answer| refused(&path, value, field, answer))
}

/// The error for a `value` that `path` did not take.
pub(super) fn refused(path: &Path, value: &str, field: &str, answer: Errno) -> Error {
    let field = format!("linux.resources.{field}");
    match (answer, path.parent(), path.file_name()) {
        // The directory is ours; so only the file can be missing.
        (Errno::ENOENT, Some(dir), Some(file)) => Error::NoFile {
            field,
            file: file.to_string_lossy().into(),
            dir: dir.to_owned(),
        },
        _ => Error::Set {
            field,
            value: value.to_owned(),
            path: path.to_owned(),
            answer,
        },
    }
}

/// Writes values whose limits depend on each other, such as memory and memory with swap.
///
/// Which order works hangs on what the files hold: raised limits need the outer one first,
/// lowered limits the inner one. The kernel refuses the wrong order with EINVAL; so each value
/// that is refused is tried again after the others, for as long as that helps.
pub(super) fn set_in_workable_order(dir: &Path, settings: Vec<Setting>) -> Result<(), Error> {
    let mut pending = settings;
    loop {
        let tried = pending.len();
        let mut refusal = None;
        let mut refused = Vec::new();
        for setting in pending {
            match setting.write(dir) {
                Ok(()) => (),
                Err(
                    error @ Error::Set {
                        answer: Errno::EINVAL,
                        ..
                    },
                ) => {
                    refusal.get_or_insert(error);
                    refused.push(setting);
                }
                Err(error) => return Err(error),
            }
        }
        match refusal {
            None => return Ok(()),
            Some(error) if refused.len() == tried => return Err(error),
            Some(_) => pending = refused,
        }
    }
}

/// Writes `value` at once, as the kernel's files need it.
pub(super) fn write(path: &Path, value: &str) -> Result<(), Errno> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(errno)?;
    write_once(&mut file, value)
}

/// One write, repeated only where a signal came between.
pub(super) fn write_once(file: &mut File, value: &str) -> Result<(), Errno> {
    loop {
        match file.write(value.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(errno(error)),
            Ok(written) if written == value.len() => return Ok(()),
            Ok(_) => return Err(Errno::EIO),
        }
    }
}

/// The whole text of a file.
pub(super) fn read(path: &Path) -> Result<String, Errno> {
    let mut file = File::open(path).map_err(errno)?;
    // Not read_to_string: it would ask for a size, which these files do not have.
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// As [`read`], for a file that must be there.
pub(super) fn read_in(dir: &Path, file: &str) -> Result<String, Error> {
    let path = dir.join(file);
    read(&path).map_err(|answer| Error::Path {
        operation: "read",
        path,
        answer,
    })
}

/// The number after `key` in a file of lines `KEY NUMBER`.
pub(super) fn read_key(dir: &Path, file: &str, key: &str) -> Result<Option<u64>, Error> {
    let text = read_in(dir, file)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.map(|number| {
        number.trim().parse().map_err(|_| Error::Content {
            path: dir.join(file),
            text: number.to_owned(),
            expected: "a number",
        })
    })
    .transpose()
}

/// The kernel's answer in an error of the standard library.
pub(super) fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_told_from_a_refused_value() {
        let dir = tempfile::tempdir().expect("has a directory");
        std::fs::write(dir.path().join("pids.max"), "").expect("is written");
        set(dir.path(), "pids.max", "5", "pids.limit").expect("is written");
        assert_eq!(read(&dir.path().join("pids.max")), Ok("5".into()));

        let error = set(dir.path(), "memory.max", "5", "memory.limit").expect_err("no such file");
        let expected = format!(
            "linux.resources.memory.limit: {:?} has no memory.max",
            dir.path()
        );
        assert_eq!(error.to_string(), expected);

        std::fs::create_dir(dir.path().join("cpu.max")).expect("is made");
        let error = set(dir.path(), "cpu.max", "5", "cpu.quota").expect_err("is a directory");
        let path = dir.path().join("cpu.max");
        let expected =
            format!("linux.resources.cpu.quota: write \"5\" to {path:?}: is a directory (EISDIR)");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn keys() {
        let dir = tempfile::tempdir().expect("has a directory");
        std::fs::write(
            dir.path().join("memory.events"),
            "oom 1\noom_kill 22\nbad x\n",
        )
        .expect("is written");
        let key = |key| read_key(dir.path(), "memory.events", key);
        assert_eq!(key("oom_kill").expect("is a number"), Some(22));
        assert_eq!(key("oom_group_kill").expect("is absent"), None);
        key("bad").expect_err("is no number");
    }
}
