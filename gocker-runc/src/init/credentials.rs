//! Becomes the container's user: groups, gid, uid, capabilities, umask, standard descriptors.
//!
//! Spec: config.md#posix-platform-user

use std::os::fd::AsFd;

use bundles::config::process::User;
use nix::errno::Errno;
use nix::sys::stat::{Mode, fstat, major, minor, umask};
use nix::unistd::{Gid, Uid, fchown, setgroups, setresgid, setresuid};

use crate::sys::{CallError, Called};

/// Gives the standard descriptors to the user, so that it can open /dev/stdout and the like.
/// The null device belongs to all.
///
/// # Errors
/// fchown(2)'s, but for descriptors that cannot have an owner.
pub(crate) fn give_stdio(user: &User) -> Result<(), CallError> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for (number, fd) in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
        .into_iter()
        .enumerate()
    {
        let Ok(stat) = fstat(fd) else { continue };
        if stat.st_uid == user.uid || (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3) {
            continue;
        }
        match fchown(fd, Some(Uid::from_raw(user.uid)), None) {
            // An id that the user namespace does not map, a read-only filesystem, or a
            // descriptor without an inode of its own: the process lives with it.
            Ok(()) | Err(Errno::EINVAL | Errno::EROFS | Errno::EPERM) => {}
            Err(errno) => {
                return Err(CallError {
                    call: format!("fchown(fd {number})"),
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// Changes groups, gid and uid.
///
/// # Errors
/// The call; EPERM for groups where a user namespace does not allow them.
pub(crate) fn become_user(user: &User) -> Result<(), CallError> {
    let groups: Vec<Gid> = user
        .additional_gids
        .iter()
        .copied()
        .map(Gid::from_raw)
        .collect();
    match setgroups(&groups) {
        // /proc/PID/setgroups says deny: no groups were asked for, and none can be dropped.
        Err(Errno::EPERM) if groups.is_empty() => {}
        done => done.called(|| format!("setgroups({:?})", user.additional_gids))?,
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setresgid(gid, gid, gid).called(|| format!("setresgid({gid})"))?;
    setresuid(uid, uid, uid).called(|| format!("setresuid({uid})"))
}

/// Sets the file mode creation mask where the configuration has one.
pub(crate) fn set_umask(user: &User) {
    if let Some(mask) = user.umask {
        umask(Mode::from_bits_truncate(mask));
    }
}
