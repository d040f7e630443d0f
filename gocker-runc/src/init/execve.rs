//! The last step: the working directory, the program's file, execve(2).

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, chdir, eaccess, execve, getcwd};

use crate::sys::errno::describe;
use crate::sys::{CallError, Called};

/// The program cannot be found or executed. Docker and Podman turn the words into exit
/// statuses 126 and 127, so they are the ones that they know.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A bare name that is nowhere.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    /// A path that is not there or cannot be reached.
    #[error("exec: {name:?}: stat {name}: {}", describe(*errno))]
    Stat {
        /// The program.
        name: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file that is there and cannot be executed.
    #[error("exec: {name:?}: {problem}")]
    NotExecutable {
        /// The program.
        name: String,
        /// Why.
        problem: String,
    },
    /// The working directory.
    #[error("chdir to cwd ({cwd:?}) set in config.json")]
    Chdir {
        /// The directory.
        cwd: PathBuf,
        /// The call.
        source: CallError,
    },
    /// The working directory lies outside of the root (CVE-2024-21626).
    #[error("chdir to cwd ({cwd:?}) set in config.json: it is outside of the container's root")]
    CwdOutside {
        /// The directory.
        cwd: PathBuf,
    },
}

/// Changes the working directory.
///
/// # Errors
/// [`Error::Chdir`].
pub(crate) fn change_dir(cwd: &Path) -> Result<(), Error> {
    chdir(cwd)
        .called(|| format!("chdir({cwd:?})"))
        .map_err(|source| Error::Chdir {
            cwd: cwd.to_owned(),
            source,
        })
}

/// Makes sure that the working directory lies inside the root: a magic link in `/proc` could
/// have led to a directory of the host.
///
/// # Errors
/// [`Error::CwdOutside`].
pub(crate) fn check_cwd(cwd: &Path) -> Result<(), Error> {
    match getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(Error::CwdOutside {
            cwd: cwd.to_owned(),
        }),
    }
}

/// Finds the file of `name` as execvp(3) does, with the container's `PATH`.
///
/// Runs in: container namespace, as the container's user.
///
/// # Errors
/// What the caller's engine expects to read.
pub(crate) fn find(name: &str, env: &[String]) -> Result<CString, Error> {
    let found = |path: &[u8]| CString::new(path).map_err(|_| Error::NotInPath(name.to_owned()));
    if name.contains('/') {
        check(Path::new(name)).map_err(|refusal| refusal.naming(name))?;
        return found(name.as_bytes());
    }
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
    // A file that is there but may not be executed explains more than "not found".
    let mut refusal = None;
    for dir in path.unwrap_or_default().split(':') {
        let file = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match check(&file) {
            Ok(()) => return found(OsStr::as_bytes(file.as_os_str())),
            Err(Refusal::Missing(_)) => {}
            Err(other) => refusal = Some(other),
        }
    }
    Err(refusal.map_or_else(
        || Error::NotInPath(name.to_owned()),
        |refusal| refusal.naming(name),
    ))
}

/// Why a file is no program.
enum Refusal {
    Missing(Errno),
    Directory,
    Forbidden,
}

impl Refusal {
    fn naming(self, name: &str) -> Error {
        let name = name.to_owned();
        match self {
            Self::Missing(errno) => Error::Stat { name, errno },
            Self::Directory => Error::NotExecutable {
                name,
                // The kernel's answer to an execve(2) of it; older engines know no other.
                problem: "is a directory: permission denied".into(),
            },
            Self::Forbidden => Error::NotExecutable {
                name,
                problem: "permission denied".into(),
            },
        }
    }
}

fn check(file: &Path) -> Result<(), Refusal> {
    let stat = stat(file).map_err(|errno| match errno {
        Errno::EACCES => Refusal::Forbidden,
        errno => Refusal::Missing(errno),
    })?;
    if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
        return Err(Refusal::Directory);
    }
    // Root may read everything, but execute only what somebody may.
    if stat.st_mode & 0o111 == 0 || eaccess(file, AccessFlags::X_OK).is_err() {
        return Err(Refusal::Forbidden);
    }
    Ok(())
}

/// Becomes the program. Returns only on failure.
pub(crate) fn run(file: &CString, args: &[CString], env: &[CString]) -> Error {
    let name = args.first().unwrap_or(file).to_string_lossy().into_owned();
    match execve(file, args, env) {
        Err(Errno::EACCES) => Error::NotExecutable {
            name,
            problem: "permission denied".into(),
        },
        Err(errno) => Error::NotExecutable {
            name,
            problem: describe(errno),
        },
        Ok(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_refused_in_known_words() {
        let env = |path: &str| vec![format!("PATH={path}")];
        assert_eq!(
            find("sh", &env("/nowhere:/bin")).expect("found").as_bytes(),
            b"/bin/sh"
        );
        let cases = [
            (
                "nothing-like-it",
                "/bin",
                "exec: \"nothing-like-it\": executable file not found in $PATH",
            ),
            (
                "/no/such",
                "",
                "exec: \"/no/such\": stat /no/such: no such file or directory (ENOENT)",
            ),
            (
                "/etc",
                "",
                "exec: \"/etc\": is a directory: permission denied",
            ),
            (
                "/etc/passwd",
                "",
                "exec: \"/etc/passwd\": permission denied",
            ),
            ("passwd", "/etc", "exec: \"passwd\": permission denied"),
        ];
        for (name, path, expected) in cases {
            assert_eq!(
                find(name, &env(path)).expect_err(name).to_string(),
                expected
            );
        }
    }
}
