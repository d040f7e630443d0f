//! From an image reference to a bundle: pulls OCI and Docker images, unpacks
//! them into btrfs subvolumes and makes runnable bundles of them.
//!
//! ```text
//! front                          the commands of `gocker`, over those below
//! commands                       the commands of `gocker-image`
//! cli  run_args  progress  report  table   what a user types and reads
//! operations                     pull, bundle, remove, …: joins the three below
//! registry  store  trust          the network, the disk, signatures
//! unpack  pack                   tar streams into trees, and trees into tar streams
//! image  reference  digest       the documents and names that all of them share
//! interrupt
//! errno  environment  btrfs  descent
//! ```
//!
//! A module imports only from lower lines, never from its own (`tests/floors.rs`). `registry`,
//! `store`, `unpack` and `trust` do not know each other; only `operations` joins them. `pack` writes
//! what `unpack` reads, by the same rules of names.

pub mod btrfs;
pub mod cli;
mod commands;
mod descent;
pub mod digest;
mod environment;
pub mod errno;
pub mod front;
pub mod image;
pub mod interrupt;
pub mod loop_device;
pub mod operations;
pub mod pack;
mod progress;
pub mod reference;
pub mod registry;
pub mod report;
mod run_args;
pub mod store;
mod table;
pub mod trust;
pub mod unpack;

pub use commands::run;
