//! What a system call was asked, and what it answered.

use std::fmt;

use nix::errno::Errno;

/// A system call that failed; displays as `openat2("etc/x"): no such file or directory (ENOENT)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallError {
    /// The call with the arguments that matter.
    pub(crate) call: String,
    /// The kernel's answer.
    pub(crate) errno: Errno,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, describe(self.errno))
    }
}

impl std::error::Error for CallError {}

/// An errno's meaning and name: `no such file or directory (ENOENT)`.
pub(crate) fn describe(errno: Errno) -> String {
    let mut text = errno.desc().to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    format!("{text} ({errno:?})")
}

/// Names the call that a result comes from.
pub(crate) trait Called<T> {
    /// Turns the error into a [`CallError`]; `call` is only asked for then.
    ///
    /// # Errors
    /// The same as before, with the call's name.
    fn called(self, call: impl FnOnce() -> String) -> Result<T, CallError>;
}

impl<T> Called<T> for Result<T, Errno> {
    fn called(self, call: impl FnOnce() -> String) -> Result<T, CallError> {
        self.map_err(|errno| CallError {
            call: call(),
            errno,
        })
    }
}

impl<T> Called<T> for std::io::Result<T> {
    fn called(self, call: impl FnOnce() -> String) -> Result<T, CallError> {
        self.map_err(|error| CallError {
            call: call(),
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_has_its_meaning_and_name() {
        assert_eq!(
            describe(Errno::ENOENT),
            "no such file or directory (ENOENT)"
        );
        let error = Err::<(), _>(Errno::EPERM).called(|| "mount(\"/x\")".into());
        assert_eq!(
            error.expect_err("is an error").to_string(),
            "mount(\"/x\"): operation not permitted (EPERM)"
        );
    }
}
