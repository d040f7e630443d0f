//! The runtime as any engine calls it: a program with runc's command line.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The variable that names the runtime.
pub(crate) const RUNTIME_VARIABLE: &str = "GOCKER_RUNC";
const RUNTIME_NAME: &str = "gocker-runc";
/// Where the runtime keeps its state unless it is told otherwise.
pub(crate) const DEFAULT_STATE_ROOT: &str = "/run/gocker-runc";

/// The runtime's program and its state.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    program: PathBuf,
    state_root: PathBuf,
}

/// What the runtime says of one container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct State {
    /// The container's id.
    pub(crate) id: String,
    /// 0 when it is stopped.
    pub(crate) pid: i32,
    /// `creating`, `created`, `running`, `paused`, `stopped`.
    pub(crate) status: String,
    /// Its bundle, absolute.
    pub(crate) bundle: PathBuf,
    /// When it was created, as RFC 3339.
    #[serde(default)]
    pub(crate) created: String,
}

impl State {
    pub(crate) fn is_stopped(&self) -> bool {
        self.status == "stopped"
    }
}

impl Runtime {
    /// Finds the program: by `GOCKER_RUNC`, beside this one, in `PATH`.
    pub(crate) fn find(state_root: &Path) -> anyhow::Result<Self> {
        let own = env::current_exe().ok();
        let beside = own.as_deref().and_then(Path::parent);
        let program = find_program(env::var_os(RUNTIME_VARIABLE), beside, env::var_os("PATH"))?;
        Ok(Self {
            program,
            state_root: state_root.to_owned(),
        })
    }

    /// A call of the runtime.
    pub(crate) fn command(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state_root).args(arguments);
        command
    }

    /// All containers that the runtime knows.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<State>> {
        let output = self
            .output(["list", "--format", "json"])
            .context("list containers")?;
        // "null" when there are none
        let list: Option<Vec<State>> = serde_json::from_slice(&output.stdout)
            .context("list containers: read the runtime's answer")?;
        Ok(list.unwrap_or_default())
    }

    /// Ends the container if it runs, and forgets it. One that is not there is
    /// as good as deleted.
    pub(crate) fn delete_by_force(&self, id: &str) -> anyhow::Result<()> {
        self.output(["delete", "--force", id]).map(|_| ())
    }

    /// Runs to the end; what the runtime says of a failure becomes the error.
    fn output(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Output> {
        let mut command = self.command(arguments);
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.start_text())?;
        if output.status.success() {
            return Ok(output);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        match text.trim() {
            "" => bail!("{:?}: {}", self.program, output.status),
            said => bail!("{}", said.lines().collect::<Vec<_>>().join("; ")),
        }
    }

    /// What is being done when the runtime is started.
    pub(crate) fn start_text(&self) -> String {
        format!("start the runtime {:?}", self.program)
    }
}

fn find_program(
    named: Option<OsString>,
    beside: Option<&Path>,
    search: Option<OsString>,
) -> anyhow::Result<PathBuf> {
    if let Some(named) = named.filter(|name| !name.is_empty()) {
        let path = PathBuf::from(named);
        if !is_program(&path) {
            bail!("{RUNTIME_VARIABLE}: {path:?} is not a program");
        }
        return Ok(path);
    }
    let places = beside.map(Path::to_owned).into_iter();
    let places = places.chain(search.iter().flat_map(env::split_paths));
    // an empty or relative entry of PATH would mean the current directory
    let mut candidates = places
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(RUNTIME_NAME));
    candidates.find(|path| is_program(path)).with_context(|| {
        format!("no {RUNTIME_NAME} beside this program or in PATH; name one by {RUNTIME_VARIABLE}")
    })
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_is_named_or_beside_or_in_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let path = folder.join(RUNTIME_NAME);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            (folder, path)
        };
        let (beside, beside_program) = make("beside");
        let (searched, searched_program) = make("searched");
        let empty = dir.path().to_owned();
        let search = || Some(env::join_paths([&empty, &searched]).unwrap());
        let named = || Some(OsString::from("/bin/sh"));
        let cases = [
            (
                named(),
                Some(beside.as_path()),
                Some(PathBuf::from("/bin/sh")),
            ),
            (None, Some(beside.as_path()), Some(beside_program)),
            (
                Some(OsString::new()),
                Some(empty.as_path()),
                Some(searched_program.clone()),
            ),
            (None, None, Some(searched_program)),
            (Some("/nonexistent".into()), Some(beside.as_path()), None),
            (Some("/".into()), None, None),
        ];
        for (named, beside, expected) in cases {
            let text = format!("{named:?} {beside:?}");
            assert_eq!(
                find_program(named, beside, search()).ok(),
                expected,
                "{text}"
            );
        }
        assert!(find_program(None, None, Some("relative:".into())).is_err());
    }
}
