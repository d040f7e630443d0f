//! close_range(2) and, before Linux 5.9 or under a seccomp filter as old, the same one by one.
#![allow(unsafe_code, reason = "system calls that nix lacks")]

use std::fs;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

/// close_range(2) with `CLOSE_RANGE_CLOEXEC`: every descriptor from `first` on is
/// close-on-exec, whoever opened it.
///
/// # Errors
/// fcntl(2)'s, where there is no close_range(2).
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: the flag closes nothing now, so no owner loses its descriptor.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first.cast_unsigned(),
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match Errno::result(done) {
        // Linux 5.9 and 5.10 have the call without the flag.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {}
        done => return done.map(drop),
    }
    for fd in descriptors_from(first) {
        // SAFETY: as above.
        let done = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        match Errno::result(done) {
            Ok(_) | Err(Errno::EBADF) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on that is not in `kept`.
///
/// Runs in: init, right after the clone. What the runtime's frames own there is never dropped,
/// because init does not return.
///
/// # Errors
/// close_range(2)'s.
pub(crate) fn close_all_but(first: RawFd, mut kept: Vec<RawFd>) -> Result<(), Errno> {
    kept.sort_unstable();
    let close = |from: RawFd, to: libc::c_uint| {
        if from.cast_unsigned() > to {
            return Ok(());
        }
        // SAFETY: the owners of these descriptors belong to frames that are never left.
        let done = unsafe { libc::syscall(libc::SYS_close_range, from.cast_unsigned(), to, 0) };
        Errno::result(done).map(drop)
    };
    let close_all = || {
        let mut next = first;
        for fd in kept.iter().copied().filter(|fd| *fd >= first) {
            if fd > next {
                close(next, (fd - 1).cast_unsigned())?;
            }
            next = fd + 1;
        }
        close(next, libc::c_uint::MAX)
    };
    match close_all() {
        Err(Errno::ENOSYS | Errno::EPERM) => {}
        done => return done,
    }
    for fd in descriptors_from(first) {
        if kept.binary_search(&fd).is_err() {
            // SAFETY: as above. A number that is not open is not an error here.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}

/// The numbers of all descriptors from `first` on that are open, and perhaps of more.
fn descriptors_from(first: RawFd) -> Vec<RawFd> {
    // Only a procfs tells them all: a directory of the container's may tell what it likes.
    let is_proc = statfs("/proc/self/fd").is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC);
    let listed = fs::read_dir("/proc/self/fd").ok().filter(|_| is_proc);
    if let Some(entries) = listed {
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        return numbers.filter(|fd| *fd >= first).collect();
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    (first..i32::try_from(limit).unwrap_or(MOST).min(MOST)).collect()
}

/// As many numbers as are tried where nothing tells which of them are open.
const MOST: RawFd = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn open_descriptors_are_found() {
        let file = File::open("/dev/null").expect("opened");
        let fd = file.as_raw_fd();
        assert!(descriptors_from(fd).contains(&fd));
        assert!(!descriptors_from(fd + 1).contains(&fd));
    }
}
