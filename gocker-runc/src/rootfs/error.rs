//! What can go wrong in a root filesystem.

use std::path::PathBuf;

use nix::errno::Errno;

use crate::sys::CallError;

/// A step, and the call that failed in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A mount of the configuration.
    #[error("mount {source_name:?} at {destination:?}")]
    Mount {
        /// The source, or the type where there is none.
        source_name: String,
        /// The destination inside the container.
        destination: PathBuf,
        /// The call.
        source: CallError,
    },
    /// A destination that nothing may be mounted on.
    #[error("mount at {destination:?}: {problem}")]
    Destination {
        /// The destination inside the container.
        destination: PathBuf,
        /// Why.
        problem: &'static str,
    },
    /// A node of the configuration.
    #[error("config.json: linux.devices[{index}]: make {path:?}")]
    Device {
        /// Its place in the configuration.
        index: usize,
        /// Where, inside the container.
        path: PathBuf,
        /// The call.
        source: CallError,
    },
    /// A step that concerns one path inside the container.
    #[error("{step} {path:?}")]
    Path {
        /// What was tried, as in `mask`.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The call.
        source: CallError,
    },
    /// A step that concerns the root as a whole.
    #[error("{step}")]
    Root {
        /// What was tried.
        step: &'static str,
        /// The call.
        source: CallError,
    },
}

impl Error {
    /// The kernel's answer, where it was asked.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Mount { source, .. }
            | Self::Device { source, .. }
            | Self::Path { source, .. }
            | Self::Root { source, .. } => Some(source.errno),
            Self::Destination { .. } => None,
        }
    }
}

/// Adds the step to a call's error.
pub(crate) fn at_path(
    step: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(CallError) -> Error {
    let path = path.into();
    move |source| Error::Path { step, path, source }
}

/// Adds the step to a call's error.
pub(crate) fn in_root(step: &'static str) -> impl FnOnce(CallError) -> Error {
    move |source| Error::Root { step, source }
}
