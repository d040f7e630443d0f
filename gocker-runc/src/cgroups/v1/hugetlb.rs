//! hugetlb: memory in huge pages.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/hugetlb.html>.

use std::path::Path;

use bundles::config::linux::resources::HugepageLimit;
use nix::errno::Errno;

use crate::cgroups::Error;
use crate::cgroups::files;

/// How one generation of cgroups calls the files of a limit.
#[derive(Clone, Copy)]
pub(in crate::cgroups) struct Names {
    /// What pages in use are counted against.
    pub(in crate::cgroups) limit: &'static str,
    /// What pages promised are counted against.
    pub(in crate::cgroups) reservation: &'static str,
}

const V1: Names = Names {
    limit: "limit_in_bytes",
    reservation: "rsvd.limit_in_bytes",
};

pub(super) fn set(dir: &Path, limits: &[HugepageLimit]) -> Result<(), Error> {
    set_named(dir, limits, V1)
}

pub(in crate::cgroups) fn set_named(
    dir: &Path,
    limits: &[HugepageLimit],
    names: Names,
) -> Result<(), Error> {
    for (
        index,
        HugepageLimit {
            page_size,
            limit_bytes,
        },
    ) in limits.iter().enumerate()
    {
        let field = format!("hugepageLimits[{index}]");
        let value = limit_bytes.to_string();
        let file = |name| format!("hugetlb.{page_size}.{name}");
        files::set(dir, &file(names.limit), &value, &field)?;
        // A page that is only reserved is taken from the others all the same; kernels before
        // 5.7 do not count it.
        let path = dir.join(file(names.reservation));
        match files::write(&path, &value) {
            Ok(()) | Err(Errno::ENOENT) => (),
            Err(answer) => return Err(files::refused(&path, &value, &field, answer)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_values() {
        let root = tempfile::tempdir().expect("has a directory");
        let limit = |size: &str| HugepageLimit {
            page_size: size.into(),
            limit_bytes: 4096,
        };
        let file = root.path().join("hugetlb.2MB.limit_in_bytes");
        std::fs::write(&file, "").expect("is written");
        set(root.path(), &[limit("2MB")]).expect("needs no reservation");
        assert_eq!(std::fs::read_to_string(&file).expect("is there"), "4096");
        let error = set(root.path(), &[limit("2MB"), limit("3MB")]).expect_err("no such pages");
        let expected = "has no hugetlb.3MB.limit_in_bytes";
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}
