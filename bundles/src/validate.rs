//! What can be wrong in a document, and where.

use std::fmt;

/// One field of a document that cannot be served, and why.
///
/// Displays as `linux.resources.pids.limit: -7 is neither a count nor -1 (unlimited)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's path in the document, as in `mounts[3].options`.
    pub field: String,
    /// What is wrong with the value, in lower case and without a full stop.
    pub problem: String,
}

impl FieldError {
    /// Says that `field` has `problem`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for FieldError {}
