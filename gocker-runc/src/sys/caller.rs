//! Whose rights this process has: the machine's root's, or less.

use std::os::unix::fs::MetadataExt;

use nix::unistd::Uid;

/// Who runs this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The machine's root.
    Root,
    /// "Root" of a user namespace, such as an engine makes for an ordinary user.
    NestedRoot,
    /// Anybody else, who can make a container only in a new user namespace.
    OrdinaryUser,
}

impl Caller {
    /// Asks the kernel.
    pub(crate) fn find_out() -> Self {
        if is_ordinary_user() {
            Self::OrdinaryUser
        } else if in_user_namespace() {
            Self::NestedRoot
        } else {
            Self::Root
        }
    }
}

/// Whether the caller is anybody but root, which no look into /proc is needed for.
pub(crate) fn is_ordinary_user() -> bool {
    !Uid::effective().is_root()
}

/// Whether this process is in another user namespace than the machine's first one.
pub(crate) fn in_user_namespace() -> bool {
    // Where it cannot be told there is no procfs, and nothing else will work either.
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|ns| ns.ino() != INITIAL)
}

/// The kernel's `PROC_USER_INIT_INO`.
const INITIAL: u64 = 0xefff_fffd;
