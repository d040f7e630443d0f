//! Who answers for SCMP_ACT_NOTIFY: an agent that listens on an AF_UNIX stream socket and gets,
//! in one connection, the state of the container process and the filter's listener.
//!
//! ```text
//! {"ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": 4422, "metadata": "...", "state": {...}}
//!                                + the descriptor, by SCM_RIGHTS
//! ```
//!
//! Spec: config-linux.md#containerprocessstate

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use bundles::config::linux::seccomp::Listener;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::Pid;
use serde::Serialize;

use crate::sys::pidfd::pidfd_getfd;
use crate::sys::unix_socket::connect_stream;
use crate::sys::{CallError, Called};

/// The agent was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens there.
    #[error("linux.seccomp.listenerPath: {path:?}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The call.
        source: CallError,
    },
    /// It did not take what was sent.
    #[error("linux.seccomp.listenerPath: {path:?}: send the listener")]
    Send {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The listener cannot be had of the container process.
    #[error("take the seccomp listener of process {pid}")]
    Take {
        /// The process.
        pid: Pid,
        /// The call.
        source: CallError,
    },
}

/// Spec: config-linux.md#containerprocessstate
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a, S> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a S,
}

/// Takes descriptor `number` of the process that waits for it, and gives it to the agent, with
/// the container's `state`.
///
/// # Errors
/// [`Error`].
pub(crate) fn hand_over(
    listener: &Listener,
    (pid, pidfd): (Pid, &OwnedFd),
    number: RawFd,
    (oci_version, state): (&str, &impl Serialize),
) -> Result<(), Error> {
    let fd = pidfd_getfd(pidfd.as_fd(), number)
        .called(|| format!("pidfd_getfd({number})"))
        .map_err(|source| Error::Take { pid, source })?;
    let path = || listener.path.clone();
    let document = ContainerProcessState {
        oci_version,
        fds: ["seccompFd"],
        pid: pid.as_raw(),
        metadata: &listener.metadata,
        state,
    };
    let sending = |source| Error::Send {
        path: path(),
        source,
    };
    let text = serde_json::to_vec(&document).map_err(|error| sending(error.into()))?;
    let socket = connect_stream(&listener.path).called(|| "connect".into());
    let socket = socket.map_err(|source| Error::Connect {
        path: path(),
        source,
    })?;
    send(socket, &text, &fd).map_err(sending)
}

/// Sends all of `text`, and the descriptor with its first bytes.
fn send(mut socket: UnixStream, text: &[u8], fd: &OwnedFd) -> io::Result<()> {
    let fds = [fd.as_raw_fd()];
    let sent = loop {
        let (data, control) = ([IoSlice::new(text)], [ControlMessage::ScmRights(&fds)]);
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(socket.as_raw_fd(), &data, &control, flags, None) {
            Err(Errno::EINTR) => {}
            done => break done?,
        }
    };
    socket.write_all(text.get(sent..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_text_longer_than_a_sockets_buffer_arrives_whole() {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        let text = vec![b'x'; 1 << 20];
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").expect("opened"));
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).expect("read");
            received
        });
        send(ours, &text, &fd).expect("sent");
        assert!(reader.join().expect("joined") == text);
    }
}
