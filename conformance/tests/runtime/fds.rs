//! fds
