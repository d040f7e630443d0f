//! What the environment says about places.

use std::path::PathBuf;

/// The path that the variable `name` holds. None: it is unset, or empty, which
/// is as good as unset.
pub(crate) fn path_in(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
