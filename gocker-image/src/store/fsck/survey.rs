//! What is wrong with each thing of a store. Nothing is changed here.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::lock::Lock;
use super::super::partial::is_partial;
use super::super::record::{BundleRecord, ImageRecord, LayerRecord, RefRecord, entries};
use super::super::{BundleId, Store, StoreError, Trees, blob, bundle, layer, layout};
use super::{Depth, Finding, FindingKind, Outcome, Target, read};
use crate::digest::Digest;
use crate::image::{ImageConfig, Manifest};
use crate::reference::Reference;

const PULL_AGAIN: &str = "fsck --repair removes it, then pull the image again";
const SWEPT: &str = "fsck --repair, the next pull or prune removes it";
const UNBUNDLE: &str = "what was written in the container is in its rootfs; unbundle or fsck --repair --remove-bundles removes it";

/// How much there was to look at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Manifests, configs and kept layers.
    pub blobs: usize,
    /// Layers.
    pub layers: usize,
    /// Images.
    pub images: usize,
    /// Names.
    pub references: usize,
    /// Bundles.
    pub bundles: usize,
    /// Blobs that are not whole yet.
    pub partial: usize,
    /// What is mounted outside of a container.
    pub mounts: usize,
}

impl Store {
    /// Looks at everything.
    pub(super) fn survey(&self, depth: Depth) -> Result<(Checked, Vec<Finding>), StoreError> {
        let mut survey = Survey {
            store: self,
            depth,
            checked: Checked::default(),
            findings: Vec::new(),
            blobs: HashSet::new(),
            layers: HashMap::new(),
            images: HashSet::new(),
        };
        // A pull writes from the bottom up too; what it adds behind our back, such as a layer of
        // an image that is new, is not missing when it is looked for again.
        survey.blobs()?;
        survey.layers()?;
        survey.images()?;
        survey.references()?;
        survey.bundles()?;
        survey.partials()?;
        survey.quota_groups()?;
        survey.mounts()?;
        survey.locks()?;
        survey.top()?;
        Ok((survey.checked, survey.findings))
    }
}

pub(super) struct Survey<'a> {
    pub(super) store: &'a Store,
    depth: Depth,
    pub(super) checked: Checked,
    findings: Vec<Finding>,
    /// Those that are good.
    blobs: HashSet<Digest>,
    layers: HashMap<Digest, LayerRecord>,
    pub(super) images: HashSet<Digest>,
}

/// A record file that was looked at.
enum Record<T> {
    Good(T),
    /// It was removed meanwhile, or is what a crash left of it.
    None,
    Bad(String),
}

impl Survey<'_> {
    pub(super) fn find(&mut self, path: &Path, problem: impl Into<String>, target: Target) {
        let (kind, remedy) = match &target {
            Target::Mount { .. } => (
                FindingKind::Mount,
                "fsck --repair takes it away, then mount it again",
            ),
            Target::Reference { .. } => (FindingKind::Reference, PULL_AGAIN),
            Target::Image(_) => (FindingKind::Image, PULL_AGAIN),
            Target::Layer(_) => (FindingKind::Layer, PULL_AGAIN),
            Target::Blob(_) => (FindingKind::Blob, PULL_AGAIN),
            Target::Bundle {
                holds_data: true, ..
            } => (FindingKind::Bundle, UNBUNDLE),
            Target::Bundle { .. } => (FindingKind::Bundle, "fsck --repair removes it"),
            Target::Leftovers | Target::QuotaGroup(_) => (FindingKind::Leftover, SWEPT),
            Target::Nothing => (
                FindingKind::Stranger,
                "it is left alone; remove it by hand if it is not yours",
            ),
        };
        self.findings.push(Finding {
            kind,
            path: path.to_owned(),
            problem: problem.into(),
            remedy: remedy.to_owned(),
            outcome: Outcome::Found,
            target,
        });
    }

    pub(super) fn stranger(&mut self, path: &Path) {
        self.find(path, "nothing of this program is named so", Target::Nothing);
    }

    pub(super) fn entries(&self, name: &str) -> Result<Vec<(String, PathBuf)>, StoreError> {
        Ok(entries(&self.store.path.join(name))?)
    }

    /// Whether nobody works on what the lock `name` protects.
    fn is_free(&self, name: &str) -> Result<bool, StoreError> {
        Ok(Lock::try_exclusive(&self.store.lock_path(name))?.is_some())
    }

    fn blobs(&mut self) -> Result<(), StoreError> {
        for (algorithm, directory) in self.entries("blobs")? {
            if !directory.is_dir() {
                self.stranger(&directory);
                continue;
            }
            for (hex, path) in entries(&directory)? {
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                    self.stranger(&path);
                    continue;
                };
                self.checked.blobs += 1;
                match read::digest_of(&path, &digest) {
                    Ok(None) => {}
                    Ok(Some(actual)) if actual == digest => {
                        self.blobs.insert(digest);
                    }
                    Ok(Some(actual)) => {
                        let problem = format!("its bytes have the digest {actual}");
                        self.find(&path, problem, Target::Blob(digest));
                    }
                    Err(error) => {
                        let problem = chain(&error);
                        self.find(&path, problem, Target::Blob(digest));
                    }
                }
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<(), StoreError> {
        let mut recorded = HashSet::new();
        let mut others = Vec::new();
        for (name, path) in self.entries("layers")? {
            let stem = name.strip_suffix(".json").and_then(layout::digest);
            let Some(chain_id) = stem else {
                others.push((name, path));
                continue;
            };
            match read_record::<LayerRecord>(&path)? {
                Record::None => others.push((name, path)),
                Record::Bad(problem) => {
                    recorded.insert(chain_id.clone());
                    self.find(&path, problem, Target::Layer(chain_id));
                }
                Record::Good(record) => {
                    recorded.insert(chain_id.clone());
                    self.checked.layers += 1;
                    match self.layer_problem(&chain_id, &record)? {
                        Some((path, problem)) => {
                            self.find(&path, problem, Target::Layer(chain_id));
                        }
                        None => drop(self.layers.insert(chain_id, record)),
                    }
                }
            }
        }
        for (name, path) in others {
            let plain = name.strip_prefix(layout::UNFINISHED).unwrap_or(&name);
            let plain = plain.strip_suffix(".json").unwrap_or(plain);
            match layout::digest(plain) {
                None => self.stranger(&path),
                Some(id) if recorded.contains(&id) && !name.starts_with(layout::UNFINISHED) => {}
                Some(id) => {
                    if self.is_free(&layer::layer_lock(&id))? && path.exists() {
                        self.find(&path, "a layer that was not finished", Target::Leftovers);
                    }
                }
            }
        }
        Ok(())
    }

    /// What is wrong with a layer, and where.
    fn layer_problem(
        &self,
        chain_id: &Digest,
        record: &LayerRecord,
    ) -> Result<Option<(PathBuf, String)>, StoreError> {
        let store = self.store;
        let record_path = layout::record(&store.path, "layers", &layout::name(chain_id));
        if record.chain_id != *chain_id {
            let problem = format!("it is the record of another layer, {}", record.chain_id);
            return Ok(Some((record_path, problem)));
        }
        let computed = match &record.parent {
            None => record.diff_id.clone(),
            Some(parent) => Digest::of(format!("{parent} {}", record.diff_id).as_bytes()),
        };
        if computed != *chain_id {
            let problem = "its parent and diff ID do not make its chain ID".to_owned();
            return Ok(Some((record_path, problem)));
        }
        let path = store.layer_path(chain_id);
        let root = match File::open(&path) {
            Ok(root) => root,
            Err(error) => return Ok(Some((path, format!("its tree: {error}")))),
        };
        if let Some(fault) = store.trees.layer_fault(&root)? {
            return Ok(Some((path, format!("its tree {fault}"))));
        }
        if self.depth == Depth::Files
            && let Err(error) = read::read_files(root.as_fd())
        {
            return Ok(Some((path, format!("in its tree: {}", chain(&error)))));
        }
        Ok(None)
    }

    fn images(&mut self) -> Result<(), StoreError> {
        for (name, path) in self.entries("images")? {
            let Some(manifest) = name.strip_suffix(".json").and_then(layout::digest) else {
                self.other(&name, &path);
                continue;
            };
            let record = match read_record::<ImageRecord>(&path)? {
                Record::None => continue,
                Record::Bad(problem) => {
                    self.find(&path, problem, Target::Image(manifest));
                    continue;
                }
                Record::Good(record) => record,
            };
            self.checked.images += 1;
            match self.image_problem(&manifest, &record)? {
                Some(problem) => self.find(&path, problem, Target::Image(manifest)),
                None => drop(self.images.insert(manifest)),
            }
        }
        Ok(())
    }

    fn image_problem(
        &self,
        manifest: &Digest,
        record: &ImageRecord,
    ) -> Result<Option<String>, StoreError> {
        if record.manifest != *manifest {
            let other = &record.manifest;
            return Ok(Some(format!("it is the record of another image, {other}")));
        }
        for (what, digest) in [("manifest", manifest), ("config", &record.config)] {
            if !self.blobs.contains(digest) {
                return Ok(Some(format!("its {what} {digest} is not here")));
            }
        }
        let missing = |chain_id: &&Digest| !self.layers.contains_key(*chain_id);
        if let Some(layer) = record.layers.iter().find(missing) {
            return Ok(Some(format!("its layer {layer} is not here")));
        }
        let document = self.store.blob(manifest)?.unwrap_or_default();
        let is_own =
            Manifest::of_any_kind(&document).is_ok_and(|m| m.config.digest == record.config);
        if !is_own {
            return Ok(Some("its config is not the one of its manifest".to_owned()));
        }
        let document = self.store.blob(&record.config)?.unwrap_or_default();
        let is_own = ImageConfig::parse(&document).is_ok_and(|c| c.chain_ids() == record.layers);
        Ok((!is_own).then(|| "its layers are not those of its config".to_owned()))
    }

    fn references(&mut self) -> Result<(), StoreError> {
        for (name, path) in self.entries("refs")? {
            let Some(hash) = name.strip_suffix(".json").and_then(layout::digest) else {
                self.other(&name, &path);
                continue;
            };
            let record = match read_record::<RefRecord>(&path)? {
                Record::None => continue,
                Record::Bad(problem) => {
                    self.find(&path, problem, Target::Reference { missing: None });
                    continue;
                }
                Record::Good(record) => record,
            };
            self.checked.references += 1;
            let (name, manifest) = (record.reference, record.manifest);
            let (problem, missing) = if Digest::of(name.as_bytes()) != hash {
                (format!("it is the record of another name, {name:?}"), None)
            } else if name.parse::<Reference>().is_err() {
                (format!("{name:?} is not the name of an image"), None)
            } else if self.images.contains(&manifest) {
                continue;
            } else if self
                .store
                .image(&manifest)
                .is_ok_and(|image| image.is_none())
            {
                (format!("its image {manifest} is not here"), Some(manifest))
            } else {
                (format!("its image {manifest} is damaged"), None)
            };
            self.find(&path, problem, Target::Reference { missing });
        }
        Ok(())
    }

    fn bundles(&mut self) -> Result<(), StoreError> {
        for (name, path) in self.entries("bundles")? {
            let Some(id) = name.parse::<BundleId>().ok().filter(|_| path.is_dir()) else {
                self.stranger(&path);
                continue;
            };
            let rootfs = path.join(bundle::ROOTFS);
            let holds_data = rootfs.exists();
            let target = Target::Bundle { id, holds_data };
            let record_path = path.join(layout::BUNDLE_RECORD);
            if !record_path.exists() {
                if self.is_free(&bundle::bundle_lock(&name))? && path.exists() {
                    self.find(&path, "a bundle that was not finished", Target::Leftovers);
                }
                continue;
            }
            self.checked.bundles += 1;
            match read_record::<BundleRecord>(&record_path)? {
                Record::None => self.find(&record_path, "its record is empty", target),
                Record::Bad(problem) => self.find(&record_path, problem, target),
                Record::Good(record) => {
                    if let Some((path, problem)) =
                        bundle_problem(self.store.trees, &name, &rootfs, &record)?
                    {
                        self.find(&path, problem, target);
                    }
                }
            }
        }
        Ok(())
    }

    /// Blobs that are not whole are never trusted, so only their names can be wrong.
    fn partials(&mut self) -> Result<(), StoreError> {
        for (name, path) in self.entries("partial")? {
            if is_partial(&name, &path) {
                self.checked.partial += 1;
            } else {
                self.stranger(&path);
            }
        }
        Ok(())
    }

    fn quota_groups(&mut self) -> Result<(), StoreError> {
        for group in self.store.stale_quota_groups()? {
            let problem = format!("the subvolume of quota group {group} is gone");
            self.find(&self.store.path, problem, Target::QuotaGroup(group));
        }
        Ok(())
    }

    /// What is no record in a directory of records: what a crash left of one, or a stranger.
    fn other(&mut self, name: &str, path: &Path) {
        // a record is replaced under this name; the next one that is takes it away
        if !name.starts_with(layout::UNFINISHED) {
            self.stranger(path);
        }
    }
}

fn bundle_problem(
    trees: Trees,
    name: &str,
    rootfs: &Path,
    record: &BundleRecord,
) -> Result<Option<(PathBuf, String)>, StoreError> {
    let directory = rootfs.with_file_name(layout::BUNDLE_RECORD);
    if record.id != name {
        let problem = format!("it is the record of another bundle, {:?}", record.id);
        return Ok(Some((directory, problem)));
    }
    let root = match File::open(rootfs) {
        Ok(root) => root,
        Err(error) => return Ok(Some((rootfs.to_owned(), format!("its root: {error}")))),
    };
    if let Some(fault) = trees.fault(&root)? {
        return Ok(Some((rootfs.to_owned(), format!("its root {fault}"))));
    }
    let config = record.directory.join(bundles::Bundle::CONFIG_JSON);
    if !config.exists() {
        return Ok(Some((config, "its config.json is not there".to_owned())));
    }
    Ok(None)
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Record<T>, StoreError> {
    match blob::read(path) {
        Ok(Some(record)) => Ok(Record::Good(record)),
        Ok(None) => Ok(Record::None),
        Err(StoreError::Record { source, .. }) => {
            Ok(Record::Bad(format!("it is not a record: {source}")))
        }
        Err(StoreError::Call(error)) => Ok(Record::Bad(chain(&error))),
        Err(error) => Err(error),
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
