//! What exists between two invocations: the container's directory and what it says.

pub(crate) mod id;
pub(crate) mod state;
pub(crate) mod state_dir;
pub(crate) mod status;
