//! Real images, made here: documents by image-spec over layers built entry by
//! entry, ready to be pushed to a registry.
//!
//! ```text
//! Layer (entries -> tar) -> Image (config, manifest, compressed layers) -> Index
//! ```

mod debian;
mod document;
mod layer;
mod samples;

pub use debian::debian;
pub use document::{
    Blob, Compression, Documents, Image, ImageBuilder, Index, digest_of, media_types,
};
pub use layer::{DEFAULT_MTIME, Entry, Format, Layer, SparseForm};
pub use samples::{
    busybox, busybox_layer, cross_link, filler_layer, multi_architecture, multi_layer,
    names_and_metadata, sparse_files, whiteouts,
};
