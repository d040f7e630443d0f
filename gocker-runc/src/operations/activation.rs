//! What a service manager gives to the runtime for the container: sockets that it listens on,
//! and one to say on that it is ready.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use anyhow::Context;
use bundles::FieldError;
use bundles::config::Config;
use bundles::config::linux::namespaces::Kind;

use crate::init::plan::InitPlan;
use crate::logging;
use crate::process::notify::{self, Notify};
use crate::rootfs::mount::{MountPlan, What};
use crate::rootfs::mount_options::MountOptions;

/// The service manager's part of the environment.
#[derive(Debug)]
pub(crate) struct Activation {
    /// `NOTIFY_SOCKET`.
    pub(crate) notify_socket: Option<OsString>,
    /// What the container's process is told of sockets.
    pub(crate) variables: Vec<String>,
}

impl Activation {
    /// Adds the variables. Returns whether the socket's directory has to be made and mounted.
    pub(super) fn add_to(&self, config: &mut Config) -> bool {
        let mut variables = self.variables.clone();
        let mut notifies = self.notify_socket.is_some() && config.process.is_some();
        if notifies && !config.linux.namespaces.has(Kind::Mount) {
            logging::warn("NOTIFY_SOCKET: the container has no mount namespace to see it in");
            notifies = false;
        }
        if notifies {
            variables.push(notify::variable());
        }
        if let Some(process) = &mut config.process {
            for variable in variables {
                let name = variable.split_inclusive('=').next().unwrap_or_default();
                process.env.retain(|other| !other.starts_with(name));
                process.env.push(variable);
            }
        }
        notifies
    }
}

/// Adds the mount of the socket's directory in `state_dir`, which is not there yet.
///
/// # Errors
/// None but of mount options, which are known.
pub(super) fn add_mount(plan: &mut InitPlan, state_dir: &Path) -> Result<(), FieldError> {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from);
    let mounts = &mut plan.rootfs.mounts;
    mounts.push(MountPlan {
        destination: notify::IN_CONTAINER.into(),
        what: What::Bind {
            source: notify::directory(state_dir),
            tree: None,
        },
        options: MountOptions::parse(mounts.len(), &options)?,
        id_map: None,
    });
    Ok(())
}

/// Begins to listen for the container whose directory is `state_dir`; None where nobody wants
/// to know, or the container was made without the socket's directory.
///
/// # Errors
/// The socket cannot be made.
pub(super) fn listen(
    notify_socket: Option<&OsString>,
    state_dir: &Path,
) -> anyhow::Result<Option<Notify>> {
    let Some(host) = notify_socket.filter(|_| notify::directory(state_dir).is_dir()) else {
        return Ok(None);
    };
    let notify = Notify::listen(state_dir, host);
    notify
        .with_context(|| format!("NOTIFY_SOCKET={host:?}: listen in the container's stead"))
        .map(Some)
}

/// Tells what kept the service manager from hearing; the container runs on.
pub(super) fn warn_unheard(done: io::Result<()>) {
    if let Err(error) = done {
        let text = format!("NOTIFY_SOCKET: {}", crate::errors::chain(&error));
        logging::warn(&text);
    }
}
