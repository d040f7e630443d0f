//! Where a store lies, and how it keeps trees: on btrfs in its root itself, else on a btrfs in a
//! sparse file, else in its root as copies.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{Options, StoreError, Trees, layout};
use crate::btrfs;
use crate::errno::CallError;
use crate::loop_device::{self, LoopError};

/// How a store is to keep the trees of layers and bundles.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// As it does already; a new one as subvolumes if that is possible, else as copies.
    #[default]
    Auto,
    /// As subvolumes of a btrfs: the one that its root lies on, or one in a sparse file.
    Btrfs,
    /// As copies, which share blocks where the file system can.
    Copy,
}

impl Backing {
    /// Whether a store that keeps its trees as `trees` is what is asked for.
    pub(super) fn allows(self, trees: Trees) -> bool {
        match self {
            Self::Auto => true,
            Self::Btrfs => trees == Trees::Subvolumes,
            Self::Copy => trees != Trees::Subvolumes,
        }
    }
}

/// Whether there is a store in `root`. One that may not be looked at is not taken for none.
pub(super) fn is_made(root: &Path) -> Result<bool, CallError> {
    let meta = root.join(layout::META);
    let has_meta = meta.try_exists();
    Ok(
        has_meta.map_err(|error| CallError::new("stat", meta, error))?
            || loop_device::is_made(root),
    )
}

/// The directory of the store in `root`, and how a new one keeps trees. What is made or decided
/// for a new one is announced.
pub(super) fn provide(
    root: &Path,
    options: &Options,
    announce: &dyn Fn(&str),
) -> Result<(PathBuf, Trees), StoreError> {
    let dir = File::open(root).map_err(|error| CallError::new("open", root, error))?;
    let is_btrfs = btrfs::is_btrfs(dir.as_fd())?;
    let in_place = |trees| match options.loop_bytes {
        None => Ok((root.to_owned(), trees)),
        Some(_) => Err(LoopError::NotInFile(root.to_owned()).into()),
    };
    if root.join(layout::META).exists() {
        // its own record says how
        return in_place(Trees::Subvolumes);
    }
    let is_made = loop_device::is_made(root);
    match options.backing {
        Backing::Auto | Backing::Btrfs if is_btrfs => return in_place(Trees::Subvolumes),
        Backing::Copy if !is_made => {
            let place = in_place(Trees::of_directories(root)?)?;
            let trees = place.1;
            announce(&format!(
                "{}: layers are kept as {}",
                root.display(),
                trees.in_words()
            ));
            return Ok(place);
        }
        _ => {}
    }
    match loop_device::provide(root, options.loop_bytes, announce) {
        Ok(path) => {
            if let Some(asked) = options.loop_bytes {
                loop_device::check_size(root, asked)?;
            }
            Ok((path, Trees::Subvolumes))
        }
        // who asks for a size asks for a file
        Err(error)
            if options.backing == Backing::Auto
                && options.loop_bytes.is_none()
                && !is_made
                && error.is_lack() =>
        {
            let trees = Trees::of_directories(root)?;
            announce(&format!(
                "{} is not on btrfs, and none can be made in a file ({}): layers are kept as {}",
                root.display(),
                reason(&error),
                trees.in_words()
            ));
            in_place(trees)
        }
        Err(error) => Err(error.into()),
    }
}

/// Why there is no loop-backed btrfs, in short.
fn reason(error: &LoopError) -> String {
    match error {
        LoopError::NoMkfs(_) => "mkfs.btrfs is not installed".to_owned(),
        LoopError::NoDevice(cause) | LoopError::Mount { source: cause, .. } => {
            let source = std::error::Error::source(cause).map(ToString::to_string);
            format!("{cause}: {}", source.unwrap_or_default())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_the_store_has() {
        use Trees::{Copies, Reflinks, Subvolumes};
        for (backing, allowed) in [
            (Backing::Auto, &[Subvolumes, Reflinks, Copies][..]),
            (Backing::Btrfs, &[Subvolumes]),
            (Backing::Copy, &[Reflinks, Copies]),
        ] {
            for trees in [Subvolumes, Reflinks, Copies] {
                assert_eq!(
                    backing.allows(trees),
                    allowed.contains(&trees),
                    "{backing:?} {trees:?}"
                );
            }
        }
    }
}
