//! `--rootless`: what a container does without, where its caller has not the rights of the
//! machine's root.

use crate::sys::caller::Caller;

/// Whether the container may do without a cgroup and device rules where the kernel does not let
/// the caller make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rootless {
    /// As if the caller were not root.
    Yes,
    /// As if the caller were root.
    No,
    /// As the caller is.
    Auto,
}

impl Rootless {
    /// The answer for this caller.
    pub(crate) fn holds(self) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Auto => Caller::find_out() != Caller::Root,
        }
    }
}
