//! newuidmap(1) and newgidmap(1): they write maps for those whom the machine's administrator has
//! given more ids.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bundles::FieldError;
use bundles::config::linux::id_mappings::IdMapping;
use nix::unistd::{AccessFlags, Pid, access};

use super::Ids;

/// The program.
#[derive(Debug)]
pub(super) struct Tool(PathBuf);

impl Tool {
    /// Looks for it in `PATH`.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn find(ids: Ids) -> Result<Self, FieldError> {
        let name = match ids {
            Ids::Users => "newuidmap",
            Ids::Groups => "newgidmap",
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok());
        found.map(Self).ok_or_else(|| {
            let problem = format!(
                "{} {} may map only its own id without {name}, which is not in $PATH \
                 (Debian has it in the package uidmap)",
                ids.word(),
                ids.own()
            );
            FieldError::new(ids.field(), problem)
        })
    }

    /// Has it write `mappings` for process `pid`.
    ///
    /// # Errors
    /// The program, and what it said.
    pub(super) fn run(&self, pid: Pid, mappings: &[IdMapping]) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        command.arg(pid.to_string()).stdin(Stdio::null());
        for mapping in mappings {
            let numbers = [mapping.container_id, mapping.host_id, mapping.size];
            command.args(numbers.map(|number| number.to_string()));
        }
        let name = name_of(&self.0);
        let output = command
            .output()
            .map_err(|error| format!("run {:?}: {error}", self.0))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        if said.is_empty() {
            return Err(format!("{name}: {}", output.status));
        }
        // It says its own name.
        Err(if said.starts_with(&name) {
            said.to_owned()
        } else {
            format!("{name}: {said}")
        })
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}
