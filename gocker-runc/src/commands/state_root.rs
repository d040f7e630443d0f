//! Where containers' states are kept: `--root`, or a directory that is lost at a reboot.

use std::env;
use std::fs::{DirBuilder, Permissions, set_permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;

use anyhow::Context;

use crate::cli::{Cli, Command};
use crate::sys::caller::{in_user_namespace, is_ordinary_user};

/// The directory, which need not be there yet.
///
/// # Errors
/// No such path can be, or the user's own runtime directory cannot be written.
pub(super) fn state_root(cli: &Cli) -> anyhow::Result<PathBuf> {
    if let Some(root) = &cli.root {
        return std::path::absolute(root).with_context(|| format!("--root {root:?}"));
    }
    let Some(runtime_dir) = env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) else {
        return Ok("/run/gocker-runc".into());
    };
    if !is_users_own() {
        return Ok("/run/gocker-runc".into());
    }
    let root = PathBuf::from(runtime_dir).join("gocker-runc");
    if matches!(cli.command, Command::Create(_) | Command::Run(_)) {
        let named = || format!("make {root:?} in $XDG_RUNTIME_DIR");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&root).with_context(named)?;
        // XDG Base Directory Specification: what is not to be cleaned up by age has this bit.
        set_permissions(&root, Permissions::from_mode(0o1700)).with_context(named)?;
    }
    Ok(root)
}

/// Whether `XDG_RUNTIME_DIR` is meant for this process: with root's rights only where they are
/// those in a user namespace, and the environment is not root's.
fn is_users_own() -> bool {
    is_ordinary_user()
        || (in_user_namespace() && env::var_os("USER").is_none_or(|user| user != "root"))
}
