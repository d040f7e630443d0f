//! The container's terminal, from the container's side.
//!
//! The pseudo-terminal comes from the container's own devpts. Its other side is opened by
//! TIOCGPTPEER and bound on `/dev/console` by descriptor: a path there could have been swapped
//! (CVE-2025-52565).
//!
//! Spec: config.md#process (terminal, consoleSize), runtime-linux.md#dev-symbolic-links

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bundles::config::process::ConsoleSize;
use nix::fcntl::{OFlag, openat};
use nix::pty::Winsize;
use nix::sys::stat::{Mode, fchmod};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown};

use crate::sys::in_root::RootFd;
use crate::sys::mount_api::{Recursive, clone_tree, move_mount};
use crate::sys::{CallError, Called, tty};

/// A new pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Console {
    /// The side for the engine or the user.
    pub(crate) master: OwnedFd,
    /// The side for the process.
    pub(crate) peer: OwnedFd,
    /// The peer's path inside the container.
    pub(crate) name: String,
}

/// statfs(2): devpts.
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

/// Opens a terminal in the devpts beneath `root`.
///
/// # Errors
/// No devpts is mounted at /dev/pts, or the call that failed.
pub(crate) fn open(root: &RootFd, size: Option<ConsoleSize>) -> Result<Console, CallError> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = root.open_beneath(Path::new("/dev/pts/ptmx"), flags)?;
    let kind = fstatfs(&master)
        .called(|| "fstatfs(/dev/pts/ptmx)".into())?
        .filesystem_type();
    if kind != DEVPTS_SUPER_MAGIC {
        let call = "/dev/pts/ptmx is not on a devpts".into();
        return Err(CallError {
            call,
            errno: nix::errno::Errno::ENOTTY,
        });
    }
    let peer = tty::open_pty_peer(master.as_fd()).called(|| "ioctl(TIOCGPTPEER)".into())?;
    let number = tty::pty_number(master.as_fd()).called(|| "ioctl(TIOCGPTN)".into())?;
    if let Some(ConsoleSize { height, width }) = size {
        let size = Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tty::resize(master.as_fd(), size).called(|| "ioctl(TIOCSWINSZ)".into())?;
    }
    Ok(Console {
        master,
        peer,
        name: format!("/dev/pts/{number}"),
    })
}

impl Console {
    /// Binds the peer on `/dev/console`.
    ///
    /// Runs in: container namespace, before pivot_root.
    ///
    /// # Errors
    /// The call that failed.
    pub(crate) fn bind_on_dev_console(&self, root: &RootFd) -> Result<(), CallError> {
        let dev = root.open_beneath(Path::new("/dev"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let flags = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let target = openat(&dev, "console", flags, Mode::from_bits_truncate(0o600))
            .called(|| "openat(\"console\")".into())?;
        let tree = clone_tree(self.peer.as_fd(), c"", Recursive::No)
            .called(|| format!("open_tree({:?}, CLONE)", self.name))?;
        move_mount(tree.as_fd(), target.as_fd()).called(|| "move_mount(/dev/console)".into())
    }

    /// Gives the peer to the process's user. The group stays what devpts says.
    ///
    /// # Errors
    /// The call that failed.
    pub(crate) fn give_to(&self, user: Uid) -> Result<(), CallError> {
        fchown(&self.peer, Some(user), None::<Gid>).called(|| format!("fchown({})", self.name))?;
        fchmod(&self.peer, Mode::from_bits_truncate(0o620))
            .called(|| format!("fchmod({})", self.name))
    }

    /// Makes the peer the session's terminal and the standard descriptors.
    ///
    /// # Errors
    /// The call that failed.
    pub(crate) fn attach(self) -> Result<(), CallError> {
        tty::take_controlling_tty(self.peer.as_fd()).called(|| "ioctl(TIOCSCTTY)".into())?;
        dup2_stdin(&self.peer).called(|| "dup2(0)".into())?;
        dup2_stdout(&self.peer).called(|| "dup2(1)".into())?;
        dup2_stderr(&self.peer).called(|| "dup2(2)".into())
    }
}
