//! Paths inside a root filesystem, as descriptors.
//!
//! A container's files are whatever its image and its processes made of them: symlinks that
//! point out, directories that are swapped while one looks. So no path of a container is ever
//! handed to the kernel as a string to resolve freely. It is opened beneath the root by
//! openat2(2) with RESOLVE_IN_ROOT, and what follows acts on the descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::mount_by_path::mount_id;
use super::walk::{self, Symlinks};
use super::{CallError, Called};

/// The directory that is, or will be, the container's `/`.
#[derive(Debug)]
pub(crate) struct RootFd(OwnedFd);

/// What [`RootFd::open_or_make`] makes where a path is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// A directory, and the directories above it.
    Directory,
    /// An empty regular file, and the directories above it.
    File,
}

/// openat2(2) answers EAGAIN when a rename raced with `..`; so many tries are made.
const MAX_RACES: usize = 128;

impl RootFd {
    /// Opens the root filesystem at `path`, which the host controls.
    ///
    /// # Errors
    /// open(2)'s; ENOTDIR where it is no directory.
    pub(crate) fn open(path: &Path) -> Result<Self, CallError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty())
            .map(Self)
            .called(|| format!("open({path:?})"))
    }

    /// Takes a descriptor of a directory as the root.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Whether `fd` refers to the root itself.
    ///
    /// # Errors
    /// fstat(2)'s; ENOENT where `/proc` is no procfs.
    pub(crate) fn is_at(&self, fd: &OwnedFd) -> Result<bool, CallError> {
        let (own, other) = (fstat(&self.0), fstat(fd));
        let (own, other) = (
            own.called(|| "fstat".into())?,
            other.called(|| "fstat".into())?,
        );
        if (own.st_dev, own.st_ino) != (other.st_dev, other.st_ino) {
            return Ok(false);
        }
        // The same directory may be mounted elsewhere, too.
        let mounts = mount_id(self.0.as_fd()).and_then(|own| Ok(own == mount_id(fd.as_fd())?));
        mounts.called(|| "mount id of the root".into())
    }

    /// Opens `path` beneath the root, following symlinks inside it.
    ///
    /// # Errors
    /// openat2(2)'s.
    pub(crate) fn open_beneath(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, CallError> {
        self.openat2(path, flags, ResolveFlag::empty())
            .called(|| format!("openat2({:?})", relative(path)))
    }

    /// Opens `path` beneath the root and refuses any symlink on the way.
    ///
    /// # Errors
    /// openat2(2)'s; ELOOP for a symlink.
    pub(crate) fn open_without_symlinks(
        &self,
        path: &Path,
        flags: OFlag,
    ) -> Result<OwnedFd, CallError> {
        self.openat2(path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
            .called(|| format!("openat2({:?}, NO_SYMLINKS)", relative(path)))
    }

    fn openat2(&self, path: &Path, flags: OFlag, more: ResolveFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
        for _ in 0..MAX_RACES {
            match openat2(&self.0, relative(path), how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // Linux before 5.6, or a seccomp filter that is as old.
                Err(Errno::ENOSYS | Errno::EPERM) => {
                    let symlinks = if more.contains(ResolveFlag::RESOLVE_NO_SYMLINKS) {
                        Symlinks::Refuse
                    } else {
                        Symlinks::Follow
                    };
                    return walk::open(self.0.as_fd(), path, flags, symlinks);
                }
                done => return done,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Opens `path` as O_PATH; what is missing on the way is made, inside the root, with
    /// mode 0755. A symlink that leads nowhere is followed, inside the root, to the place
    /// that it names.
    ///
    /// # Errors
    /// The call that failed; ENOTDIR where a file is in the way.
    pub(crate) fn open_or_make(&self, path: &Path, missing: Missing) -> Result<OwnedFd, CallError> {
        match self.openat2(path, OFlag::O_PATH, ResolveFlag::empty()) {
            Err(Errno::ENOENT) => {
                walk::open_or_make(self.0.as_fd(), path, missing).map_err(|stop| stop.naming(path))
            }
            done => done.called(|| format!("openat2({:?})", relative(path))),
        }
    }
}

impl AsFd for RootFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `path` without its leading slashes, and `.` for the root: openat2(2) takes an empty path
/// for an error.
fn relative(path: &Path) -> &Path {
    match path.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => Path::new("."),
        Ok(rest) => rest,
        Err(_) => path,
    }
}

/// The `S_IFMT` bits of what `fd` refers to.
///
/// # Errors
/// fstat(2)'s.
pub(crate) fn file_type(fd: impl AsFd) -> Result<SFlag, Errno> {
    let mode = fstat(fd)?.st_mode;
    Ok(SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()))
}

/// Opens a path that the host controls as O_PATH.
///
/// # Errors
/// open(2)'s.
pub(crate) fn open_host_path(path: &Path) -> Result<OwnedFd, CallError> {
    openat(
        AT_FDCWD,
        path,
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .called(|| format!("open({path:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn symlinks_stay_inside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).expect("made");
        for (link, target) in [
            ("out", "../../../../.."),
            ("abs", "/etc"),
            ("dangling", "/run/x/y"),
            ("up", "etc/../../../new"),
        ] {
            symlink(target, root.join(link)).expect("linked");
        }
        let fd = RootFd::open(&root).expect("opened");
        for path in [
            "/out/made1",
            "/abs/made2",
            "/dangling/made3",
            "/up/made4",
            "a/b/../../c",
        ] {
            fd.open_or_make(Path::new(path), Missing::Directory)
                .expect(path);
        }
        for made in [
            "made1",
            "etc/made2",
            "run/x/y/made3",
            "new/made4",
            "a/b",
            "c",
        ] {
            assert!(root.join(made).is_dir(), "{made}");
        }
        let names: Vec<_> = fs::read_dir(dir.path()).expect("listed").collect();
        assert_eq!(names.len(), 1, "nothing is made outside: {names:?}");
    }

    #[test]
    fn a_missing_file_is_made_with_its_directories() {
        let dir = tempfile::tempdir().expect("temporary directory");
        symlink("/run/resolv.conf", dir.path().join("resolv.conf")).expect("linked");
        let fd = RootFd::open(dir.path()).expect("opened");
        fd.open_or_make(Path::new("/resolv.conf"), Missing::File)
            .expect("made");
        assert!(dir.path().join("run/resolv.conf").is_file());
    }

    #[test]
    fn a_symlink_loop_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        symlink("b", dir.path().join("a")).expect("linked");
        symlink("a", dir.path().join("b")).expect("linked");
        let fd = RootFd::open(dir.path()).expect("opened");
        let error = fd
            .open_or_make(Path::new("/a/x"), Missing::Directory)
            .expect_err("loops");
        assert_eq!(error.errno, Errno::ELOOP);
    }

    #[test]
    fn symlinks_can_be_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        symlink("/etc", dir.path().join("proc")).expect("linked");
        let fd = RootFd::open(dir.path()).expect("opened");
        let error = fd
            .open_without_symlinks(Path::new("/proc"), OFlag::O_PATH)
            .expect_err("is refused");
        assert_eq!(error.errno, Errno::ELOOP);
    }
}
