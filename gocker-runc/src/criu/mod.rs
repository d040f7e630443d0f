//! CRIU's service, which saves processes and brings them back.
//!
//! ```text
//! runtime                                        criu swrk FD
//! request ------------------------------------->
//!         <------------------------------------- notification, perhaps with a descriptor
//! whether that went well ---------------------->
//!                     ...
//!         <------------------------------------- answer
//! ```
//!
//! One process serves one request, and its messages are Protocol Buffers over a socketpair.

pub(crate) mod log;
pub(crate) mod rpc;

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::Pid;
use prost::Message;

use crate::sys::process::{start_in, start_with_default_signals};
use crate::sys::seqpacket;
use rpc::{Features, Kind, Request, Response, VersionInfo};

/// A running `criu`, to which one request is made. Dropped before its end, it is killed.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    socket: Option<OwnedFd>,
    is_over: bool,
}

/// What `criu` starts with, to restore.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Open files of the cgroups that it is to enter, `tasks` or `cgroup.procs`.
    pub(crate) cgroups: Vec<OwnedFd>,
    /// The root of the container, which becomes a mount in a mount namespace of CRIU's own; None
    /// leaves it in the runtime's.
    pub(crate) root: Option<CString>,
}

/// What comes back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A turning point; [`Service::acknowledge`] lets it go on.
    Notified {
        /// The turning point's name.
        script: String,
        /// The first process of the container, where there is one.
        pid: Pid,
        /// What came with it.
        fd: Option<OwnedFd>,
    },
    /// The end.
    Done(Response),
}

/// CRIU's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: i32,
    minor: i32,
}

/// The first version that has all that is always needed: external namespaces, the freezer of
/// cgroup v2, the notice that a page server is ready.
pub(crate) const OLDEST: Version = Version::new(3, 15);

/// The first version that gives processes other security labels.
pub(crate) const LABELS: Version = Version::new(3, 16);

/// What can go wrong with the service itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such program.
    #[error("criu is not installed: there is none in $PATH")]
    NotInstalled,
    /// It cannot be started.
    #[error("start criu")]
    Start(#[source] io::Error),
    /// It cannot be talked to.
    #[error("talk to criu")]
    Talk(#[source] Errno),
    /// It said something that is none of its messages.
    #[error("criu's answer cannot be understood")]
    Answer(#[source] prost::DecodeError),
    /// It has gone.
    #[error("criu ended without an answer: {0}")]
    Ended(ExitStatus),
    /// It cannot say what it can do.
    #[error("criu does not say what it can do{0}")]
    Silent(String),
    /// It is older than what is asked for.
    #[error("criu {found} is installed, and {needed} or later is needed")]
    Old {
        /// The version that is there.
        found: Version,
        /// The version that has it.
        needed: Version,
    },
}

impl Service {
    /// Starts `criu`. Without `surroundings` it has no standard descriptors, with them the
    /// runtime's; `inherited` stay open in it under their numbers.
    ///
    /// # Errors
    /// It is not there, or cannot enter its surroundings.
    pub(crate) fn start(
        surroundings: Option<Surroundings>,
        inherited: &[OwnedFd],
    ) -> Result<Self, Error> {
        let (ours, theirs) = seqpacket::pair().map_err(Error::Talk)?;
        for fd in inherited.iter().chain([&theirs]) {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(Error::Talk)?;
        }
        let mut command = Command::new("criu");
        command.args(["swrk", &theirs.as_raw_fd().to_string()]);
        if surroundings.is_none() {
            for set in [Command::stdin, Command::stdout, Command::stderr] {
                set(&mut command, Stdio::null());
            }
        }
        start_with_default_signals(&mut command);
        if let Some(Surroundings { cgroups, root }) = surroundings {
            start_in(&mut command, cgroups, root);
        }
        match command.spawn() {
            Ok(child) => Ok(Self {
                child,
                socket: Some(ours),
                is_over: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotInstalled),
            Err(error) => Err(Error::Start(error)),
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default())
    }

    /// Makes the request.
    ///
    /// # Errors
    /// It does not listen.
    pub(crate) fn ask(&self, request: &Request) -> Result<(), Error> {
        let bytes = request.encode_to_vec();
        match &self.socket {
            // A longer message would be cut.
            Some(_) if bytes.len() > seqpacket::MAX_MESSAGE => Err(Error::Talk(Errno::EMSGSIZE)),
            Some(socket) => seqpacket::send(socket.as_fd(), &bytes, None).map_err(Error::Talk),
            None => Err(Error::Talk(Errno::ENOTCONN)),
        }
    }

    /// Waits for what it says next.
    ///
    /// # Errors
    /// It has ended, or cannot be understood.
    pub(crate) fn hear(&mut self) -> Result<Answer, Error> {
        let socket = self.socket.as_ref().ok_or(Error::Talk(Errno::ENOTCONN))?;
        let (bytes, fd) = seqpacket::receive(socket.as_fd()).map_err(Error::Talk)?;
        if bytes.is_empty() {
            return Err(Error::Ended(self.end()?));
        }
        let response = Response::decode(&bytes[..]).map_err(Error::Answer)?;
        if response.kind() != Kind::Notify || !response.success {
            return Ok(Answer::Done(response));
        }
        let notification = response.notify.unwrap_or_default();
        Ok(Answer::Notified {
            script: notification.script().to_owned(),
            pid: Pid::from_raw(notification.pid()),
            fd,
        })
    }

    /// Tells whether what a turning point is for went well.
    ///
    /// # Errors
    /// It does not listen.
    pub(crate) fn acknowledge(&self, success: bool) -> Result<(), Error> {
        self.ask(&Request {
            kind: Kind::Notify.into(),
            notify_success: Some(success),
            ..Request::default()
        })
    }

    /// Ends the conversation and waits for its end.
    ///
    /// # Errors
    /// waitpid(2)'s.
    pub(crate) fn end(&mut self) -> Result<ExitStatus, Error> {
        self.socket = None;
        let status = self.child.wait().map_err(Error::Start)?;
        self.is_over = true;
        Ok(status)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.is_over {
            // An error led here, and is the one to tell.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

impl Version {
    const fn new(major: i32, minor: i32) -> Self {
        Self { major, minor }
    }

    /// Checks that it is `needed` or later.
    ///
    /// # Errors
    /// [`Error::Old`].
    pub(crate) fn check(self, needed: Self) -> Result<(), Error> {
        if self >= needed {
            Ok(())
        } else {
            Err(Error::Old {
                found: self,
                needed,
            })
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Asks which version is installed.
///
/// # Errors
/// None is.
pub(crate) fn version() -> Result<Version, Error> {
    let answer = ask_once(&Request {
        kind: Kind::Version.into(),
        ..Request::default()
    })?;
    match answer.version {
        Some(VersionInfo { major, minor }) if answer.success => Ok(Version { major, minor }),
        _ => Err(Error::Silent(reason(&answer))),
    }
}

/// Asks which of the features that are named in `wanted` this machine has.
///
/// # Errors
/// As [`version`]'s.
pub(crate) fn features(wanted: Features) -> Result<Features, Error> {
    let answer = ask_once(&Request {
        kind: Kind::FeatureCheck.into(),
        features: Some(wanted),
        ..Request::default()
    })?;
    match answer.features {
        Some(features) if answer.success => Ok(features),
        _ => Err(Error::Silent(reason(&answer))),
    }
}

/// What an answer says of its refusal, after `: `.
pub(crate) fn reason(answer: &Response) -> String {
    let errno = answer.cr_errno.filter(|errno| *errno != 0);
    match (&answer.cr_errmsg, errno) {
        (Some(text), _) => format!(": {}", text.trim().replace('\n', "; ")),
        (None, Some(errno)) => {
            let text = crate::sys::errno::describe(Errno::from_raw(errno));
            format!(": {text}")
        }
        (None, None) => String::new(),
    }
}

fn ask_once(request: &Request) -> Result<Response, Error> {
    let mut service = Service::start(None, &[])?;
    service.ask(request)?;
    let answer = service.hear()?;
    service.end()?;
    match answer {
        Answer::Done(response) => Ok(response),
        Answer::Notified { .. } => Err(Error::Silent(String::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let found = Version::new(3, 17);
        assert!(found.check(OLDEST).is_ok());
        assert!(Version::new(4, 0).check(OLDEST).is_ok());
        let error = Version::new(3, 9).check(OLDEST).expect_err("is old");
        assert_eq!(
            error.to_string(),
            "criu 3.9 is installed, and 3.15 or later is needed"
        );
    }
}
