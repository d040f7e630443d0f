//! What the runtime and init say to each other while a container is made. The runtime and a
//! process of `exec` speak the same way, of which they need `Console`, `Prepared` and `Start`
//! (the latter two only where the runtime has something to set), and `Failed`.
//!
//! ```text
//! runtime                           init
//!   | <------------ Cloned + pidfd --|  (only from a process in between)
//!   |--- InCgroup ------------------>|  (only where systemd had to move it)
//!   |--- IdsMapped ----------------->|  (only with a new user namespace)
//!   | <---------------- RootReady ---|  (only with runtime hooks)
//!   |--- HooksDone ----------------->|
//!   | <------ Console + descriptor --|  (only with a terminal)
//!   | <- SeccompListener, a number --|  (only with SCMP_ACT_NOTIFY)
//!   |--- ListenerTaken ------------->|
//!   | <----------------- Prepared ---|
//!   |--- Recorded ------------------>|  (`create`, and only of a container without a cgroup)
//!   |--- Start --------------------->|  (`run`; after `create` the start socket serves)
//!   | <--------------- Failed(why) --|  (at any time, and then init is gone)
//! ```
//!
//! End of file instead of a message means: the other side is gone; after Start it means that
//! execve(2) has closed init's end.
//!
//! Init may be under its seccomp filter from SeccompListener on. So it speaks by write(2) and
//! hears by read(2), which every program needs, except where a descriptor goes along.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::sys::seqpacket;

/// From init to the runtime.
#[derive(Debug)]
pub(crate) enum FromInit {
    /// The process in between has made init, with this id in its own PID namespace.
    Cloned {
        /// The process id, as the runtime sees it.
        pid: i32,
        /// Its pidfd.
        pidfd: OwnedFd,
    },
    /// The mounts are made; the runtime's hooks may run.
    RootReady,
    /// The terminal's master side.
    Console {
        /// Its path inside the container.
        name: String,
        /// The master.
        master: OwnedFd,
    },
    /// The filter is in force, and this descriptor of init's is its listener.
    SeccompListener(RawFd),
    /// All is done but execve(2).
    Prepared,
    /// Init gives up, for this reason.
    Failed(String),
}

/// From the runtime to init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToInit {
    /// It was moved into its cgroup.
    InCgroup = b'g' as isize,
    /// The user namespace has its mappings.
    IdsMapped = b'm' as isize,
    /// The runtime's hooks have run.
    HooksDone = b'h' as isize,
    /// Who looks for the container finds its process.
    Recorded = b'w' as isize,
    /// The runtime has its own copy of the listener, and has given it away.
    ListenerTaken = b'l' as isize,
    /// Execute the process.
    Start = b's' as isize,
}

/// The conversation broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The socket's answer.
    #[error("talk to the other process")]
    Socket(#[source] Errno),
    /// The other side ended.
    #[error("the other process ended")]
    Gone,
    /// A message that does not belong here.
    #[error("unexpected message {0:?}")]
    Unexpected(String),
}

/// Init's end.
pub(crate) struct InitEnd(pub(crate) OwnedFd);

/// The runtime's end.
pub(crate) struct RuntimeEnd(pub(crate) OwnedFd);

impl InitEnd {
    /// Tells the runtime something.
    ///
    /// # Errors
    /// [`Error::Socket`], when the runtime is gone.
    pub(crate) fn send(&self, message: &FromInit) -> Result<(), Error> {
        let (bytes, fd) = match message {
            FromInit::Cloned { pid, pidfd } => {
                ([&b"c"[..], &pid.to_ne_bytes()].concat(), Some(pidfd))
            }
            FromInit::RootReady => (b"r".to_vec(), None),
            FromInit::Console { name, master } => ([b"t", name.as_bytes()].concat(), Some(master)),
            FromInit::SeccompListener(number) => {
                ([&b"l"[..], &number.to_ne_bytes()].concat(), None)
            }
            FromInit::Prepared => (b"p".to_vec(), None),
            FromInit::Failed(why) => ([b"f", why.as_bytes()].concat(), None),
        };
        let sent = match fd {
            Some(fd) => seqpacket::send(self.0.as_fd(), &bytes, Some(fd.as_fd())),
            None => seqpacket::write(self.0.as_fd(), &bytes),
        };
        sent.map_err(Error::Socket)
    }

    /// Waits for `expected`.
    ///
    /// # Errors
    /// [`Error::Gone`] when the runtime ended, [`Error::Unexpected`] for another message.
    pub(crate) fn expect(&self, expected: ToInit) -> Result<(), Error> {
        match seqpacket::read(self.0.as_fd())
            .map_err(Error::Socket)?
            .as_slice()
        {
            [] => Err(Error::Gone),
            [tag] if isize::from(*tag) == expected as isize => Ok(()),
            other => Err(Error::Unexpected(
                String::from_utf8_lossy(other).into_owned(),
            )),
        }
    }
}

impl RuntimeEnd {
    /// Tells init something.
    ///
    /// # Errors
    /// [`Error::Gone`] when init ended.
    pub(crate) fn send(&self, message: ToInit) -> Result<(), Error> {
        let tag = u8::try_from(message as isize).unwrap_or_default();
        seqpacket::send(self.0.as_fd(), &[tag], None).map_err(|errno| match errno {
            Errno::EPIPE | Errno::ECONNRESET => Error::Gone,
            errno => Error::Socket(errno),
        })
    }

    /// Waits for what init says next; None when it closed its end.
    ///
    /// # Errors
    /// [`Error::Socket`] and [`Error::Unexpected`].
    pub(crate) fn receive(&self) -> Result<Option<FromInit>, Error> {
        let (bytes, fd) = match seqpacket::receive(self.0.as_fd()) {
            Err(Errno::ECONNRESET) => return Ok(None),
            received => received.map_err(Error::Socket)?,
        };
        let unexpected = || Error::Unexpected(String::from_utf8_lossy(&bytes).into_owned());
        let Some((tag, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let text = || String::from_utf8_lossy(rest).into_owned();
        Ok(Some(match tag {
            b'c' => FromInit::Cloned {
                pid: i32::from_ne_bytes(rest.try_into().map_err(|_| unexpected())?),
                pidfd: fd.ok_or_else(unexpected)?,
            },
            b'r' => FromInit::RootReady,
            b't' => FromInit::Console {
                name: text(),
                master: fd.ok_or_else(unexpected)?,
            },
            b'l' => FromInit::SeccompListener(RawFd::from_ne_bytes(
                rest.try_into().map_err(|_| unexpected())?,
            )),
            b'p' => FromInit::Prepared,
            b'f' => FromInit::Failed(text()),
            _ => return Err(unexpected()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (a, b) = seqpacket::pair().expect("socketpair");
        let (init, runtime) = (InitEnd(a), RuntimeEnd(b));
        init.send(&FromInit::Failed("mount \"/x\": no".into()))
            .expect("sent");
        let received = runtime.receive().expect("received");
        assert!(matches!(received, Some(FromInit::Failed(why)) if why == "mount \"/x\": no"));
        let master = std::fs::File::open("/dev/null").expect("opened").into();
        init.send(&FromInit::Console {
            name: "/dev/pts/0".into(),
            master,
        })
        .expect("sent");
        let received = runtime.receive().expect("received");
        assert!(matches!(received, Some(FromInit::Console { name, .. }) if name == "/dev/pts/0"));
        init.send(&FromInit::SeccompListener(7)).expect("sent");
        let received = runtime.receive().expect("received");
        assert!(matches!(received, Some(FromInit::SeccompListener(7))));
        runtime.send(ToInit::Start).expect("sent");
        assert!(matches!(
            init.expect(ToInit::HooksDone),
            Err(Error::Unexpected(_))
        ));
        drop(init);
        assert!(runtime.receive().expect("end of file").is_none());
    }
}
