//! Finds the programs under test.
//!
//! The runtime is, in this order: `$RUNTIME` (any OCI runtime), `$GOCKER_RUNC`,
//! `gocker-runc` beside the test binary's profile directory, in the other
//! profile's directory, and in `$PATH`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Which runtime is being judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours: every test applies.
    Gocker,
    /// The reference implementation.
    Runc,
    /// The one written in C.
    Crun,
    /// Any other.
    Other,
}

/// A runtime, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The program.
    pub program: PathBuf,
    /// Which one it is, read from its `--version`.
    pub kind: Kind,
    /// All that `--version` prints.
    pub version: String,
}

impl Runtime {
    /// Asks a program what it is.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn at(program: &Path) -> Self {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .unwrap_or_else(|error| panic!("{program:?} --version: {error}"));
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        Self {
            program: program.to_owned(),
            kind: kind_of(&version),
            version,
        }
    }
}

/// The runtime under test.
///
/// # Panics
/// When there is none.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let program = env::var_os("RUNTIME")
            .map(PathBuf::from)
            .or_else(|| find("GOCKER_RUNC", "gocker-runc"))
            .expect("a runtime: set RUNTIME, or build gocker-runc first");
        Runtime::at(&program)
    })
}

/// Finds a program of this workspace: by the variable, among what was built
/// with this test, in `$PATH`.
#[must_use]
pub fn find(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(PathBuf::from(path));
    }
    let built = built_directories()
        .into_iter()
        .map(|directory| directory.join(name));
    built.chain(in_path(name)).find(|path| path.is_file())
}

/// Finds a program of this machine.
#[must_use]
pub fn installed(name: &str) -> Option<PathBuf> {
    in_path(name).find(|path| path.is_file())
}

/// `target/PROFILE/deps/TEST` is where a test lies: its own profile comes
/// first, then the other one.
fn built_directories() -> Vec<PathBuf> {
    let Ok(this) = env::current_exe() else {
        return Vec::new();
    };
    let Some(profile) = this.parent().and_then(Path::parent) else {
        return Vec::new();
    };
    let target = profile.parent().unwrap_or(profile);
    vec![
        profile.to_owned(),
        target.join("release"),
        target.join("debug"),
    ]
}

fn in_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let name = name.to_owned();
    directories
        .into_iter()
        .map(move |directory| directory.join(&name))
}

fn kind_of(version: &str) -> Kind {
    match version.split_whitespace().next() {
        Some("gocker-runc") => Kind::Gocker,
        Some("runc") => Kind::Runc,
        Some("crun") => Kind::Crun,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_known_by_the_first_word_of_its_version() {
        for (version, kind) in [
            ("gocker-runc version 0.1.0\ncommit: x\n", Kind::Gocker),
            ("runc version 1.1.5+ds1\n", Kind::Runc),
            ("crun version 1.8.1\n", Kind::Crun),
            ("youki version 0.5\n", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(kind_of(version), kind, "{version}");
        }
    }
}
