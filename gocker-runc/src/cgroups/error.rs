//! What can go wrong with cgroups.

use std::path::PathBuf;

use bundles::FieldError;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::sys::errno::describe;

/// The step of handing a cgroup over.
pub(super) const CHOWN: &str = "chown";

/// A refusal, or the kernel's answer to one step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A field that cannot be served on this machine; nothing was made.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// systemd, which was to make the cgroup.
    #[error(transparent)]
    Systemd(#[from] super::systemd::Error),
    /// A value that the kernel did not take.
    #[error("{field}: write {value:?} to {path:?}: {}", describe(*answer))]
    Set {
        /// The field of the configuration that asked for it.
        field: String,
        /// What was written.
        value: String,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        answer: Errno,
    },
    /// A value for which there is no file: the kernel is too old, or built or booted without.
    #[error("{field}: {dir:?} has no {file}")]
    NoFile {
        /// The field of the configuration that asked for it.
        field: String,
        /// The missing file.
        file: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A step on a file or directory.
    #[error("{operation} {path:?}: {}", describe(*answer))]
    Path {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        answer: Errno,
    },
    /// A file that does not hold what it should.
    #[error("read {path:?}: {text:?} is not {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The part that is wrong.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
    /// No cgroup file system is mounted that could serve a container.
    #[error("no cgroup file system is mounted")]
    NotMounted,
    /// Device rules cannot be kept without this hierarchy, and a container needs some.
    #[error("the cgroup v1 controller \"devices\" is not mounted")]
    NoDevices,
    /// The path was made before, and somebody is in it.
    #[error("cgroup {path:?} is not empty: {count} process(es) found")]
    NotEmpty {
        /// The cgroup.
        path: PathBuf,
        /// How many processes it holds.
        count: usize,
    },
    /// The path was made before, and what enters it stands still.
    #[error("cgroup {path:?} is frozen")]
    Frozen {
        /// The cgroup.
        path: PathBuf,
    },
    /// The kernel does not let processes into the cgroup.
    #[error("cgroup {path:?} is {kind:?}: a process or controller above it is in the way")]
    Unusable {
        /// The cgroup.
        path: PathBuf,
        /// What its `cgroup.type` says.
        kind: String,
    },
    /// A value of `--cgroup`.
    #[error("--cgroup {value:?}: {problem}")]
    SubPath {
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A rootless container without a cgroup of its own.
    #[error(
        "the container has no cgroup of its own: \
         the user who made it may make none (rootless)"
    )]
    Shared,
    /// The machine has no freezer for this container.
    #[error("no freezer: the cgroup v1 controller \"freezer\" is not mounted")]
    NoFreezer,
    /// Not every process stopped or went on in time.
    #[error("{operation} cgroup {path:?}: not done within {milliseconds} ms")]
    FreezeTimeout {
        /// `freeze` or `thaw`.
        operation: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// How long was waited.
        milliseconds: u128,
    },
    /// A signal that was not delivered.
    #[error("send {signal} to process {pid} of cgroup {path:?}: {}", describe(*answer))]
    Signal {
        /// The signal.
        signal: nix::sys::signal::Signal,
        /// The process.
        pid: Pid,
        /// Its cgroup.
        path: PathBuf,
        /// The kernel's answer.
        answer: Errno,
    },
    /// The device program was not loaded or attached.
    #[error("linux.resources.devices: {operation} the device program of cgroup {path:?}: {}", describe(*answer))]
    DeviceProgram {
        /// What was tried.
        operation: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// The kernel's answer.
        answer: Errno,
    },
}

impl Error {
    /// Whether the kernel keeps for callers with more rights what a container can do without:
    /// device rules, since nobody else could make the nodes that they are about, and giving away.
    pub(crate) fn is_for_lack_of_rights(&self) -> bool {
        let answer = match self {
            Self::DeviceProgram { answer, .. } => *answer,
            Self::Path {
                operation: CHOWN,
                answer,
                ..
            } => *answer,
            Self::Set { field, answer, .. } if field == "linux.resources.devices" => *answer,
            _ => return false,
        };
        matches!(answer, Errno::EPERM | Errno::EACCES | Errno::EROFS)
    }
}
