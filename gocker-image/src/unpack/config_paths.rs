//! Paths that an image's config names, looked up or made inside of a root that
//! is complete: passwd, the working directory, volumes.

use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};

use super::in_root::{Tree, call};
use crate::errno::CallError;

/// Makes the directory `path` inside of `root`, with all that is missing on the
/// way, and touches no time of another.
///
/// # Errors
/// When it cannot be made.
pub fn make_dirs(root: OwnedFd, path: &[u8]) -> Result<(), CallError> {
    let path = normalise_any(path)?;
    let mut tree = Tree::new(root)?;
    tree.make(&path)?;
    tree.restore_times()
}

/// Reads the regular file `path` inside of `root`; None if there is none. What
/// comes after `limit` bytes is an error.
///
/// # Errors
/// When it is something else than a file, too large, or cannot be read.
pub fn read_file(
    root: BorrowedFd<'_>,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, CallError> {
    let error = |call, errno: Errno| CallError::new(call, path, errno);
    // Not blocking: it may be a fifo.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(
        ResolveFlag::RESOLVE_IN_ROOT
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    let fd = match openat2(root, path, how) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(errno) => return Err(error("openat2", errno)),
    };
    let stat = fstat(&fd).map_err(|errno| error("fstat", errno))?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(error("read", Errno::EINVAL));
    }
    let mut bytes = Vec::new();
    let mut file = File::from(fd).take(limit + 1);
    (file.read_to_end(&mut bytes)).map_err(|error| CallError::new("read", path, error))?;
    if bytes.len() as u64 > limit {
        return Err(error("read", Errno::EFBIG));
    }
    Ok(Some(bytes))
}

/// A path of a config, which is absolute and whose `..` stop at the root.
fn normalise_any(path: &[u8]) -> Result<Vec<u8>, CallError> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name if name.contains(&0) => return Err(call("mkdirat", path, Errno::EINVAL)),
            name => components.push(name),
        }
    }
    Ok(components.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_of_a_config_stay_inside() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/passwd"), "inside").unwrap();
        symlink("/etc/passwd", root.join("link")).unwrap();
        symlink("../../..", root.join("up")).unwrap();
        let fd = || OwnedFd::from(File::open(&root).unwrap());
        let read = |path, limit| read_file(fd().as_fd(), path, limit);
        assert_eq!(read("link", 100).unwrap().unwrap(), b"inside");
        assert_eq!(read("none/x", 100).unwrap(), None);
        assert!(read("etc", 100).is_err(), "a directory was read");
        assert!(
            read("etc/passwd", 5).is_err(),
            "more than the limit was read"
        );
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read("fifo", 100).is_err(), "a fifo was read");
        for path in ["/srv/app", "../../srv/b", "up/../c"] {
            make_dirs(fd(), path.as_bytes()).unwrap();
        }
        for made in ["srv/app", "srv/b", "c"] {
            assert!(root.join(made).is_dir(), "{made}");
        }
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
