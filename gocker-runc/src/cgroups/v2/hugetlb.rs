//! hugetlb: memory in huge pages.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v2.html#hugetlb>.

use std::path::Path;

use bundles::config::linux::resources::HugepageLimit;

use crate::cgroups::Error;
use crate::cgroups::v1::hugetlb::{Names, set_named};

const V2: Names = Names {
    limit: "max",
    reservation: "rsvd.max",
};

pub(in crate::cgroups) fn set(dir: &Path, limits: &[HugepageLimit]) -> Result<(), Error> {
    set_named(dir, limits, V2)
}
