//! rdma: handles and objects of RDMA devices. Both generations of cgroups have the same file.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/rdma.html>.

use std::collections::BTreeMap;
use std::path::Path;

use bundles::config::linux::resources::Rdma;

use crate::cgroups::Error;
use crate::cgroups::files::set;

pub(in crate::cgroups) fn set_limits(
    dir: &Path,
    devices: &BTreeMap<String, Rdma>,
) -> Result<(), Error> {
    for (name, limits) in devices {
        if let Some(line) = line(name, limits) {
            set(dir, "rdma.max", &line, &format!("rdma[{name:?}]"))?;
        }
    }
    Ok(())
}

fn line(name: &str, limits: &Rdma) -> Option<String> {
    let part = |key, number: Option<u32>| number.map(|number| format!(" {key}={number}"));
    let parts = [
        part("hca_handle", limits.hca_handles),
        part("hca_object", limits.hca_objects),
    ];
    let parts: String = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("{name}{parts}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let limits = |hca_handles, hca_objects| Rdma {
            hca_handles,
            hca_objects,
        };
        let table = [
            (
                limits(Some(2), Some(2000)),
                Some("mlx hca_handle=2 hca_object=2000"),
            ),
            (limits(None, Some(0)), Some("mlx hca_object=0")),
            (limits(None, None), None),
        ];
        for (limits, expected) in table {
            assert_eq!(line("mlx", &limits).as_deref(), expected);
        }
    }
}
