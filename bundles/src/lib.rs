//! The OCI bundle: a directory that holds a `config.json` and, usually, a root filesystem.
//!
//! ```text
//! BUNDLE/
//!     config.json   runtime-spec, config.md
//!     rootfs/       what root.path names
//! ```
//!
//! Spec: bundle.md

pub mod validate;

pub use validate::FieldError;
