//! Two processes talking: the runtime and init.

pub(crate) mod handshake;
pub(crate) mod start_socket;
pub(crate) mod stdio;
