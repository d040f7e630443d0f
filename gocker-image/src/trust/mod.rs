//! Which images are believed: signatures, the keys that they are made by, and the policy that
//! asks for them.
//!
//! ```text
//! policy.json  -> the requirements of an image's name           policy
//!   sigstoreSigned -> public keys                               key
//!     and a signature over a payload that names the digest      signature
//! ```
//!
//! Nothing here fetches anything: signatures are given as bytes.
//!
//! Spec: containers-policy.json(5), cosign's SIGNATURE_SPEC.md

mod identity;
mod key;
mod policy;
mod signature;

use std::path::PathBuf;

use crate::digest::Digest;
use crate::errno::CallError;

pub use identity::Identity;
pub use key::PublicKey;
pub use policy::{Policy, PolicyPaths, Requirement, SignedBy};
pub use signature::{PAYLOAD_TYPE, SIGNATURE_ANNOTATION, Signature, signature_tag, verify};

/// Why an image is not believed, or it cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file is there but cannot be read.
    #[error(transparent)]
    Read(#[from] CallError),
    /// A policy is not one.
    #[error("{path:?}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A policy asks for what this program does not do.
    #[error("{path:?}: {scope}: {what} is not served, so the image cannot be let in")]
    Unserved {
        /// The file.
        path: PathBuf,
        /// The entry that applies to the image.
        scope: String,
        /// The type or field.
        what: String,
    },
    /// A policy lets no image of that name in.
    #[error("{path:?}: {scope}: rejects every image")]
    Rejected {
        /// The file.
        path: PathBuf,
        /// The entry that applies to the image.
        scope: String,
    },
    /// A public key is none that is known.
    #[error("{name}: is not a public key in PEM of ECDSA (P-256, P-384), RSA or Ed25519")]
    Key {
        /// Where it is.
        name: String,
    },
    /// There is no signature at all.
    #[error("{0} has no signature")]
    Unsigned(Digest),
    /// There are signatures, but none counts.
    #[error("{digest} has no signature that counts: {}", reasons.join("; "))]
    NotSigned {
        /// The image.
        digest: Digest,
        /// What is wrong with each.
        reasons: Vec<String>,
    },
}
