//! Trees into layers: what one tree has that another has not, and an archive of it that makes
//! the one of the other again.
//!
//! ```text
//! old tree, new tree  --compare-->  changes  --write_layer-->  tar (ustar and PAX, whiteouts)
//! ```
//!
//! Every path is opened beneath the root's descriptor, component by component and never through
//! a symlink. Nothing here knows what a tree is the root of.
//!
//! Spec: image-spec layer.md#representing-changes

mod archive;
mod changes;
mod layer;
mod links;
mod node;

use crate::errno::CallError;

pub use changes::{Action, Change, Kinship, compare};
pub use layer::{LayerOptions, Packed, write_layer};
pub use node::{Aspect, Kind};

/// The most components of a path, as [`Budgets`](crate::unpack::Budgets) has it: a deeper tree
/// could be packed, but not be unpacked again.
const MAX_DEPTH: usize = 256;
/// The most components of a path in a tree that is compared: each of them is remembered.
const MAX_TREE_DEPTH: usize = 4096;

/// Why a tree was not compared or packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A path is deeper than any layer, or any tree that is compared, may have it.
    #[error("{path:?} has more than {most} components")]
    TooDeep {
        /// The path.
        path: String,
        /// How many components it may have.
        most: usize,
    },
    /// A name means something else in a layer.
    #[error("{0:?} cannot be in a layer: names that begin with \".wh.\" take files away there")]
    Marker(String),
    /// A file did not hold still.
    #[error("{0:?} has changed while it was read")]
    Moved(String),
    /// The archive cannot be written.
    #[error("write the layer")]
    Write(#[source] std::io::Error),
}

/// A path for people.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
