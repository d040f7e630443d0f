//! Fsck: whether everything in the store is what its name and its record say,
//! and the removal of what is not, so that the next pull brings it again.
//!
//! ```text
//! blob        its bytes have the digest that it is named by
//! layer       record and name agree, its parent is here, its tree is one and read-only;
//!             if asked for, every file can be read (btrfs checks its own sums then)
//! image       its documents are here and agree with its layers
//! reference   its image is here
//! bundle      its root is here, and its config.json
//! mount       its record can be read, and what it has mounted is here
//! leftover    what a killed command left, or a quota group without its subvolume; nothing refers
//!             to it, so it is no damage
//! ```
//!
//! Other commands may run meanwhile. What one of them makes or removes is not
//! taken for damage: damage is what is found twice. Repair removes what
//! refers before what it refers to, and nothing whose lock is held.

mod beside;
mod read;
mod survey;

use std::path::PathBuf;

use serde::Serialize;

use super::lock::Lock;
use super::{BundleId, HoldKind, Store, StoreError, blob, bundle, layer, layout};
use crate::btrfs::GroupId;
use crate::digest::Digest;

pub use survey::Checked;

/// How a store is looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsckOptions {
    /// What becomes of damage.
    pub repair: Repair,
    /// How much of the layers is read.
    pub depth: Depth,
}

/// What becomes of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It is told, and nothing is changed.
    No,
    /// What a pull brings again goes.
    Yes,
    /// Damaged bundles go too, with all that was written in them.
    WithBundles,
}

/// How much of the layers is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Records and the roots of trees.
    Records,
    /// Every file of every layer, so that the file system finds what its disk has spoiled.
    Files,
}

/// What a finding is about, in the order in which repair removes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Something mounted outside of a container, or its record.
    Mount,
    /// A name.
    Reference,
    /// An image's record.
    Image,
    /// A layer's record or tree.
    Layer,
    /// A blob.
    Blob,
    /// A bundle.
    Bundle,
    /// What a killed command left, or a quota group that the kernel did. No damage: the next pull
    /// or prune removes it.
    Leftover,
    /// What no command of this program makes. No damage, and never removed.
    Stranger,
}

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is there.
    Found,
    /// It is gone.
    Repaired,
    /// It is there although it was to go, because another command uses it.
    InUse,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What repair removes.
    #[serde(skip)]
    target: Target,
}

/// What repair removes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Nothing,
    Leftovers,
    QuotaGroup(GroupId),
    Mount { directory: Option<PathBuf> },
    Reference { missing: Option<Digest> },
    Image(Digest),
    Layer(Digest),
    Blob(Digest),
    Bundle { id: BundleId, holds_data: bool },
}

/// All that was looked at and found.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct FsckReport {
    /// How much there was to look at.
    pub checked: Checked,
    /// What was found, in the order of repair.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// Whether something is broken, and not merely in the way.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self.kind, FindingKind::Leftover | FindingKind::Stranger)
    }
}

impl FsckReport {
    /// How many findings are damage that is still there.
    #[must_use]
    pub fn left(&self) -> usize {
        let is_left = |finding: &&Finding| finding.outcome != Outcome::Repaired;
        self.damage().filter(is_left).count()
    }

    /// The findings that are damage.
    pub fn damage(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.is_damage())
    }
}

impl Store {
    /// Looks through the whole store, and removes what is damaged if that is asked for.
    ///
    /// # Errors
    /// When the store cannot be read, or something damaged cannot be removed.
    pub fn fsck(&self, options: FsckOptions) -> Result<FsckReport, StoreError> {
        let (checked, mut findings) = self.survey(options.depth)?;
        if findings.iter().any(Finding::is_damage) {
            // what another command was about to make or remove is not there twice
            let (_, again) = self.survey(options.depth)?;
            let is_same = |a: &Finding, b: &Finding| (&a.path, &a.problem) == (&b.path, &b.problem);
            findings.retain(|found| again.iter().any(|other| is_same(found, other)));
        }
        findings.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        if options.repair != Repair::No {
            for finding in &mut findings {
                finding.outcome = self.repair(finding, options.repair)?;
            }
        }
        Ok(FsckReport { checked, findings })
    }

    /// Removes what a finding is about, unless another command uses it.
    fn repair(&self, finding: &Finding, repair: Repair) -> Result<Outcome, StoreError> {
        let outcome = |done| {
            if done {
                Outcome::Repaired
            } else {
                Outcome::InUse
            }
        };
        match &finding.target {
            Target::Nothing => Ok(Outcome::Found),
            Target::Leftovers => {
                self.sweep()?;
                self.sweep_mounts()?;
                Ok(outcome(!finding.path.exists()))
            }
            Target::QuotaGroup(group) => self.drop_quota_group(*group).map(outcome),
            Target::Mount { directory } => self
                .repair_mount(&finding.path, directory.as_deref())
                .map(outcome),
            Target::Reference { missing } => {
                let _lock = Lock::exclusive(&self.lock_path("refs"))?;
                // a pull may have brought the image meanwhile
                let is_whole = match missing {
                    Some(manifest) => self.image(manifest)?.is_some(),
                    None => false,
                };
                if !is_whole {
                    blob::remove(&finding.path)?;
                }
                Ok(Outcome::Repaired)
            }
            Target::Image(manifest) => self
                .locked(&HoldKind::Image.lock(manifest), || {
                    Ok(blob::remove(&finding.path)?)
                })
                .map(outcome),
            Target::Layer(chain_id) => self
                .locked(&layer::layer_lock(chain_id), || {
                    self.remove_layer_files(&layout::name(chain_id)).map(drop)
                })
                .map(outcome),
            Target::Blob(digest) => self
                .locked(&HoldKind::Blob.lock(digest), || {
                    Ok(blob::remove(&finding.path)?)
                })
                .map(outcome),
            Target::Bundle { id, holds_data } => {
                if *holds_data && repair != Repair::WithBundles {
                    return Ok(Outcome::Found);
                }
                self.locked(&bundle::bundle_lock(id.as_str()), || {
                    self.remove_bundle_files(id).map(drop)
                })
                .map(outcome)
            }
        }
    }

    /// Does `remove` under the lock `name`; false if another command holds it.
    fn locked(
        &self,
        name: &str,
        remove: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        match Lock::try_exclusive(&self.lock_path(name))? {
            None => Ok(false),
            Some(_lock) => remove().map(|()| true),
        }
    }
}
