//! A terminal of the test's own, with a program on it that is talked to.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command};
use std::time::Duration;

use conformance::command::{process_id, spawn_on};
use conformance::wait_until;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use rustix::termios::{Winsize, tcsetwinsize};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a repeated request waits for its answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Between two keys.
const PAUSE: Duration = Duration::from_millis(100);

/// A program on a terminal, and all that appeared there.
pub(super) struct Terminal {
    master: File,
    child: Child,
    shown: String,
    /// Where in it the part begins that no wait has covered.
    seen: usize,
}

impl Terminal {
    /// Runs a program on a terminal of so many rows and columns.
    pub(super) fn run(command: &mut Command, size: (u16, u16)) -> Self {
        let pty = nix::pty::openpty(None, None).expect("openpty");
        tcsetwinsize(&pty.slave, winsize(size)).expect("set the size");
        let child = spawn_on(pty.slave.as_fd(), command);
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("fcntl");
        Self {
            master: File::from(pty.master),
            child,
            shown: String::new(),
            seen: 0,
        }
    }

    /// Types something.
    pub(super) fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("type");
    }

    /// Changes the size. The program is told by hand: the terminal is not the
    /// one that controls it.
    pub(super) fn resize(&self, size: (u16, u16)) {
        tcsetwinsize(&self.master, winsize(size)).expect("set the size");
        kill(process_id(self.child.id()), Signal::SIGWINCH).expect("kill");
    }

    /// Waits until a text appears after what earlier waits have covered.
    #[track_caller]
    pub(super) fn wait_for(&mut self, text: &str) {
        let appeared = self.appears(text, LIMIT);
        assert!(appeared, "should show {text:?}: {:?}", self.shown);
    }

    /// Types something again and again until a text appears.
    #[track_caller]
    pub(super) fn repeat_until(&mut self, keys: &str, text: &str) {
        let appeared = wait_until(LIMIT, || {
            self.send(keys);
            self.appears(text, PATIENCE)
        });
        assert!(appeared, "should show {text:?}: {:?}", self.shown);
    }

    /// Types two keys, which the program knows only as two reads, until it ends;
    /// its exit code.
    #[track_caller]
    pub(super) fn detach(mut self, keys: [&str; 2]) -> i32 {
        let ended = wait_until(LIMIT, || {
            keys.iter().any(|key| {
                self.send(key);
                self.ends(PAUSE)
            })
        });
        assert!(ended, "should detach: {:?}", self.shown);
        self.wait()
    }

    /// Waits for the program's end; its exit code.
    #[track_caller]
    pub(super) fn wait(mut self) -> i32 {
        assert!(self.ends(LIMIT), "should end: {:?}", self.shown);
        self.child.wait().expect("wait").code().unwrap_or(-1)
    }

    fn ends(&mut self, limit: Duration) -> bool {
        wait_until(limit, || {
            // What it still writes must have room.
            self.read();
            self.child.try_wait().expect("wait").is_some()
        })
    }

    fn appears(&mut self, text: &str, limit: Duration) -> bool {
        wait_until(limit, || {
            self.read();
            let found = self.shown[self.seen..].find(text);
            if let Some(at) = found {
                self.seen += at + text.len();
            }
            found.is_some()
        })
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        // Nothing at the moment, or the other side is closed.
        while let Ok(length @ 1..) = self.master.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            self.shown.push_str(&text);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            for ended in [self.child.kill(), self.child.wait().map(drop)] {
                if let Err(error) = ended {
                    eprintln!("clean-up: {error}");
                }
            }
        }
    }
}

fn winsize((rows, columns): (u16, u16)) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
