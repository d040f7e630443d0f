//! What a failed system call says: the call, its operand, and the cause in
//! words with the errno's name behind.
//!
//! ```text
//! mkdirat("usr/lib"): no space left on device (ENOSPC)
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// A system call that failed. Its source is a [`Cause`].
#[derive(Debug)]
pub struct CallError {
    call: &'static str,
    /// Empty: a descriptor whose name the caller says.
    operand: PathBuf,
    source: Cause,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operand.as_os_str().is_empty() {
            return f.write_str(self.call);
        }
        write!(f, "{}({:?})", self.call, self.operand)
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl CallError {
    /// Says that `call` failed on `operand` with `cause`.
    pub fn new(call: &'static str, operand: impl AsRef<Path>, cause: impl Into<Cause>) -> Self {
        Self {
            call,
            operand: operand.as_ref().to_owned(),
            source: cause.into(),
        }
    }

    /// The errno, if the cause has one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.source.errno()
    }

    /// Whether the file system, or a quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.source.is_full()
    }
}

/// Why a system call failed, in lower case with the errno's name.
#[derive(Debug)]
pub enum Cause {
    /// The kernel said so.
    Errno(Errno),
    /// The standard library said so, for a reason without an errno.
    Io(io::Error),
}

impl Cause {
    /// The errno, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Errno(errno) => Some(*errno),
            Self::Io(error) => error.raw_os_error().map(Errno::from_raw),
        }
    }

    /// Whether the file system, or a quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.errno().is_some_and(means_full)
    }
}

/// Whether it says that the file system, or a quota on it, is full.
#[must_use]
pub fn means_full(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSPC | Errno::EDQUOT)
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::Errno(Errno::from_raw(code)),
            None => Self::Io(error),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => {
                let words = errno.desc();
                // An abbreviation ("RFS specific error") keeps its capitals.
                let keep = !words.chars().nth(1).is_some_and(char::is_lowercase);
                let mut chars = words.chars();
                match chars.next() {
                    Some(first) if !keep => {
                        write!(f, "{}{}", first.to_lowercase(), chars.as_str())?;
                    }
                    _ => f.write_str(words)?,
                }
                write!(f, " ({errno:?})")
            }
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Cause {}

/// The errno, if `cause` is what a system call said.
#[must_use]
pub fn errno_of(cause: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let said = cause.downcast_ref::<Cause>().and_then(Cause::errno);
    said.or_else(|| {
        let error = cause.downcast_ref::<io::Error>()?;
        error.raw_os_error().map(Errno::from_raw)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_in_lower_case_with_their_names() {
        let table = [
            (Errno::ENOENT, "no such file or directory (ENOENT)"),
            (Errno::EIO, "I/O error (EIO)"),
            (Errno::ENOSPC, "no space left on device (ENOSPC)"),
        ];
        for (errno, text) in table {
            assert_eq!(Cause::from(errno).to_string(), text);
        }
        let error = CallError::new("mkdirat", "a/b", Errno::ENOSPC);
        assert_eq!(error.to_string(), "mkdirat(\"a/b\")");
        assert!(error.is_full());
        assert_eq!(CallError::new("write", "", Errno::EIO).to_string(), "write");
    }
}
