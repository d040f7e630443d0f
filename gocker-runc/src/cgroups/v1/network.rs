//! net_cls and net_prio: how packets are marked.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v1/net_cls.html> and net_prio.html.

use std::path::Path;

use bundles::config::linux::resources::network::InterfacePriority;

use crate::cgroups::Error;
use crate::cgroups::files::set;

pub(super) fn set_class(dir: &Path, class_id: Option<u32>) -> Result<(), Error> {
    class_id.map_or(Ok(()), |id| {
        set(dir, "net_cls.classid", &id.to_string(), "network.classID")
    })
}

pub(super) fn set_priorities(dir: &Path, priorities: &[InterfacePriority]) -> Result<(), Error> {
    for (index, InterfacePriority { name, priority }) in priorities.iter().enumerate() {
        let field = format!("network.priorities[{index}]");
        set(
            dir,
            "net_prio.ifpriomap",
            &format!("{name} {priority}"),
            &field,
        )?;
    }
    Ok(())
}
