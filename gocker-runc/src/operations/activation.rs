//! What a service manager gives to the runtime for the container: sockets that it listens on,
//! and one to say on that it is ready.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use anyhow::Context;
use bundles::config::Config;
use bundles::config::linux::namespaces::Kind;
use bundles::config::mounts::Mount;

use crate::logging;
use crate::process::notify::{self, Notify};

/// The service manager's part of the environment.
#[derive(Debug)]
pub(crate) struct Activation {
    /// `NOTIFY_SOCKET`.
    pub(crate) notify_socket: Option<OsString>,
    /// What the container's process is told of sockets.
    pub(crate) variables: Vec<String>,
}

impl Activation {
    /// Adds the variables, and the mount of the socket's directory in `state_dir`. Returns
    /// whether that directory has to be made.
    pub(super) fn add_to(&self, config: &mut Config, state_dir: &Path) -> bool {
        let mut variables = self.variables.clone();
        let mut notifies = self.notify_socket.is_some() && config.process.is_some();
        if notifies && !config.linux.namespaces.has(Kind::Mount) {
            logging::warn("NOTIFY_SOCKET: the container has no mount namespace to see it in");
            notifies = false;
        }
        if notifies {
            variables.push(notify::variable());
            config.mounts.push(Mount {
                destination: notify::IN_CONTAINER.into(),
                kind: "bind".into(),
                source: Some(notify::directory(state_dir)),
                options: ["bind", "nosuid", "noexec", "nodev", "ro"]
                    .map(String::from)
                    .to_vec(),
                uid_mappings: Vec::new(),
                gid_mappings: Vec::new(),
            });
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
