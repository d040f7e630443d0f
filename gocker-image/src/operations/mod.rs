//! What a user can ask for, one file each: joins registry, store and unpack,
//! which do not know each other.
//!
//! ```text
//! pull     registry -> trust -> documents -> unpack -> names
//! push     store -> registry
//! load     archive or directory -> unpack -> names
//! save     store -> archive or directory
//! unpack   store <- layers <- blobs
//! bundle   store, image config -> writable snapshot, config.json
//! diff     two trees -> changes
//! mount    a root, read-only, elsewhere
//! commit   changes -> layer -> documents -> unpack -> name
//! list, inspect, remove, prune, unbundle, fsck, usage   store
//! ```

mod annotations;
mod bundle;
mod commit;
mod committed;
mod config_change;
mod content;
mod diff;
mod documents;
mod failure;
mod fetch;
mod fsck;
mod history;
mod image_source;
mod inspect;
mod list;
mod load;
mod mount;
mod options;
mod package;
mod prune;
mod pull;
mod push;
mod remove;
mod roots;
mod runtime_config;
mod save;
mod saved_images;
mod tag;
mod unbundle;
mod unpack;
mod usage;
mod user;
mod verify;

use anyhow::Context as _;

use crate::digest::Digest;
use crate::errno::{errno_of, means_full};
use crate::image::{Descriptor, ImageConfig, ImageError, Manifest, PlatformChoice};
use crate::loop_device::LoopError;
use crate::reference::Reference;
use crate::registry::RegistryError;
use crate::store::{HoldKind, ImageRecord, Lock, Options, Store, StoreError};

pub use bundle::{BundleRequest, Place, bundle};
pub use commit::{CommitOptions, Committed, Squash, commit};
pub use config_change::{ConfigChange, ConfigChangeError};
pub use diff::diff;
pub use failure::Failure;
pub use fetch::LayerBlobs;
pub use fsck::fsck;
pub use history::{Step, StepLayer, history};
pub use image_source::LoadFrom;
pub use inspect::{Inspection, inspect};
pub use list::{Listed, list};
pub use load::{LoadOptions, Loaded, load};
pub use mount::{mount, mounts, umount};
pub use options::{
    CapabilityOption, DeviceOption, MountFlag, MountOption, OptionError, PairOption, RunOptions,
    SecurityOption, TmpfsFlag, Ulimit, VolumeFlag, parse_signal,
};
pub use prune::prune;
pub use pull::{ForeignLayers, PullOptions, Pulled, pull};
pub use push::{PushOptions, Pushed, push};
pub use remove::{RemovedImage, remove};
pub use roots::Rooted;
pub use runtime_config::{Network, Overrides, Volumes};
pub use save::{SaveFormat, SaveTo, Saved, save};
pub use tag::tag;
pub use unbundle::{find_bundle, look_for_bundle, unbundle};
pub use usage::{grow, usage};
pub use verify::Trust;

/// What helps when the store's file system is full.
const FULL_HINT: &str = "remove images that are not needed (rm, prune)";

/// What an operation says while it goes on.
pub trait Progress: Sync {
    /// Something happened to the layer that the blob `layer` holds.
    fn layer(&self, layer: &Digest, event: LayerEvent);
    /// Something that a user should know.
    fn warn(&self, text: &str);
    /// Something that goes on, said once.
    fn note(&self, text: &str);
}

/// What happens to a layer that is pulled, pushed or copied, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerEvent {
    /// It is here already; nothing more follows.
    Exists,
    /// It is at the registry already; nothing more follows.
    Present,
    /// The registry took it over from another repository; nothing more follows.
    Mounted,
    /// Another process unpacks it; it is waited for.
    Waiting,
    /// It is about to be transferred, this many bytes.
    Begin {
        /// The size of its blob.
        bytes: u64,
    },
    /// This many more bytes were transferred.
    Advance {
        /// Since the last event.
        bytes: u64,
    },
    /// It is verified and where it was to go.
    Done,
}

/// Opens the store, made if it is missing, and removes what killed commands
/// left in it.
///
/// # Errors
/// When it cannot be made or opened.
pub fn open_store(options: &Options, progress: &dyn Progress) -> anyhow::Result<Store> {
    let open = || -> Result<Store, StoreError> {
        let store = Store::open(options, &|text| progress.note(text))?;
        store.sweep()?;
        Ok(store)
    };
    open().with_context(|| format!("open store {:?}", options.root))
}

/// Opens the store if there is one; nothing is made.
///
/// # Errors
/// When it cannot be opened.
pub fn find_store(options: &Options) -> anyhow::Result<Option<Store>> {
    Store::find(options).with_context(|| format!("open store {:?}", options.root))
}

/// What a user can do about `error`, if anything in its chain knows.
#[must_use]
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = registry_error(cause) {
            return error.hint();
        }
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<LoopError>() {
            return error.hint().map(str::to_owned);
        }
        errno_of(cause)
            .is_some_and(means_full)
            .then(|| FULL_HINT.to_owned())
    })
}

/// What a registry has to do with `cause`.
fn registry_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a RegistryError> {
    // An io::Error shows its content, but does not name it as its cause.
    let inner = cause
        .downcast_ref::<std::io::Error>()
        .and_then(|error| error.get_ref())
        .and_then(|inner| inner.downcast_ref::<RegistryError>());
    cause.downcast_ref::<RegistryError>().or(inner)
}

/// Whether the store's file system is full.
fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(StoreError::Full { .. }))
            || errno_of(cause).is_some_and(means_full)
    })
}

/// Whether the network failed, and not what came over it.
fn is_of_the_network(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(registry_error);
    causes.any(RegistryError::is_of_the_network)
}

/// Checks an image's config against its manifest and against what was asked for. An image of
/// another machine is let in with a warning.
fn check_config(
    config: &ImageConfig,
    manifest: &Manifest,
    choice: &PlatformChoice,
    progress: &dyn Progress,
) -> Result<(), ImageError> {
    manifest.check_config(config)?;
    config.check_platform(choice)?;
    if config.is_foreign() {
        let platform = config.platform();
        progress.warn(&format!(
            "the image is for {platform}, which this machine is not"
        ));
    }
    Ok(())
}

/// Whether a layer is not handed on because the manifest names its address; it is said then.
fn stays_elsewhere(layer: &Descriptor, progress: &dyn Progress) -> bool {
    let Some(url) = layer.urls.first() else {
        return false;
    };
    let digest = &layer.digest;
    progress.note(&format!(
        "layer {digest} is foreign and stays where it is: {url:?}"
    ));
    true
}

/// The whole name that the store knows a reference by. Beside a digest, a tag
/// says nothing and is left out.
#[must_use]
pub fn stored_name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => reference.with_digest(digest.clone()).to_string(),
        None => reference.to_string(),
    }
}

/// The image that `reference` stands for here; None if it was not pulled.
///
/// # Errors
/// When the store is unreadable.
pub fn find_image(store: &Store, reference: &Reference) -> Result<Option<ImageRecord>, StoreError> {
    if let Some(name) = store.reference(&stored_name(reference))? {
        return store.image(&name.manifest);
    }
    if let Some(digest) = reference.bare_digest() {
        return store.image(&digest);
    }
    // Pulled by a tag, and now asked for by what the tag stood for.
    let Some(digest) = reference.digest() else {
        return Ok(None);
    };
    let repository = reference.name();
    for name in store.references()? {
        let is_same = name.manifest == *digest || name.resolved == *digest;
        let is_in_repository = (name.reference.parse::<Reference>())
            .is_ok_and(|reference| reference.name() == repository);
        if is_same && is_in_repository {
            return store.image(&name.manifest);
        }
    }
    Ok(None)
}

/// The image that `reference` stands for here, held so that nobody removes it meanwhile, nor its
/// names with `prune --all`; None if it was not pulled.
///
/// # Errors
/// When the store is unreadable.
pub fn look_for_image(
    store: &Store,
    reference: &Reference,
) -> Result<Option<(ImageRecord, Lock)>, StoreError> {
    loop {
        let Some(image) = find_image(store, reference)? else {
            return Ok(None);
        };
        let hold = store.hold(HoldKind::Image, &image.manifest)?;
        // it may have gone before the lock was had, and the name may stand for another one now
        if store.image(&image.manifest)?.is_some() {
            return Ok(Some((image, hold)));
        }
    }
}

/// The same for an image that has to be here.
fn hold_image(store: &Store, reference: &Reference) -> anyhow::Result<(ImageRecord, Lock)> {
    let image = look_for_image(store, reference)?;
    Ok(image.ok_or_else(|| NotPulled(reference.familiar()))?)
}

/// An image that was asked for is not in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image {0:?} is not here")]
pub struct NotPulled(pub String);
