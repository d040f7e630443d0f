//! What lies on disk: blobs, layers, images, names and bundles.
//!
//! ```text
//! <store>/                      0700, on btrfs where there is one
//!   meta.json                   version of this layout, and how trees are kept
//!   locks/                      one file a lock (flock)
//!   blobs/sha256/<hex>          manifests and configs, raw bytes; layers only where they are kept
//!   partial/sha256-<hex>        what a broken pull had fetched of a blob
//!   layers/sha256-<chain>       read-only tree: the chain's whole root
//!   layers/sha256-<chain>.json  its record; without one it counts for nothing
//!   images/sha256-<manifest>.json   what an image needs
//!   refs/sha256-<of the name>.json  a name and its image
//!   mounts/                     what is mounted outside of a container, and where
//!   bundles/<id>/               config.json, rootfs (writable copy), gocker.json
//! ```
//!
//! Whatever is made is recorded last, and whatever goes loses its record
//! first. So a crash leaves only things without a record, which
//! [`Store::sweep`] removes as soon as nobody holds their lock.

mod blob;
mod bundle;
mod fsck;
mod gc;
mod layer;
mod layer_blob;
mod layout;
mod lock;
mod mount_table;
mod mounts;
mod partial;
mod place;
mod quota;
mod record;
mod room;
#[cfg(test)]
mod tests;
mod trees;
mod usage;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use blob::Flush;

use crate::btrfs;
use crate::digest::Digest;
use crate::errno::CallError;
use crate::loop_device::{self, LoopError};

pub use bundle::BundleDraft;
pub use fsck::{Checked, Depth, Finding, FindingKind, FsckOptions, FsckReport, Outcome, Repair};
pub use gc::{Removed, Unused};
pub use layer::{Claim, Draft, Held, Settled, ToMake};
pub use layer_blob::{BlobDraft, KeptBlob};
pub use layout::{BundleId, BundleIdError};
pub use lock::Lock;
pub use mounts::MountRecord;
pub use partial::Partial;
pub use place::Backing;
pub use record::{
    BundleOwner, BundleRecord, ImageRecord, LayerRecord, Origin, RefRecord, Taking, now,
};
pub use room::{Place, Room};
pub use trees::Trees;
pub use usage::{BackingFile, FileSystemUsage, ItemUsage, KindUsage, Usage};

/// The version of the layout above.
const VERSION: u32 = 1;

/// Where a store lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory that it lies in, made if it is missing.
    pub root: PathBuf,
    /// The size of the sparse file that is made where `root` is not on btrfs.
    /// None: three quarters of the free space, but at least 1 GiB if there is so
    /// much.
    pub loop_bytes: Option<u64>,
    /// How trees are kept.
    pub backing: Backing,
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There is no btrfs to keep layers on.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// The store was made by another version of this program.
    #[error("store {path:?} has version {found}, and this program knows version {VERSION}")]
    Version {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The store keeps trees otherwise than it is asked to.
    #[error("store {path:?} keeps its layers as {}", .found.in_words())]
    Backing {
        /// The store.
        path: PathBuf,
        /// How it keeps them.
        found: Trees,
    },
    /// A record is not what this program writes.
    #[error("record {path:?}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A record cannot be written as JSON.
    #[error("encode a record")]
    Encode(#[source] serde_json::Error),
    /// A blob has another digest than its name.
    #[error("blob {expected} is damaged: its bytes have the digest {actual}")]
    Damaged {
        /// What its name says.
        expected: Digest,
        /// What its bytes say.
        actual: Digest,
    },
    /// A layer was removed by another process while it was in use.
    #[error("layer {0} was removed by another process")]
    Vanished(Digest),
    /// A tree was written to while it was copied, where there are no snapshots.
    #[error("{0:?} has changed while the root was copied")]
    Moved(PathBuf),
    /// A draft was settled twice.
    #[error("the layer is settled already")]
    Settled,
    /// There is a bundle of that name.
    #[error("bundle {0:?} exists already")]
    BundleExists(String),
    /// There is no bundle of that name.
    #[error("bundle {0:?} does not exist")]
    NoBundle(String),
    /// Nothing of that name is mounted.
    #[error("{0:?} is not mounted")]
    NotMounted(String),
    /// The root of that bundle is mounted.
    #[error("bundle {0:?} is mounted at {1:?}; umount takes it away")]
    Mounted(String, PathBuf),
    /// Another process works on that bundle.
    #[error("bundle {0:?} is in use by another command")]
    BundleBusy(String),
    /// Trees that are copies have no quotas.
    #[error("store {path:?} keeps its layers as {}, which have no quotas", .found.in_words())]
    NoQuotas {
        /// The store.
        path: PathBuf,
        /// How it keeps them.
        found: Trees,
    },
    /// Quotas are off on a file system of the user's own.
    #[error("quotas are off on the file system of store {0:?}, which is not the store's own")]
    QuotasOff(PathBuf),
    /// Not enough space is left for what is to come.
    #[error("no space left in {path:?}: {needed} bytes are needed, {free} are free")]
    Full {
        /// Where.
        path: PathBuf,
        /// What is full there.
        place: Place,
        /// What is to come, at least.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// Something found no space where it was to go.
    #[error("the store in {path:?} is full, all {size} bytes of it")]
    Filled {
        /// Where.
        path: PathBuf,
        /// What is full there.
        place: Place,
        /// How large it is.
        size: u64,
        /// What found no space.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// What a user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Loop(error) => error.hint(),
            Self::Moved(_) => Some("pause or stop the container while its changes are taken"),
            Self::Backing { .. } => Some("leave --backing out, or choose another --root"),
            Self::NoQuotas { .. } => Some("quotas need a store on btrfs, or in a file with one"),
            Self::QuotasOff(_) => {
                Some("btrfs quota enable turns them on, at a cost, for all of that file system")
            }
            Self::BundleExists(_) => Some("unbundle removes it, by its id or its directory"),
            Self::Record { .. } => Some("gocker-image fsck --repair removes what is damaged"),
            Self::Full { place, .. } | Self::Filled { place, .. } => Some(place.hint()),
            Self::Call(error) if error.is_full() => Some(Place::FileSystem.hint()),
            _ => None,
        }
    }
}

/// An open store, which no other process rebuilds while it is open.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// The directory that was asked for; the store's own or the one around it.
    root: PathBuf,
    /// Shared, for as long as the store is open.
    lock: Lock,
    trees: Trees,
    /// Whether this program has turned quotas on.
    quotas: bool,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    #[serde(default)]
    trees: Trees,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    quotas: bool,
}

impl Meta {
    /// That of a store that is new.
    fn new(trees: Trees) -> Self {
        Self {
            version: VERSION,
            trees,
            quotas: false,
        }
    }
}

impl Store {
    /// Opens the store in `options.root`, and makes it if it is missing.
    /// `announce` is told, in one line, if a file system is made for it.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to another version.
    pub fn open(options: &Options, announce: &dyn Fn(&str)) -> Result<Self, StoreError> {
        let root = &options.root;
        make_root(root)?;
        let root = root
            .canonicalize()
            .map_err(|error| CallError::new("realpath", root, error))?;
        let (path, trees) = place::provide(&root, options, announce)?;
        let store = Self::open_at(path, root, trees)?;
        if options.backing.allows(store.trees) {
            return Ok(store);
        }
        let (path, found) = (store.path, store.trees);
        Err(StoreError::Backing { path, found })
    }

    /// Opens the store in `options.root` if there is one.
    ///
    /// # Errors
    /// When it cannot be opened, or belongs to another version.
    pub fn find(options: &Options) -> Result<Option<Self>, StoreError> {
        if place::is_made(&options.root)? {
            return Self::open(options, &|_| {}).map(Some);
        }
        Ok(None)
    }

    /// `trees` is how a store that is new keeps its trees.
    fn open_at(path: PathBuf, root: PathBuf, trees: Trees) -> Result<Self, StoreError> {
        close_to_others(&path)?;
        for directory in layout::DIRECTORIES {
            make_dir(&path.join(directory))?;
        }
        let lock = Lock::shared(&path.join("locks/store"))?;
        let meta_path = path.join(layout::META);
        if !meta_path.exists() {
            let meta = blob::encode(&Meta::new(trees))?;
            blob::write_new(&meta_path, &meta, Flush::Now)?;
        }
        // another command may have written it first
        match blob::read(&meta_path)? {
            Some(Meta {
                version: VERSION,
                trees,
                quotas,
            }) => Ok(Self {
                path,
                root,
                lock,
                trees,
                quotas,
            }),
            meta => {
                let found = meta.map_or(0, |meta| meta.version);
                Err(StoreError::Version { path, found })
            }
        }
    }

    /// Where the store's own directories lie.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the store lies on a btrfs that was made for it alone.
    fn has_own_file_system(&self) -> bool {
        self.path != self.root
    }

    /// Holds what `kind` and `digest` name, so that garbage collection leaves
    /// it alone.
    ///
    /// # Errors
    /// When the lock cannot be had.
    pub fn hold(&self, kind: HoldKind, digest: &Digest) -> Result<Lock, StoreError> {
        Ok(Lock::shared(&self.lock_path(&kind.lock(digest)))?)
    }

    /// Lets the file that the store lies in grow to `size_bytes`. Returns the size that it had.
    ///
    /// # Errors
    /// When there is no such file, it would shrink, or the disk around it is too small.
    pub fn grow(&self, size_bytes: u64) -> Result<u64, StoreError> {
        if !self.has_own_file_system() {
            return Err(LoopError::NoFile(self.root.clone()).into());
        }
        Ok(loop_device::grow(&self.root, size_bytes)?)
    }

    /// Waits until all that was written is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sync(&self) -> Result<(), StoreError> {
        let dir = self.open_dir("layers")?;
        Ok(self.trees.sync(dir.as_fd())?)
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.path.join("locks").join(name)
    }

    fn open_dir(&self, name: &str) -> Result<File, CallError> {
        let path = self.path.join(name);
        File::open(&path).map_err(|error| CallError::new("open", path, error))
    }
}

/// What [`Store::hold`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldKind {
    /// A manifest, a config, or the blob of a layer that is kept.
    Blob,
    /// An image's record.
    Image,
}

impl HoldKind {
    fn lock(self, digest: &Digest) -> String {
        let kind = match self {
            Self::Blob => "blob",
            Self::Image => "image",
        };
        format!("{kind}-{}", layout::name(digest))
    }
}

/// Makes the root with mode 0700: as a subvolume of its own where its parent
/// is on btrfs.
fn make_root(root: &Path) -> Result<(), StoreError> {
    if root.exists() {
        return Ok(());
    }
    if let (Some(parent), Some(name)) = (root.parent(), root.file_name()) {
        let parent = if parent == Path::new("") {
            Path::new(".")
        } else {
            parent
        };
        let made = DirBuilder::new().recursive(true).create(parent);
        made.map_err(|error| CallError::new("mkdir", parent, error))?;
        let dir = File::open(parent).map_err(|error| CallError::new("open", parent, error))?;
        if btrfs::is_btrfs(dir.as_fd())? {
            match btrfs::create_subvolume(dir.as_fd(), name) {
                Ok(_) => return close_to_others(root),
                Err(error) if error.errno() == Some(nix::errno::Errno::EEXIST) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(make_dir(root)?)
}

/// Images hold set-user-id files of all ages: nobody else may reach them.
fn close_to_others(path: &Path) -> Result<(), StoreError> {
    let closed = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    Ok(closed.map_err(|error| CallError::new("chmod", path, error))?)
}

/// Makes a directory, mode 0700, that may exist.
fn make_dir(path: &Path) -> Result<(), CallError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CallError::new("mkdir", path, error))
        }
        _ => Ok(()),
    }
}
