//! `hooks`: programs that run at the container's turning points.
//!
//! Spec: config.md#posix-platform-hooks

use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{Hook as SpecHook, Hooks as SpecHooks};
use serde::{Deserialize, Serialize};

use super::no_nul;
use crate::validate::FieldError;

/// All six lists, in the order in which they run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Hooks {
    /// Runtime namespace, before the root is pivoted. Deprecated, but Docker's network uses it.
    pub prestart: Vec<Hook>,
    /// Runtime namespace, before the root is pivoted, after `prestart`.
    pub create_runtime: Vec<Hook>,
    /// Container namespace, before the root is pivoted.
    pub create_container: Vec<Hook>,
    /// Container namespace, when `start` is called, before the process.
    pub start_container: Vec<Hook>,
    /// Runtime namespace, after the process has started.
    pub poststart: Vec<Hook>,
    /// Runtime namespace, after the container is deleted.
    pub poststop: Vec<Hook>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program's file, absolute.
    pub path: PathBuf,
    /// Its arguments, the name first; empty means the path alone.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// How long it may take; None waits for ever.
    pub timeout: Option<Duration>,
}

impl Hooks {
    /// Resolves the `hooks` section.
    ///
    /// # Errors
    /// The hook whose path is not absolute or whose timeout is not positive.
    pub fn from_spec(hooks: Option<&SpecHooks>) -> Result<Self, FieldError> {
        let Some(hooks) = hooks else {
            return Ok(Self::default());
        };
        let prestart = hooks.prestart();
        Ok(Self {
            prestart: list("prestart", prestart.as_deref())?,
            create_runtime: list("createRuntime", hooks.create_runtime().as_deref())?,
            create_container: list("createContainer", hooks.create_container().as_deref())?,
            start_container: list("startContainer", hooks.start_container().as_deref())?,
            poststart: list("poststart", hooks.poststart().as_deref())?,
            poststop: list("poststop", hooks.poststop().as_deref())?,
        })
    }
}

fn list(name: &str, hooks: Option<&[SpecHook]>) -> Result<Vec<Hook>, FieldError> {
    let hooks = hooks.unwrap_or_default();
    hooks
        .iter()
        .enumerate()
        .map(|(index, hook)| resolve(&format!("hooks.{name}[{index}]"), hook))
        .collect()
}

fn resolve(field: &str, hook: &SpecHook) -> Result<Hook, FieldError> {
    if !hook.path().is_absolute() {
        let problem = format!("{:?} is not an absolute path", hook.path());
        return Err(FieldError::new(format!("{field}.path"), problem));
    }
    let args = hook.args().clone().unwrap_or_default();
    let env = hook.env().clone().unwrap_or_default();
    for text in args.iter().chain(&env) {
        no_nul(|| field.to_owned(), text)?;
    }
    no_nul(|| format!("{field}.path"), &hook.path().to_string_lossy())?;
    if let Some(index) = env.iter().position(|pair| !pair.contains('=')) {
        let problem = format!("{:?} is not NAME=value", env[index]);
        return Err(FieldError::new(format!("{field}.env[{index}]"), problem));
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => {
                let problem = format!("{seconds} is not a positive number of seconds");
                return Err(FieldError::new(format!("{field}.timeout"), problem));
            }
        },
    };
    Ok(Hook {
        path: hook.path().clone(),
        args,
        env,
        timeout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_hooks_are_named() {
        let cases = [
            (
                r#"{"createRuntime":[{"path":"x"}]}"#,
                "hooks.createRuntime[0].path: ",
            ),
            (
                r#"{"poststop":[{"path":"/x"},{"path":"/y","timeout":0}]}"#,
                "hooks.poststop[1].timeout: ",
            ),
            (
                r#"{"prestart":[{"path":"/x","env":["A=1","B"]}]}"#,
                "hooks.prestart[0].env[1]: ",
            ),
        ];
        for (text, expected) in cases {
            let hooks: SpecHooks = serde_json::from_str(text).expect(text);
            let error = Hooks::from_spec(Some(&hooks)).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
