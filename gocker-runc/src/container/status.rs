//! Where a container stands in its life.
//!
//! ```text
//! creating -> created -> running <-> paused     (a created one can be paused, too)
//!                 \         |
//!                  `----> stopped
//! ```
//!
//! Spec: runtime.md#state

use std::fmt;

use serde::Serialize;

/// One of the specification's statuses, and runc's `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// `create` is at work, or died in it.
    Creating,
    /// Everything is there; the process has not been executed.
    Created,
    /// The process runs.
    Running,
    /// The process is frozen.
    Paused,
    /// The process has ended.
    Stopped,
}

impl Status {
    /// The word that `state` and `list` use.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
