//! Changes what `/` is.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use super::error::{Error, in_root};
use crate::sys::in_root::RootFd;
use crate::sys::mount_by_path::unescape;
use crate::sys::{CallError, Called};

/// The way to the new `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pivot {
    /// pivot_root(2): the host's tree is unmounted from the container's namespace.
    Swap,
    /// `--no-pivot`: the root is moved over `/`, for an initramfs, which cannot be pivoted.
    Move,
    /// The container shares the runtime's mount namespace: chroot(2).
    Chroot,
}

/// Makes `root`, mounted at the host's path `path`, the `/` of the calling process.
///
/// Runs in: container namespace.
///
/// # Errors
/// The call that failed.
pub(crate) fn enter(root: &RootFd, path: &Path, way: Pivot) -> Result<(), Error> {
    match way {
        Pivot::Swap => pivot(root).map_err(in_root("pivot_root")),
        Pivot::Move => move_root(root, path).map_err(in_root("move the root")),
        Pivot::Chroot => {
            fchdir(root.as_fd())
                .called(|| "fchdir(root)".into())
                .map_err(in_root("chroot"))?;
            chroot(".")
                .called(|| "chroot(\".\")".into())
                .map_err(in_root("chroot"))?;
            chdir("/")
                .called(|| "chdir(\"/\")".into())
                .map_err(in_root("chroot"))
        }
    }
}

fn pivot(root: &RootFd) -> Result<(), CallError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let old = nix::fcntl::open("/", flags, Mode::empty()).called(|| "open(\"/\")".into())?;
    fchdir(root.as_fd()).called(|| "fchdir(root)".into())?;
    // The old root lands on top of the new one: no directory has to be found for it.
    pivot_root(".", ".").called(|| "pivot_root(\".\", \".\")".into())?;
    fchdir(&old).called(|| "fchdir(old root)".into())?;
    // Unmounting must not reach the host, whatever the propagation was.
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, ".", None::<&str>, slave, None::<&str>)
        .called(|| "mount(\".\", SLAVE|REC)".into())?;
    umount2(".", MntFlags::MNT_DETACH).called(|| "umount2(\".\", DETACH)".into())?;
    chdir("/").called(|| "chdir(\"/\")".into())
}

fn move_root(root: &RootFd, path: &Path) -> Result<(), CallError> {
    unmount_kernel_filesystems(path)?;
    fchdir(root.as_fd()).called(|| "fchdir(root)".into())?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .called(|| "mount(\".\", \"/\", MOVE)".into())?;
    chroot(".").called(|| "chroot(\".\")".into())?;
    chdir("/").called(|| "chdir(\"/\")".into())
}

/// The host's tree stays below the moved root, where a process with CAP_SYS_ADMIN may reach
/// it: at least no procfs and sysfs without masks are left in it.
fn unmount_kernel_filesystems(root: &Path) -> Result<(), CallError> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")
        .called(|| "read(/proc/self/mountinfo)".into())?;
    let mut points: Vec<PathBuf> = text.lines().filter_map(kernel_mount_point).collect();
    points.retain(|point| !point.starts_with(root));
    // Inner mounts come after the ones they are on.
    for point in points.iter().rev() {
        match umount2(point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => {
                return Err(CallError {
                    call: format!("umount2({point:?}, DETACH)"),
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// The mount point of a line of mountinfo that is a procfs or sysfs, unescaped.
///
/// Spec: proc_pid_mountinfo(5)
fn kernel_mount_point(line: &str) -> Option<PathBuf> {
    let (fields, kind) = line.split_once(" - ")?;
    let kind = kind.split(' ').next()?;
    let point = fields.split(' ').nth(4)?;
    matches!(kind, "proc" | "sysfs").then(|| unescape(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_mount_points() {
        let cases = [
            (
                "23 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw",
                Some("/proc"),
            ),
            ("24 1 0:22 / /a\\040b rw - sysfs sysfs rw", Some("/a b")),
            ("25 1 254:1 / / rw - ext4 /dev/vda rw", None),
            ("nonsense", None),
        ];
        for (line, expected) in cases {
            assert_eq!(
                kernel_mount_point(line),
                expected.map(PathBuf::from),
                "{line}"
            );
        }
    }
}
