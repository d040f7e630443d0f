//! A conversation with a systemd: connect, call, wait for a signal, each with a limit of time.
//!
//! ```text
//! connect ── \0AUTH EXTERNAL DATA BEGIN ── OK ──┬─ (private socket: systemd itself is the peer)
//!                                               └─ Hello, AddMatch  (a bus is between)
//! call ── reply or error          signals that come meanwhile are kept
//! ```
//!
//! It is our own because the libraries for D-Bus need threads and an event loop, or C; and none
//! speaks to the private socket, where nobody is between, or leaves it to the kernel to say who
//! we are, which alone works from a user namespace.
//!
//! Spec: <https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol>

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::address::connect_to;
use super::error::Error;
use super::message::{self, FIXED, Kind, Message, Target};
use super::value::Value;

/// How long one step may take. A loaded machine's systemd may need some seconds.
const LIMIT: Duration = Duration::from_secs(25);

/// Where a systemd can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The socket; an abstract one begins with a NUL.
    pub(super) socket: PathBuf,
    /// Whether a bus is between.
    pub(super) is_bus: bool,
}

/// How long a job's end is waited for before it is asked for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a job's end was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// systemd said that it was done.
    Done,
    /// It is over, and nobody heard how it ended.
    Unheard,
}

/// An open conversation.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    limit: Duration,
    signals: VecDeque<Message>,
}

const BUS: Target<'_> = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};

impl Connection {
    /// Connects to the first of `places` that answers.
    ///
    /// # Errors
    /// [`Error::Absent`] when none does; a time-out.
    pub(super) fn open(places: &[Place], manager: &str) -> Result<Self, Error> {
        let mut tried = Vec::new();
        for place in places {
            match connect_to(&place.socket, LIMIT) {
                Ok(stream) => return Self::over(stream, place.is_bus, LIMIT),
                Err(error) => tried.push((place.socket.clone(), answer(&error))),
            }
        }
        Err(Error::Absent {
            manager: manager.to_owned(),
            places: tried,
        })
    }

    fn over(stream: UnixStream, is_bus: bool, limit: Duration) -> Result<Self, Error> {
        let mut connection = Self {
            stream,
            serial: 0,
            limit,
            signals: VecDeque::new(),
        };
        let step = "connect to systemd";
        let deadline = Instant::now() + limit;
        let authenticated = connection.authenticate(deadline);
        authenticated.map_err(|error| connection.failed(step, error))?;
        if is_bus {
            connection.call(
                step,
                &Target {
                    member: "Hello",
                    ..BUS
                },
                &[],
            )?;
            let rule = "type='signal',sender='org.freedesktop.systemd1',\
                        interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            let rule = Value::Text(rule.into());
            connection.call(
                step,
                &Target {
                    member: "AddMatch",
                    ..BUS
                },
                &[rule],
            )?;
        }
        Ok(connection)
    }

    /// Names no user: the kernel tells the other side who we are. All is said at once, for
    /// systemd does not look at a call that it has read together with BEGIN until another
    /// comes.
    fn authenticate(&mut self, deadline: Instant) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.limit))?;
        self.stream
            .write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        // DATA and OK; an older systemd says OK twice.
        for expected in [&["DATA", "OK "][..], &["OK "]] {
            let said = self.line(deadline)?;
            if !expected.iter().any(|word| said.starts_with(word)) {
                let text = format!("refused to talk to us: {said:?}");
                return Err(io::Error::new(ErrorKind::PermissionDenied, text));
            }
        }
        Ok(())
    }

    /// A line of the conversation before BEGIN; byte by byte, for what follows is no line.
    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte, deadline)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(io::Error::new(ErrorKind::InvalidData, "is no D-Bus server"));
            }
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Calls, and waits for the reply. `step` is what an error is told with.
    ///
    /// # Errors
    /// [`Error::Refused`] with the other side's words; a time-out; a broken wire.
    pub(super) fn call(
        &mut self,
        step: &str,
        target: &Target<'_>,
        arguments: &[Value],
    ) -> Result<Message, Error> {
        self.serial += 1;
        let serial = self.serial;
        let deadline = Instant::now() + self.limit;
        let sent = self
            .stream
            .write_all(&message::call(serial, target, arguments));
        sent.map_err(|error| self.failed(step, error))?;
        loop {
            let message = self.receive(step, deadline)?;
            match message.kind {
                Kind::Reply if message.answers == Some(serial) => return Ok(message),
                Kind::Error if message.answers == Some(serial) => {
                    let text = message.texts().and_then(|texts| texts.into_iter().next());
                    return Err(Error::Refused {
                        step: step.to_owned(),
                        name: message.error,
                        text: text.unwrap_or_else(|| "no reason given".into()),
                    });
                }
                Kind::Signal => self.signals.push_back(message),
                _ => (),
            }
        }
    }

    /// Waits until systemd says how the job `job` ended, or until it is seen to be gone: what
    /// systemd says while it reads its units again is lost.
    ///
    /// # Errors
    /// A job that did not end as `done`; a time-out; a broken wire.
    pub(super) fn wait_for_job(&mut self, step: &str, job: &str) -> Result<Ended, Error> {
        let deadline = Instant::now() + self.limit;
        loop {
            while let Some(message) = self.signals.pop_front() {
                if let Some(result) = result_of(&message, job) {
                    return result.map(|()| Ended::Done).map_err(|result| Error::Job {
                        step: step.to_owned(),
                        result,
                    });
                }
            }
            if self.has_news(deadline) {
                let message = self.receive(step, deadline)?;
                self.signals.push_back(message);
            } else if self.is_gone(step, job)? {
                return Ok(Ended::Unheard);
            }
        }
    }

    /// Whether something can be read within a second or so.
    fn has_news(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(wait) = PollTimeout::try_from(left.min(LOOK_AGAIN)) else {
            return true;
        };
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        // With no time left, reading tells the time-out.
        left.is_zero() || poll(&mut fds, wait) != Ok(0)
    }

    /// Whether systemd knows the job no more.
    fn is_gone(&mut self, step: &str, job: &str) -> Result<bool, Error> {
        let target = Target {
            destination: "org.freedesktop.systemd1",
            path: job,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
        };
        let names = ["org.freedesktop.systemd1.Job", "State"];
        let names = names.map(|name| Value::Text(name.into()));
        match self.call(step, &target, &names) {
            Ok(_) => Ok(false),
            Err(Error::Refused { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, step: &str, deadline: Instant) -> Result<Message, Error> {
        let received = self.receive_bytes(deadline);
        let bytes = received.map_err(|error| self.failed(step, error))?;
        Message::parse(&bytes).ok_or_else(|| self.failed(step, no_message()))
    }

    fn receive_bytes(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; FIXED];
        self.fill(&mut bytes, deadline)?;
        let rest = message::rest_of(&bytes).ok_or_else(no_message)?;
        bytes.resize(FIXED + rest, 0);
        self.fill(&mut bytes[FIXED..], deadline)?;
        Ok(bytes)
    }

    /// Reads as many bytes as `bytes` has room for.
    fn fill(&mut self, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(bytes) {
                Ok(0) => {
                    let text = "systemd has closed the connection";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
                }
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn failed(&self, step: &str, source: io::Error) -> Error {
        let step = step.to_owned();
        match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::TimedOut {
                step,
                limit: self.limit,
            },
            _ => Error::Wire { step, source },
        }
    }
}

/// How `job` ended, where the message tells that; systemd's word for anything but success.
fn result_of(message: &Message, job: &str) -> Option<Result<(), String>> {
    if message.kind != Kind::Signal || message.member != "JobRemoved" {
        return None;
    }
    // Number, path, unit, result: uoss.
    match message.texts()?.as_slice() {
        [path, _, result] if path == job => Some(match result.as_str() {
            // What was so already is skipped.
            "done" | "skipped" => Ok(()),
            _ => Err(result.clone()),
        }),
        _ => None,
    }
}

fn no_message() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "what came is no message")
}

fn answer(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |errno| crate::sys::errno::describe(nix::errno::Errno::from_raw(errno)),
    )
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::message::tests::incoming;
    use super::*;

    const TARGET: Target<'_> = Target {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member: "StopUnit",
    };

    const GREETING: &str = "DATA\r\nOK 1234\r\n";

    /// Answers the greeting, and then each call with the next of `answers`.
    fn serve(stream: UnixStream, greeting: &'static str, answers: Vec<Vec<u8>>) {
        thread::spawn(move || {
            let mut reader = io::BufReader::new(stream.try_clone().expect("is doubled"));
            let mut said = [0; 29];
            reader.read_exact(&mut said).expect("greets");
            assert_eq!(&said, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
            (&stream).write_all(greeting.as_bytes()).expect("is sent");
            for answer in answers {
                let mut fixed = [0; FIXED];
                reader.read_exact(&mut fixed).expect("is a call");
                let rest = message::rest_of(&fixed).expect("is a call");
                let mut body = vec![0; rest];
                reader.read_exact(&mut body).expect("is a call");
                (&stream).write_all(&answer).expect("is sent");
            }
            // Until the other side goes.
            drop(reader.read_to_end(&mut Vec::new()));
        });
    }

    fn removed(job: &str, result: &str) -> Vec<u8> {
        let text = |text: &str| Value::Text(text.into());
        incoming(
            4,
            vec![(3, text("JobRemoved"))],
            &[
                Value::Uint32(1),
                Value::Path(job.into()),
                text("a.scope"),
                text(result),
            ],
        )
    }

    fn reply(serial: u32, job: &str) -> Vec<u8> {
        incoming(
            2,
            vec![(5, Value::Uint32(serial))],
            &[Value::Path(job.into())],
        )
    }

    fn connected(greeting: &'static str, answers: Vec<Vec<u8>>) -> Connection {
        let (ours, theirs) = UnixStream::pair().expect("is made");
        serve(theirs, greeting, answers);
        Connection::over(ours, false, Duration::from_millis(300)).expect("is greeted")
    }

    #[test]
    fn a_call_and_its_job() {
        // A job that ends before the reply comes is not missed, and others' jobs are not taken
        // for it.
        let early = [
            removed("/job/8", "failed"),
            removed("/job/9", "done"),
            reply(1, "/job/9"),
        ];
        for greeting in ["OK 1234\r\nOK 1234\r\n", GREETING] {
            let mut connection = connected(greeting, vec![early.concat()]);
            let message = connection.call("stop", &TARGET, &[]).expect("is answered");
            assert_eq!(message.texts(), Some(vec!["/job/9".to_owned()]));
            connection.wait_for_job("stop", "/job/9").expect("is done");
        }
        let late = [reply(1, "/job/9"), removed("/job/9", "timeout")].concat();
        let mut connection = connected(GREETING, vec![late]);
        connection.call("stop", &TARGET, &[]).expect("is answered");
        let error = connection
            .wait_for_job("stop \"a\"", "/job/9")
            .expect_err("failed");
        assert_eq!(
            error.to_string(),
            "stop \"a\": systemd: the job ended as \"timeout\""
        );
    }

    #[test]
    fn a_job_whose_end_is_not_said_is_asked_for() {
        let gone = incoming(
            3,
            vec![
                (5, Value::Uint32(2)),
                (
                    4,
                    Value::Text("org.freedesktop.DBus.Error.UnknownObject".into()),
                ),
            ],
            &[],
        );
        let (ours, theirs) = UnixStream::pair().expect("is made");
        serve(theirs, GREETING, vec![reply(1, "/job/9"), gone]);
        let mut connection = Connection::over(ours, false, LIMIT).expect("is greeted");
        connection.call("stop", &TARGET, &[]).expect("is answered");
        let ended = connection.wait_for_job("stop", "/job/9");
        assert_eq!(ended.expect("is over"), Ended::Unheard);
    }

    #[test]
    fn refusals_silence_and_an_end() {
        let error = incoming(
            3,
            vec![(5, Value::Uint32(1)), (4, Value::Text("org.x.No".into()))],
            &[Value::Text("not so".into())],
        );
        let mut connection = connected(GREETING, vec![error, b"what is this, please".to_vec()]);
        let error = connection
            .call("stop", &TARGET, &[])
            .expect_err("is refused");
        assert_eq!(error.to_string(), "stop: systemd: not so (org.x.No)");
        let error = connection
            .call("stop", &TARGET, &[])
            .expect_err("is no D-Bus");
        assert_eq!(error.to_string(), "stop: D-Bus");
        let error = connected(GREETING, vec![Vec::new()])
            .call("stop", &TARGET, &[])
            .expect_err("hears nothing");
        assert_eq!(
            error.to_string(),
            "stop: systemd does not answer within 0 s"
        );

        let (ours, theirs) = UnixStream::pair().expect("is made");
        serve(theirs, "REJECTED\r\n", Vec::new());
        let error = Connection::over(ours, false, LIMIT).expect_err("is rejected");
        assert!(matches!(error, Error::Wire { .. }), "{error}");
        let (ours, _) = UnixStream::pair().expect("is made");
        Connection::over(ours, false, LIMIT).expect_err("nobody is there");
    }

    #[test]
    fn an_absent_systemd_is_told_with_every_place() {
        let places = ["/nowhere/private", "/nowhere/bus"].map(|socket| Place {
            socket: socket.into(),
            is_bus: false,
        });
        let error = Connection::open(&places, "systemd")
            .expect_err("is absent")
            .to_string();
        let answer = "no such file or directory (ENOENT)";
        let expected = format!(
            "--systemd-cgroup: no systemd answers at \"/nowhere/private\" ({answer}) or \
             \"/nowhere/bus\" ({answer})"
        );
        assert_eq!(error, expected);
    }
}
