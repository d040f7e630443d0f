//! Usage: what the things in a store take on the disk, alone and together.
//!
//! A byte of the disk that several trees have is counted once in a sum, and in none of them as its
//! own. Small files that btrfs keeps in its metadata have no place, and are not counted.

mod extents;

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sys::statvfs::statvfs;
use serde::Serialize;

use super::record::entries;
use super::{BundleRecord, ImageRecord, Store, StoreError, Trees, blob, bundle, layout};
use crate::digest::Digest;
use crate::errno::CallError;
use crate::loop_device;
use extents::{Finder, Places};

/// What a store takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How trees are kept.
    pub trees: Trees,
    /// The file system that the store lies on.
    pub file_system: FileSystemUsage,
    /// The file that holds it; None if the store lies on a file system of the user's own.
    pub backing_file: Option<BackingFile>,
    /// How many images there are; their bytes are those of layers and blobs.
    pub images: usize,
    /// Layers.
    pub layers: KindUsage,
    /// Bundles.
    pub bundles: KindUsage,
    /// Blobs.
    pub blobs: KindUsage,
    /// Blobs that are not whole yet.
    pub partial: KindUsage,
}

/// Size of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FileSystemUsage {
    /// All of it.
    pub size_bytes: u64,
    /// What is free.
    pub free_bytes: u64,
}

/// The sparse file that holds a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackingFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How large it may become.
    pub size_bytes: u64,
    /// What it takes.
    pub allocated_bytes: u64,
}

/// What all things of one kind take.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct KindUsage {
    /// How many there are.
    pub count: usize,
    /// What they have, each byte once.
    pub bytes: u64,
    /// What no other kind has.
    pub own_bytes: u64,
    /// What prune frees.
    pub reclaimable_bytes: u64,
    /// Each of them.
    pub items: Vec<ItemUsage>,
}

/// What one thing takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemUsage {
    /// Its digest or id.
    pub name: String,
    /// What it has.
    pub bytes: u64,
    /// What of it others have too.
    pub shared_bytes: u64,
    /// What nothing else in the store has: what its removal frees.
    pub own_bytes: u64,
    /// Whether prune removes it.
    pub unused: bool,
    /// What it may have beyond its image, if it is a bundle with a quota.
    pub quota_bytes: Option<u64>,
}

/// Something with places on the disk.
struct Item {
    name: String,
    places: Places,
    unused: bool,
    quota_bytes: Option<u64>,
}

impl Store {
    /// What everything in the store takes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut finder = Finder::default();
        let (images, unused) = self.used_and_unused_images()?;
        let kinds = [
            self.layer_items(&images, &mut finder)?,
            self.bundle_items(&mut finder)?,
            self.blob_items(&mut finder)?,
            self.partial_items(&mut finder)?,
        ];
        let [layers, bundles, blobs, partial] = sum_up(&kinds);
        let stat = statvfs(&self.path);
        let stat = stat.map_err(|errno| CallError::new("statvfs", &self.path, errno))?;
        let unit = stat.fragment_size();
        let file = loop_device::file_size(&self.root).filter(|_| self.has_own_file_system());
        Ok(Usage {
            trees: self.trees,
            file_system: FileSystemUsage {
                size_bytes: stat.blocks().saturating_mul(unit),
                free_bytes: stat.blocks_available().saturating_mul(unit),
            },
            backing_file: file.map(|file| BackingFile {
                path: self.root.join("store.btrfs"),
                size_bytes: file.bytes,
                allocated_bytes: file.allocated_bytes,
            }),
            images: images.len() + unused,
            layers,
            bundles,
            blobs,
            partial,
        })
    }

    /// The images that prune leaves, and how many it does not.
    fn used_and_unused_images(&self) -> Result<(Vec<ImageRecord>, usize), StoreError> {
        let mut used = self.used_by_bundles()?;
        used.extend(self.references()?.into_iter().map(|name| name.manifest));
        let mut images = self.images()?;
        let all = images.len();
        images.retain(|image| used.contains(&image.manifest));
        let unused = all - images.len();
        Ok((images, unused))
    }

    fn layer_items(
        &self,
        images: &[ImageRecord],
        finder: &mut Finder,
    ) -> Result<Vec<Item>, StoreError> {
        let used: HashSet<&Digest> = images.iter().flat_map(|image| &image.layers).collect();
        let mut items = Vec::new();
        for record in self.layers()? {
            // one that has vanished meanwhile takes nothing
            if let Ok(root) = self.open_layer(&record.chain_id) {
                items.push(Item {
                    unused: !used.contains(&record.chain_id),
                    name: record.chain_id.to_string(),
                    places: finder.tree(root.as_fd())?,
                    quota_bytes: None,
                });
            }
        }
        Ok(items)
    }

    fn bundle_items(&self, finder: &mut Finder) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        for (name, path) in entries(&self.path.join("bundles"))? {
            if let Ok(root) = File::open(path.join(bundle::ROOTFS)) {
                let record = blob::read::<BundleRecord>(&path.join(layout::BUNDLE_RECORD))?;
                items.push(Item {
                    name,
                    places: finder.tree(root.as_fd())?,
                    unused: false,
                    quota_bytes: record.and_then(|record| record.quota_bytes),
                });
            }
        }
        Ok(items)
    }

    fn blob_items(&self, finder: &mut Finder) -> Result<Vec<Item>, StoreError> {
        let used = self.used_blobs()?;
        let mut items = Vec::new();
        for (algorithm, directory) in entries(&self.path.join("blobs"))? {
            if !directory.is_dir() {
                continue;
            }
            for (hex, path) in entries(&directory)? {
                let name = format!("{algorithm}:{hex}");
                let digest = name.parse::<Digest>();
                let unused = digest.is_ok_and(|digest| !used.contains(&digest));
                items.extend(file_item(name, &path, unused, finder)?);
            }
        }
        Ok(items)
    }

    fn partial_items(&self, finder: &mut Finder) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        for (name, path) in entries(&self.path.join("partial"))? {
            items.extend(file_item(name, &path, true, finder)?);
        }
        Ok(items)
    }
}

fn file_item(
    name: String,
    path: &std::path::Path,
    unused: bool,
    finder: &mut Finder,
) -> Result<Option<Item>, StoreError> {
    let Ok(file) = File::open(path) else {
        return Ok(None);
    };
    let places = Places::of(finder.file(file.as_fd())?);
    Ok(Some(Item {
        name,
        places,
        unused,
        quota_bytes: None,
    }))
}

fn sum_up(kinds: &[Vec<Item>; 4]) -> [KindUsage; 4] {
    let all: Vec<&Item> = kinds.iter().flatten().collect();
    let kept = Places::union(
        all.iter()
            .filter(|item| !item.unused)
            .map(|item| &item.places),
    );
    std::array::from_fn(|number| {
        let items = &kinds[number];
        let whole = Places::union(items.iter().map(|item| &item.places));
        let others = kinds
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number);
        let others = Places::union(others.flat_map(|(_, items)| items).map(|item| &item.places));
        let unused = items.iter().filter(|item| item.unused);
        let unused = Places::union(unused.map(|item| &item.places));
        KindUsage {
            count: items.len(),
            bytes: whole.bytes(),
            own_bytes: whole.bytes_without(&others),
            reclaimable_bytes: unused.bytes_without(&kept),
            items: items.iter().map(|item| item_usage(item, &all)).collect(),
        }
    })
}

fn item_usage(item: &Item, all: &[&Item]) -> ItemUsage {
    let others = all.iter().filter(|other| !std::ptr::eq(**other, item));
    let others = Places::union(others.map(|other| &other.places));
    let (bytes, own_bytes) = (item.places.bytes(), item.places.bytes_without(&others));
    ItemUsage {
        name: item.name.clone(),
        bytes,
        shared_bytes: bytes - own_bytes,
        own_bytes,
        unused: item.unused,
        quota_bytes: item.quota_bytes,
    }
}
