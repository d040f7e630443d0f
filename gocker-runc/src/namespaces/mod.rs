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

use std::fs::{File, metadata};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
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
    /// Its place in the list.
    joined_pid_index: Option<usize>,
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
            joined_pid_index: None,
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
                        Kind::Pid => {
                            plan.joined_pid = Some(fd);
                            plan.joined_pid_index = Some(namespace.index);
                        }
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

    /// Whether the container has a `kind` that is not the runtime's: a new one, or one that is
    /// joined and another.
    pub(crate) fn has_other(&self, namespaces: &Namespaces, kind: Kind) -> bool {
        match self.joined.iter().find(|(joined, _)| *joined == kind) {
            Some((_, fd)) => !is_that_of("self", kind, fd),
            None => namespaces.has(kind),
        }
    }

    /// What failed where a process of these namespaces could not be cloned.
    pub(crate) fn failed_clone(&self, errno: Errno) -> String {
        match self.joined_pid_index {
            // pid_namespaces(7)
            Some(index) if errno == Errno::ENOMEM => format!(
                "linux.namespaces[{index}].path: a PID namespace whose first process has ended \
                 takes no further ones"
            ),
            _ => "create namespaces".into(),
        }
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

/// The same of what clone3(2) takes.
pub(crate) fn clone_flag_names(flags: u64) -> String {
    i32::try_from(flags).map_or_else(
        |_| "all".into(),
        |flags| flag_names(CloneFlags::from_bits_retain(flags)),
    )
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
    let place = open_host_path(path).map_err(|error| error.to_string())?;
    let magic = nix::sys::statfs::fstatfs(&place)
        .map_err(describe)?
        .filesystem_type();
    if magic.0 != NSFS_MAGIC {
        return Err(format!("{path:?} is not a namespace"));
    }
    // What was looked at and nothing else: a fifo would be waited for, a device set going.
    let fd: OwnedFd = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
        .map_err(|error| format!("open({path:?}): {error}"))?
        .into();
    let found = namespace_type(&fd).map_err(describe)?;
    if found != flag(kind) {
        let found = name_of(found);
        let wanted = kind.as_str();
        return Err(format!(
            "{path:?} is a {found} namespace, not a {wanted} namespace"
        ));
    }
    // The container's root becomes the root of all that are in it.
    let is_in_use = |process| is_that_of(process, kind, &fd);
    if kind == Kind::Mount && ["self", "1"].into_iter().any(is_in_use) {
        return Err(format!(
            "{path:?} is the mount namespace of the host, whose root would become the container's: \
             leave the entry out to share it"
        ));
    }
    Ok(fd)
}

/// Whether the namespace `fd` is the one that `process`, a directory of /proc, is in. Where that
/// cannot be told, it is none that this process could join.
fn is_that_of(process: &str, kind: Kind, fd: &OwnedFd) -> bool {
    let its = metadata(format!("/proc/{process}/ns/{}", kind.proc_name()));
    let found = nix::sys::stat::fstat(fd);
    matches!((its, found), (Ok(its), Ok(found)) if its.ino() == found.st_ino)
}

/// The kinds of which the kernel has namespaces, by `own`, a process's directory of them.
pub(crate) fn known(own: &Path) -> Vec<&'static str> {
    let names = KINDS
        .iter()
        .filter(|kind| own.join(kind.proc_name()).symlink_metadata().is_ok());
    names.map(|kind| kind.as_str()).collect()
}

/// All kinds, in the order of their names.
const KINDS: [Kind; 8] = [
    Kind::Cgroup,
    Kind::Ipc,
    Kind::Mount,
    Kind::Network,
    Kind::Pid,
    Kind::Time,
    Kind::User,
    Kind::Uts,
];

fn name_of(found: CloneFlags) -> &'static str {
    KINDS
        .into_iter()
        .find(|kind| flag(*kind) == found)
        .map_or("different", Kind::as_str)
}

/// statfs(2): the filesystem of namespace files.
const NSFS_MAGIC: libc::c_long = 0x6e73_6673;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_not_known() {
        let own = tempfile::tempdir().expect("temporary directory");
        for name in ["mnt", "net", "pid", "pid_for_children", "user"] {
            let link = own.path().join(name);
            std::os::unix::fs::symlink(format!("{name}:[1]"), link).expect("linked");
        }
        assert_eq!(known(own.path()), ["mount", "network", "pid", "user"]);
    }
}
