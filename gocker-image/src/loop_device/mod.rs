//! The loop-backed default: where a store's root does not lie on btrfs, a
//! sparse file in it is formatted and mounted.
//!
//! ```text
//! <root>/store.btrfs   sparse file, made by mkfs.btrfs
//! <root>/store.lock    two commands that begin at once take turns
//! <root>/store/        where it is mounted; the store itself
//! ```
//!
//! The mount is made in the mount namespace of the caller and stays. After a
//! reboot, or in another namespace, the next command mounts the file again.
//! The loop device goes away by itself with the last mount.

mod device;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use crate::btrfs;
use crate::errno::CallError;

use device::{attach, find_attached};

/// The least size of a store that is made without being asked for a size.
const MIN_BYTES: u64 = 1 << 30;
/// Below this size, data and metadata share one pool.
const MIXED_BYTES: u64 = 1 << 30;
/// What btrfs itself demands.
const LEAST_BYTES: u64 = 128 << 20;
/// The least size that btrfs lets itself be changed to.
const LEAST_GROWN_BYTES: u64 = 256 << 20;
/// Sectors as large as those of btrfs let the loop driver bypass the page
/// cache of the file system below.
const BLOCK_BYTES: u32 = 4096;

/// Why there is no loop-backed store.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// `mkfs.btrfs` is not installed.
    #[error("{0:?} is not on btrfs, and mkfs.btrfs, which makes one, is not installed")]
    NoMkfs(PathBuf),
    /// `mkfs.btrfs` failed.
    #[error("mkfs.btrfs {file:?}: {message}")]
    Mkfs {
        /// The file it was to format.
        file: PathBuf,
        /// What it said, on one line.
        message: String,
    },
    /// There are no loop devices, or they are not for this user.
    #[error(transparent)]
    NoDevice(CallError),
    /// The size that was asked for is too small.
    #[error("a btrfs file system of {0} bytes is too small: it needs {LEAST_BYTES}")]
    TooSmall(u64),
    /// The size that it was to grow to is too small.
    #[error("a btrfs file system does not grow to {0} bytes, but to {LEAST_GROWN_BYTES} or more")]
    GrownTooSmall(u64),
    /// The store lies on a file system of the user's own.
    #[error("{0:?} has no file of its own that could grow")]
    NoFile(PathBuf),
    /// The store lies in no file, and a size of it was asked for.
    #[error("the store in {0:?} lies in no file that could be of a size")]
    NotInFile(PathBuf),
    /// The store was made with another size than is asked for.
    #[error("the store in {file:?} has {now} bytes, not {asked}")]
    OtherSize {
        /// The file.
        file: PathBuf,
        /// Its size.
        now: u64,
        /// What was asked for.
        asked: u64,
    },
    /// It was asked to become smaller.
    #[error("the store in {file:?} has {now} bytes already, and does not shrink")]
    Shrink {
        /// The file.
        file: PathBuf,
        /// Its size.
        now: u64,
    },
    /// The disk around it is too small for what it was asked to become.
    #[error(
        "no space left around {file:?}: it may come to need {needed} bytes more, {free} are free"
    )]
    NoRoom {
        /// The file.
        file: PathBuf,
        /// What it may take beyond what it has.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// The kernel refused to mount it.
    #[error("mount {file:?} at {target:?}")]
    Mount {
        /// The formatted file.
        file: PathBuf,
        /// Where it was to be mounted.
        target: PathBuf,
        /// Why.
        source: CallError,
    },
}

impl LoopError {
    /// Whether something is missing here that a loop-backed store takes, in itself and not for
    /// want of space.
    #[must_use]
    pub fn is_lack(&self) -> bool {
        match self {
            Self::NoMkfs(_) | Self::NoDevice(_) => true,
            Self::Mount { source, .. } => matches!(
                source.errno(),
                Some(Errno::ENODEV | Errno::EPERM | Errno::EACCES)
            ),
            _ => false,
        }
    }

    /// What a user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoFile(_) => Some("it grows with the file system that it lies on"),
            Self::NotInFile(_) => Some("leave --loop-size out"),
            Self::OtherSize { .. } => {
                Some("leave --loop-size out; gocker-image grow makes a store larger")
            }
            Self::NoRoom { .. } => Some("free some space around the store, or ask for less"),
            Self::NoMkfs(_) => Some("apt-get install btrfs-progs, or choose a --root on btrfs"),
            Self::Mount { source, .. } if source.errno() == Some(Errno::ENODEV) => {
                Some("this kernel has no btrfs: modprobe btrfs")
            }
            Self::Call(error) | Self::NoDevice(error) | Self::Mount { source: error, .. } => {
                match error.errno() {
                    Some(Errno::EPERM | Errno::EACCES) => Some("mounting needs root"),
                    Some(Errno::ENOSPC) => Some("free some space, or choose another --root"),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Whether a store was made in `root` before.
#[must_use]
pub fn is_made(root: &Path) -> bool {
    root.join("store.btrfs").exists()
}

/// Mounts the store of `root`, made first if it is missing, and says where.
/// `size_bytes` is the size of one that is made; None takes three quarters of
/// the free space, but at least 1 GiB if there is so much. `announce` is told once when one is
/// made.
///
/// # Errors
/// When it can neither be made nor mounted.
pub fn provide(
    root: &Path,
    size_bytes: Option<u64>,
    announce: &dyn Fn(&str),
) -> Result<PathBuf, LoopError> {
    let (file, target) = (root.join("store.btrfs"), root.join("store"));
    if is_mounted(root, &target)? {
        return Ok(target);
    }
    let _lock = lock(root)?;
    if is_mounted(root, &target)? {
        return Ok(target);
    }
    if file.exists() {
        mount_file(&file, &target)?;
        return Ok(target);
    }
    let size = make(root, &file, size_bytes)?;
    if let Err(error) = mount_file(&file, &target) {
        // nothing is in it yet, and the next command may go about it otherwise
        drop((fs::remove_file(&file), fs::remove_dir(&target)));
        return Err(error);
    }
    announce(&format!(
        "{} is not on btrfs: made {} (sparse, up to {}), mounted at {}",
        root.display(),
        file.display(),
        in_words(size),
        target.display()
    ));
    Ok(target)
}

/// Mounts the formatted `file` at the directory `target`, which is made if it is missing.
fn mount_file(file: &Path, target: &Path) -> Result<(), LoopError> {
    match DirBuilder::new().mode(0o700).create(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(CallError::new("mkdir", target, error).into());
        }
        _ => {}
    }
    let device = attach(file)?;
    // No nosuid and no nodev: container root file systems inherit the flags.
    mount(
        Some(&device.path),
        target,
        Some("btrfs"),
        MsFlags::MS_NOATIME,
        Some("discard=async"),
    )
    .map_err(|errno| LoopError::Mount {
        source: CallError::new("mount", &device.path, errno),
        file: file.to_owned(),
        target: target.to_owned(),
    })?;
    // what a grow that was killed had not come to
    grow_mounted(file, target).map_err(|error| {
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            // the error to report is the one that came first
            Ok(()) | Err(_) => error.into(),
        }
    })
}

/// Lets the file system in `file` have all of it, if btrfs can change to that size.
fn grow_mounted(file: &Path, target: &Path) -> Result<(), CallError> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| CallError::new("stat", file, error))?;
    if metadata.len() < LEAST_GROWN_BYTES {
        return Ok(());
    }
    let mounted = File::open(target).map_err(|error| CallError::new("open", target, error))?;
    btrfs::grow_to_device(mounted.as_fd())
}

/// What a store takes in the file system around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSize {
    /// How large the file system in the file may become.
    pub bytes: u64,
    /// What of it the file has.
    pub allocated_bytes: u64,
}

/// The size of the file that the store of `root` lies in; None if it lies in none.
#[must_use]
pub fn file_size(root: &Path) -> Option<FileSize> {
    let metadata = root.join("store.btrfs").metadata().ok()?;
    Some(FileSize {
        bytes: metadata.len(),
        allocated_bytes: metadata.blocks() * 512,
    })
}

/// Checks that the store of `root`, which is made, has the size that is asked for.
///
/// # Errors
/// When it has another.
pub fn check_size(root: &Path, asked: u64) -> Result<(), LoopError> {
    let size = file_size(root).ok_or_else(|| LoopError::NotInFile(root.to_owned()))?;
    let (file, now) = (root.join("store.btrfs"), size.bytes);
    // one that has grown to this size
    if asked == now || whole_blocks(asked) == now {
        return Ok(());
    }
    Err(LoopError::OtherSize { file, now, asked })
}

fn whole_blocks(bytes: u64) -> u64 {
    bytes / u64::from(BLOCK_BYTES) * u64::from(BLOCK_BYTES)
}

/// Lets the mounted store of `root` grow to `size_bytes`, while it is used. What a grow that was
/// killed had not come to is done by the next. Returns the size that it had.
///
/// # Errors
/// When it lies in no file, would shrink, or the disk around it is too small.
pub fn grow(root: &Path, size_bytes: u64) -> Result<u64, LoopError> {
    let (path, target) = (root.join("store.btrfs"), root.join("store"));
    let Some(old) = file_size(root) else {
        return Err(LoopError::NoFile(root.to_owned()));
    };
    let _lock = lock(root)?;
    let size = whole_blocks(size_bytes);
    if size < old.bytes {
        let (file, now) = (path, old.bytes);
        return Err(LoopError::Shrink { file, now });
    }
    if size < LEAST_GROWN_BYTES {
        return Err(LoopError::GrownTooSmall(size));
    }
    let (needed, free) = (size - old.allocated_bytes.min(size), free_bytes(root)?);
    if needed > free {
        let file = path;
        return Err(LoopError::NoRoom { file, needed, free });
    }
    let file = open(&path, OpenOptions::new().read(true).write(true))?;
    let error = |call| move |error: io::Error| CallError::new(call, "store.btrfs", error);
    file.set_len(size).map_err(error("ftruncate"))?;
    file.sync_all().map_err(error("fsync"))?;
    if let Some(device) = find_attached(&file)? {
        device.take_size()?;
    }
    grow_mounted(&path, &target)?;
    Ok(old.bytes)
}

/// Keeps other commands from making, mounting or growing the store of `root`.
fn lock(root: &Path) -> Result<Flock<File>, CallError> {
    let path = root.join("store.lock");
    let file = open(&path, OpenOptions::new().write(true).create(true))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| CallError::new("flock", path, errno))
}

fn free_bytes(root: &Path) -> Result<u64, CallError> {
    let stat = statvfs(root).map_err(|errno| CallError::new("statvfs", root, errno))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Unmounts the store of `root`. The file stays.
///
/// # Errors
/// When it is in use.
pub fn release(root: &Path) -> Result<(), CallError> {
    let target = root.join("store");
    umount2(&target, MntFlags::UMOUNT_NOFOLLOW)
        .map_err(|errno| CallError::new("umount", target, errno))
}

/// Whether `target` is a mounted btrfs, not a directory of `root`'s own.
fn is_mounted(root: &Path, target: &Path) -> Result<bool, CallError> {
    let Ok(dir) = File::open(target) else {
        return Ok(false);
    };
    let device = |path: &Path| {
        let metadata = fs::metadata(path);
        metadata
            .map(|m| m.dev())
            .map_err(|error| CallError::new("stat", path, error))
    };
    Ok(device(root)? != device(target)? && btrfs::is_btrfs(dir.as_fd())?)
}

/// Makes and formats the sparse file; nothing is left of one that failed.
fn make(root: &Path, file: &Path, size_bytes: Option<u64>) -> Result<u64, LoopError> {
    let size = match size_bytes {
        Some(size) if size < LEAST_BYTES => return Err(LoopError::TooSmall(size)),
        Some(size) => size,
        None => default_size(root)?,
    };
    let unfinished = root.join("store.btrfs.new");
    let made = (|| {
        let sparse = open(
            &unfinished,
            OpenOptions::new().write(true).create(true).truncate(true),
        )?;
        let error = |error| CallError::new("ftruncate", &unfinished, error);
        sparse.set_len(size).map_err(error)?;
        format(root, &unfinished, size)?;
        sparse
            .sync_all()
            .map_err(|error| CallError::new("fsync", &unfinished, error))?;
        fs::rename(&unfinished, file).map_err(|error| CallError::new("rename", file, error))?;
        Ok(size)
    })();
    if made.is_err() {
        // The error to report is the one that came first.
        drop(fs::remove_file(&unfinished));
    }
    made
}

fn default_size(root: &Path) -> Result<u64, CallError> {
    let free = free_bytes(root)?;
    // Never more than there is: a sparse file that cannot grow any more is an
    // I/O error to the file system in it, not a full disk.
    let size = (free / 4 * 3).max(MIN_BYTES).min(free / 16 * 15) >> 20 << 20;
    if size < LEAST_BYTES {
        return Err(CallError::new("make a file system", root, Errno::ENOSPC));
    }
    Ok(size)
}

/// Runs `mkfs.btrfs`. One copy of metadata: a second one in the same file
/// would only cost writing. A small file system has one pool for data and
/// metadata, or one of them would be full long before the other.
fn format(root: &Path, file: &Path, size: u64) -> Result<(), LoopError> {
    let pools: &[&str] = if size < MIXED_BYTES { &["-M"] } else { &[] };
    for program in ["mkfs.btrfs", "/usr/sbin/mkfs.btrfs", "/sbin/mkfs.btrfs"] {
        let output = Command::new(program)
            .args([
                "-q", "-f", "-K", "-L", "gocker", "-m", "single", "-d", "single",
            ])
            .args(pools)
            .arg(file)
            .output();
        let output = match output {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            output => output.map_err(|error| CallError::new("execve", program, error))?,
        };
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        let lines = message
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        return Err(LoopError::Mkfs {
            file: file.to_owned(),
            message: lines.collect::<Vec<_>>().join("; "),
        });
    }
    Err(LoopError::NoMkfs(root.to_owned()))
}

fn open(path: &Path, options: &mut OpenOptions) -> Result<File, CallError> {
    let file = options.mode(0o600).open(path);
    file.map_err(|error| CallError::new("open", path, error))
}

fn in_words(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{} MiB", bytes >> 20),
        gib => format!("{gib} GiB"),
    }
}
