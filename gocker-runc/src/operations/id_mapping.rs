//! User namespaces that only carry a mapping, for id-mapped mounts.
#![allow(
    unsafe_code,
    reason = "clone3 cannot be made safe: who calls it promises one thread"
)]

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, ensure};
use bundles::config::linux::id_mappings::IdMapping;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{pipe2, read};

use super::spawn::has_one_thread;
use crate::init::plan::InitPlan;
use crate::namespaces;
use crate::rootfs::idmapped::{self, Ids};
use crate::sys::Called;
use crate::sys::clone3::{CloneArgs, Cloned, clone3};
use crate::sys::procfs::ProcFd;

/// Copies and maps the sources of the id-mapped mounts of `plan`.
///
/// # Errors
/// The mount that cannot be mapped, or the namespace that cannot be made.
pub(super) fn map_mounts(plan: &mut InitPlan) -> anyhow::Result<()> {
    // Volumes of one container mostly share their mapping.
    let mut last: Option<(Ids, OwnedFd)> = None;
    for mount in &mut plan.rootfs.mounts {
        let Some(map) = &mount.id_map else {
            continue;
        };
        let namespace = match last.take() {
            Some((ids, namespace)) if ids == map.ids => namespace,
            _ => open(&map.ids)
                .with_context(|| format!("mounts[{}]: user namespace of the mapping", map.mount))?,
        };
        let ids = map.ids.clone();
        idmapped::open_mapped(mount, &namespace)?;
        last = Some((ids, namespace));
    }
    Ok(())
}

fn open(ids: &Ids) -> anyhow::Result<OwnedFd> {
    match ids {
        Ids::OfNamespace(path) => Ok(File::open(path)
            .with_context(|| format!("open({path:?})"))?
            .into()),
        Ids::Mapped(uids, gids) => make(uids, gids),
    }
}

/// A new user namespace: it lasts as long as the descriptor, its process only as long as its
/// maps are written.
fn make(uids: &[IdMapping], gids: &[IdMapping]) -> anyhow::Result<OwnedFd> {
    ensure!(has_one_thread()?, "the runtime has more than one thread");
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    let flags = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    let args = CloneArgs {
        flags,
        cgroup: None,
    };
    // SAFETY: this process has one thread, which was just counted.
    match unsafe { clone3(args) }.called(|| "clone3(CLONE_NEWUSER)".into())? {
        Cloned::Child => {
            drop(writer);
            // Ends with the runtime, at the latest.
            while read(&reader, &mut [0]) == Err(Errno::EINTR) {}
            std::process::exit(0)
        }
        Cloned::Parent { pid, .. } => {
            let proc = ProcFd::host()?;
            let made = namespaces::user::write_id_mappings(&proc, pid, uids, gids)
                .context("write its mappings")
                .and_then(|()| {
                    let path = format!("/proc/{pid}/ns/user");
                    File::open(&path).with_context(|| format!("open({path:?})"))
                });
            drop(writer);
            waitpid(pid, None).context("waitpid")?;
            Ok(made?.into())
        }
    }
}
