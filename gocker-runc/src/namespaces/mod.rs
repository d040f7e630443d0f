//! Which namespaces the container process is born into, and which it joins.
//!
//! ```text
//! direct         runtime --clone3(NEW*)--> init: joins the others by setns
//! intermediate   runtime --clone3--> joins --clone3(PARENT, NEW*)--> init
//! ```
//!
//! The second way is for configurations whose user namespace must come between the joined
//! namespaces and the new ones.
//!
//! Spec: config-linux.md#namespaces; namespaces(7)

mod by_path;
mod time;
pub(crate) mod user;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bundles::FieldError;
use bundles::config::linux::namespaces::{Kind, Namespaces};
use bundles::config::linux::time_offsets::TimeOffset;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use crate::sys::caller::Caller;
use crate::sys::errno::describe;
use crate::sys::in_root::open_host_path;
use crate::sys::nsfs::namespace_type;
use crate::sys::{CallError, Called};
use time::NewTime;

/// Everything about namespaces, opened before the clone.
#[derive(Debug)]
pub(crate) struct NamespacePlan {
    /// `CLONE_NEW*` of what is made with the process. The cgroup namespace is not among
    /// them: its root is the cgroup that its maker is in.
    pub(crate) clone_flags: u64,
    /// Whether a cgroup namespace is made once the process is in its cgroup.
    pub(crate) new_cgroup: bool,
    /// The clocks of the time namespace that is made; None where none is. It is not among the
    /// flags either: its offsets are final once a process is in it.
    pub(crate) new_time: Option<Vec<TimeOffset>>,
    /// The namespaces to join, but for the PID namespace.
    pub(crate) joined: Vec<(Kind, OwnedFd)>,
    /// The PID namespace to join: the runtime enters it for its next child.
    pub(crate) joined_pid: Option<OwnedFd>,
    /// Whether a process in between has to join before the clone.
    pub(crate) intermediate: bool,
}

impl NamespacePlan {
    /// Opens what is to be joined.
    ///
    /// # Errors
    /// The entry whose path cannot be opened, is of another kind, or is not served.
    pub(crate) fn new(
        namespaces: &Namespaces,
        time_offsets: &[TimeOffset],
    ) -> Result<Self, FieldError> {
        let mut plan = Self {
            clone_flags: 0,
            new_cgroup: namespaces.is_new(Kind::Cgroup),
            new_time: namespaces.is_new(Kind::Time).then(|| time_offsets.to_vec()),
            joined: Vec::new(),
            joined_pid: None,
            intermediate: false,
        };
        for namespace in namespaces.iter() {
            let field = || format!("linux.namespaces[{}]", namespace.index);
            match &namespace.path {
                None if namespace.kind == Kind::Cgroup => {}
                None if namespace.kind == Kind::Time && !time::is_served() => {
                    let problem = "this kernel has no time namespaces (Linux 5.6 has them)";
                    return Err(FieldError::new(field(), problem));
                }
                None if namespace.kind == Kind::Time => {}
                None => {
                    let flag = flag(namespace.kind).bits().cast_unsigned();
                    plan.clone_flags |= u64::from(flag);
                }
                Some(path) => {
                    let fd = open(path, namespace.kind)
                        .map_err(|problem| FieldError::new(format!("{}.path", field()), problem))?;
                    match namespace.kind {
                        Kind::Pid => plan.joined_pid = Some(fd),
                        kind => plan.joined.push((kind, fd)),
                    }
                }
            }
        }
        let joins = !plan.joined.is_empty();
        let makes = plan.clone_flags != 0 || plan.new_time.is_some();
        // A PID namespace of the user namespace's can be joined only after that.
        plan.intermediate = (namespaces.is_new(Kind::User) && joins)
            || (namespaces.path(Kind::User).is_some() && (makes || plan.joined_pid.is_some()))
            // The runtime cannot go there itself: the way back belongs to the machine's root.
            || (plan.joined_pid.is_some() && Caller::find_out() != Caller::Root);
        Ok(plan)
    }

    /// Prepares for a new time namespace, where one is wanted.
    ///
    /// Runs in: a process that has not changed its user since its clone.
    ///
    /// # Errors
    /// procfs's.
    pub(crate) fn open_time(&self) -> Result<Option<NewTime>, CallError> {
        self.new_time.is_some().then(NewTime::open).transpose()
    }

    /// Makes the time namespace for the process's next child.
    ///
    /// # Errors
    /// unshare(2)'s; an offset that the kernel refuses.
    pub(crate) fn make_time(&mut self, time: Option<&NewTime>) -> Result<(), Error> {
        match (self.new_time.take(), time) {
            (Some(offsets), Some(time)) => time.make(&offsets),
            _ => Ok(()),
        }
    }

    /// Makes the time namespace, and enters it.
    ///
    /// # Errors
    /// As [`Self::make_time`]; setns(2)'s.
    pub(crate) fn enter_time(&mut self, time: Option<&NewTime>) -> Result<(), Error> {
        self.make_time(time)?;
        time.map_or(Ok(()), NewTime::enter)
    }

    /// Joins every namespace of `joined`, in the calling process.
    ///
    /// Those that the host's root owns are joined before the user namespace, those that the
    /// user namespace owns after it; the kernel tells which is which.
    ///
    /// # Errors
    /// The namespace that the kernel refuses.
    pub(crate) fn join(&self) -> Result<(), Error> {
        let mut refused = Vec::new();
        let user = self.joined_user();
        for (kind, fd) in self.joined.iter().filter(|(kind, _)| *kind != Kind::User) {
            match enter(*kind, fd) {
                Err(error) if user.is_some() && error.source.errno == Errno::EPERM => {
                    refused.push((kind, fd));
                }
                done => done?,
            }
        }
        if let Some(fd) = user {
            enter(Kind::User, fd)?;
            user::become_root().map_err(|source| Error {
                what: "take root's ids in",
                kind: Kind::User,
                source,
            })?;
        }
        refused
            .into_iter()
            .try_for_each(|(kind, fd)| enter(*kind, fd))
    }

    /// The user namespace to join.
    pub(crate) fn joined_user(&self) -> Option<&OwnedFd> {
        let user = self.joined.iter().find(|(kind, _)| *kind == Kind::User);
        user.map(|(_, fd)| fd)
    }

    /// The network namespace to join, once more, for who gives it devices.
    ///
    /// # Errors
    /// dup(2)'s.
    pub(crate) fn joined_network(&self) -> std::io::Result<Option<OwnedFd>> {
        let joined = self.joined.iter().find(|(kind, _)| *kind == Kind::Network);
        joined.map(|(_, fd)| fd.try_clone()).transpose()
    }

    /// Makes the cgroup namespace where one is wanted.
    ///
    /// Runs in: init, which is in its cgroup by now.
    ///
    /// # Errors
    /// unshare(2)'s.
    pub(crate) fn unshare_cgroup(&self) -> Result<(), Error> {
        if !self.new_cgroup {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWCGROUP)
            .called(|| "unshare(CLONE_NEWCGROUP)".into())
            .map_err(|source| Error {
                what: "create",
                kind: Kind::Cgroup,
                source,
            })
    }
}

/// A namespace that could not be joined or made.
#[derive(Debug, thiserror::Error)]
#[error("{what} {} namespace", kind.as_str())]
pub(crate) struct Error {
    /// `join` or `create`.
    what: &'static str,
    /// Of which kind.
    kind: Kind,
    /// The call.
    source: CallError,
}

/// Moves the calling process, or for a PID namespace its later children, into `fd`.
///
/// # Errors
/// setns(2)'s.
pub(crate) fn enter(kind: Kind, fd: &OwnedFd) -> Result<(), Error> {
    let flag = flag(kind);
    setns(fd.as_fd(), flag)
        .called(|| format!("setns({})", flag_names(flag)))
        .map_err(|source| Error {
            what: "join",
            kind,
            source,
        })
}

/// `CLONE_NEW*` of every namespace that the container has, made or joined.
pub(crate) fn flags_of(namespaces: &Namespaces) -> CloneFlags {
    namespaces
        .iter()
        .map(|namespace| flag(namespace.kind))
        .collect()
}

/// Moves the calling process into those of `flags` that the process has which `pidfd` means.
/// The kernel does it all or nothing, and knows which come before a user namespace and which
/// after it. For a PID namespace it concerns later children.
///
/// # Errors
/// setns(2)'s; ESRCH when the process has ended.
pub(crate) fn join_those_of(pidfd: &OwnedFd, flags: CloneFlags) -> Result<(), CallError> {
    if flags.is_empty() {
        return Ok(());
    }
    match setns(pidfd.as_fd(), flags) {
        // Linux before 5.8 takes no pidfd.
        Err(Errno::EINVAL) => by_path::join_those_of(pidfd, flags),
        done => done.called(|| format!("setns({})", flag_names(flags))),
    }
}

/// `CLONE_NEW*|CLONE_NEW*`, for messages.
pub(crate) fn flag_names(flags: CloneFlags) -> String {
    let mut names: Vec<_> = flags.iter_names().map(|(name, _)| name).collect();
    if flags.contains(NEW_TIME) {
        names.push("CLONE_NEWTIME");
    }
    names.join("|")
}

/// It has no name in nix.
const NEW_TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

fn flag(kind: Kind) -> CloneFlags {
    match kind {
        Kind::User => CloneFlags::CLONE_NEWUSER,
        Kind::Pid => CloneFlags::CLONE_NEWPID,
        Kind::Network => CloneFlags::CLONE_NEWNET,
        Kind::Ipc => CloneFlags::CLONE_NEWIPC,
        Kind::Uts => CloneFlags::CLONE_NEWUTS,
        Kind::Mount => CloneFlags::CLONE_NEWNS,
        Kind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        Kind::Time => NEW_TIME,
    }
}

/// Opens a namespace file and checks that it is one, of the right kind. Its name says
/// nothing: engines keep namespaces under names of their own.
fn open(path: &Path, kind: Kind) -> Result<OwnedFd, String> {
    let fd = open_host_path(path).map_err(|error| error.to_string())?;
    let magic = nix::sys::statfs::fstatfs(&fd)
        .map_err(describe)?
        .filesystem_type();
    let fd = std::fs::File::open(path)
        .map_err(|error| error.to_string())
        .map(OwnedFd::from)?;
    if magic.0 != NSFS_MAGIC {
        return Err(format!("{path:?} is not a namespace"));
    }
    let found = namespace_type(&fd).map_err(describe)?;
    if found != flag(kind) {
        let found = name_of(found);
        let wanted = kind.as_str();
        return Err(format!(
            "{path:?} is a {found} namespace, not a {wanted} namespace"
        ));
    }
    Ok(fd)
}

fn name_of(found: CloneFlags) -> &'static str {
    let kinds = [
        Kind::User,
        Kind::Pid,
        Kind::Network,
        Kind::Ipc,
        Kind::Uts,
        Kind::Mount,
        Kind::Cgroup,
        Kind::Time,
    ];
    kinds
        .into_iter()
        .find(|kind| flag(*kind) == found)
        .map_or("different", Kind::as_str)
}

/// statfs(2): the filesystem of namespace files.
const NSFS_MAGIC: libc::c_long = 0x6e73_6673;
