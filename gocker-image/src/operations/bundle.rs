//! Bundle: a writable snapshot of an image and a config.json for it.
//!
//! ```text
//! by name       <store>/bundles/<id>/{config.json,rootfs,gocker.json}
//! by directory  <dir>/config.json, whose root.path is
//!               <store>/bundles/<id>/rootfs, because a snapshot cannot leave
//!               its file system; <id> is the directory's name and a hash
//! ```

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bundles::Bundle;

use super::runtime_config::{self, Overrides, Parts};
use super::{Progress, hold_image, user};
use crate::digest::Digest;
use crate::errno::CallError;
use crate::image::ImageConfig;
use crate::reference::Reference;
use crate::store::{BundleDraft, BundleId, BundleOwner, BundleRecord, Store, now};
use crate::unpack::make_dirs;

/// What asked for a limit.
const QUOTA: &str = "--quota";

/// Where a bundle is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the store, by a name.
    Named(BundleId),
    /// In a directory, which may exist if it has no config.json.
    Directory(PathBuf),
}

/// What bundle to make.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleRequest {
    /// The image, which was pulled.
    pub reference: Reference,
    /// Where.
    pub place: Place,
    /// Where it differs from the image.
    pub overrides: Overrides,
    /// Whose it is.
    pub owner: BundleOwner,
    /// What may be added to the image; None for as much as there is.
    pub quota_bytes: Option<u64>,
}

/// Makes a bundle.
///
/// # Errors
/// When the image was not pulled or gives no runtime config, the name or the
/// directory is taken, or the disk is full. Nothing is left behind then.
pub fn bundle(
    store: &Store,
    request: &BundleRequest,
    progress: &dyn Progress,
) -> anyhow::Result<BundleRecord> {
    let name = request.reference.familiar();
    try_bundle(store, request, progress).with_context(|| format!("bundle {name:?}"))
}

fn try_bundle(
    store: &Store,
    request: &BundleRequest,
    progress: &dyn Progress,
) -> anyhow::Result<BundleRecord> {
    let (image, _hold) = hold_image(store, &request.reference)?;
    let bytes = store.blob(&image.config)?;
    let bytes = bytes.with_context(|| format!("config {} is missing", image.config))?;
    let config = ImageConfig::parse(&bytes).with_context(|| format!("config {}", image.config))?;
    // What can be refused is refused before anything is made.
    let args = runtime_config::args(&config, &request.overrides)?;
    if request.quota_bytes.is_some() {
        store.check_quotas().context(QUOTA)?;
    }
    let mut outside = match &request.place {
        Place::Named(_) => None,
        Place::Directory(directory) => Some(OutsideDirectory::make(directory)?),
    };
    let id = match (&request.place, &outside) {
        (Place::Named(id), _) => id.clone(),
        (_, Some(outside)) => id_of(&outside.path)?,
        (Place::Directory(directory), None) => id_of(directory)?,
    };
    let draft = store.begin_bundle(&id, image.layers.last())?;
    if let Some(outside) = &mut outside {
        outside.begin()?;
    }
    if let Some(bytes) = request.quota_bytes {
        let announce = |text: &str| progress.note(text);
        draft.limit(bytes, &announce).context(QUOTA)?;
    }
    let rootfs = draft.rootfs_path();
    let (directory, root_path) = match &outside {
        None => (draft.directory().to_owned(), Path::new("rootfs")),
        Some(outside) => (outside.path.clone(), rootfs.as_path()),
    };
    let Some(root_path) = root_path.to_str() else {
        bail!("the store's path {rootfs:?} is not UTF-8, so config.json cannot name it");
    };
    write_config(
        &draft,
        &config,
        request,
        (&directory, root_path, id.as_str()),
        progress,
    )?;
    let record = BundleRecord {
        id: id.to_string(),
        reference: request.reference.familiar(),
        manifest: image.manifest,
        directory,
        rootfs: rootfs.clone(),
        args,
        created: now(),
        owner: request.owner,
        quota_bytes: request.quota_bytes,
    };
    draft.finish(&record)?;
    if let Some(outside) = outside {
        outside.keep();
    }
    Ok(record)
}

fn write_config(
    draft: &BundleDraft<'_>,
    config: &ImageConfig,
    request: &BundleRequest,
    (directory, root_path, id): (&Path, &str, &str),
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let overrides = &request.overrides;
    let user = overrides.user.as_deref().unwrap_or(&config.config.user);
    let mut ids = user::find(draft.rootfs().as_fd(), user)?;
    let groups = user::find_groups(draft.rootfs().as_fd(), &overrides.options.groups);
    ids.additional_gids.extend(groups.context("--group-add")?);
    let parts = Parts {
        config,
        overrides,
        ids: &ids,
        root_path,
        hostname: overrides.hostname.as_deref().unwrap_or(id),
    };
    let mut warn = |text: String| progress.warn(&text);
    let spec = runtime_config::convert(bundles::defaults::spec(), &parts, &mut warn)?;
    let spec = overrides.options.lay_over(&spec)?;
    let cwd = runtime_config::cwd(config, overrides)?;
    let volumes = runtime_config::volumes(config)?;
    for directory in volumes.into_iter().chain([cwd.as_str()]) {
        let root = draft.rootfs().try_clone().context("dup")?;
        make_dirs(root, directory.as_bytes())
            .with_context(|| format!("make {directory:?} in the root"))?;
    }
    Bundle::write(directory, &spec)?;
    Ok(())
}

/// An id for a bundle in a directory: for people its name, for uniqueness a
/// hash of its path.
fn id_of(directory: &Path) -> anyhow::Result<BundleId> {
    let name = directory
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String = name
        .unwrap_or_default()
        .chars()
        .filter(allowed)
        .take(40)
        .collect();
    let hash = Digest::of(directory.as_os_str().as_encoded_bytes());
    Ok(format!("dir-{name}-{}", &hash.hex()[..12]).parse()?)
}

/// A bundle's directory outside of the store. Dropping it takes away what was
/// made of it.
struct OutsideDirectory {
    path: PathBuf,
    made: bool,
    /// Whether the config.json in it is ours.
    begun: bool,
    kept: bool,
}

impl OutsideDirectory {
    fn make(path: &Path) -> anyhow::Result<Self> {
        let made = !path.exists();
        fs::create_dir_all(path).map_err(|error| CallError::new("mkdir", path, error))?;
        let path = fs::canonicalize(path).map_err(|e| CallError::new("realpath", path, e))?;
        let outside = Self {
            path,
            made,
            begun: false,
            kept: false,
        };
        outside.check_free()?;
        Ok(outside)
    }

    /// The directory is ours from now on: the bundle is locked, so that no other command makes
    /// one there. One that did so before has finished.
    fn begin(&mut self) -> anyhow::Result<()> {
        self.check_free()?;
        self.begun = true;
        Ok(())
    }

    fn check_free(&self) -> anyhow::Result<()> {
        if self.path.to_str().is_none() {
            bail!(
                "{:?} is not UTF-8, so no record of it can be kept",
                self.path
            );
        }
        if self.path.join(Bundle::CONFIG_JSON).exists() {
            bail!("{:?} has a config.json already", self.path);
        }
        Ok(())
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for OutsideDirectory {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The error that led here is the one to report.
        if self.begun {
            drop(fs::remove_file(self.path.join(Bundle::CONFIG_JSON)));
        }
        if self.made {
            drop(fs::remove_dir(&self.path));
        }
    }
}
