//! pids: how many tasks.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/pids.html>.

use std::path::Path;

use bundles::config::linux::resources::Limit;

use crate::cgroups::Error;
use crate::cgroups::files;

/// Both generations of cgroups have the same file.
pub(in crate::cgroups) fn set(dir: &Path, limit: Option<Limit>) -> Result<(), Error> {
    match limit {
        None => Ok(()),
        // The container's first process needs a place, too.
        Some(Limit::Max(0)) => files::set(dir, "pids.max", "1", "pids.limit"),
        Some(limit) => files::set(dir, "pids.max", &limit.to_string(), "pids.limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let root = tempfile::tempdir().expect("has a directory");
        let file = root.path().join("pids.max");
        let table = [
            (Limit::Unlimited, "max"),
            (Limit::Max(0), "1"),
            (Limit::Max(9), "9"),
        ];
        for (limit, expected) in table {
            std::fs::write(&file, "").expect("is written");
            set(root.path(), Some(limit)).expect("is set");
            assert_eq!(std::fs::read_to_string(&file).expect("is there"), expected);
        }
        set(root.path(), None).expect("leaves the file");
        assert_eq!(std::fs::read_to_string(&file).expect("is there"), "9");
    }
}
