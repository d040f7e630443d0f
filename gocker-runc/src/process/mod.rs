//! Two processes talking: the runtime and init.

pub(crate) mod attend;
pub(crate) mod handshake;
pub(crate) mod notify;
mod relay;
pub(crate) mod seccomp_agent;
pub(crate) mod start_socket;
pub(crate) mod stdio;
