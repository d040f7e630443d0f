//! The user namespace of a container, new or joined: what can be said of it before anything is
//! made.
#![allow(
    unsafe_code,
    reason = "clone3 cannot be made safe: who calls it promises one thread"
)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, ensure};
use bundles::FieldError;
use bundles::config::Config;
use bundles::config::linux::id_mappings::IdMapping;
use bundles::config::linux::namespaces::Kind;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2, read, write};

use super::spawn::has_one_thread;
use crate::namespaces;
use crate::namespaces::user::{IdMaps, parse_map};
use crate::sys::Called;
use crate::sys::caller::is_ordinary_user;
use crate::sys::clone3::{CloneArgs, Cloned, clone3};

/// The maps of a new user namespace; None where there is no new one.
///
/// # Errors
/// The field that this caller cannot be served, or that the maps give no meaning.
pub(super) fn plan(config: &Config) -> Result<Option<IdMaps>, FieldError> {
    let linux = &config.linux;
    if !linux.namespaces.has(Kind::User) && is_ordinary_user() {
        return Err(FieldError::new(
            "linux.namespaces",
            "a user who is not root needs a user namespace for a container \
             (see gocker-runc spec --rootless)",
        ));
    }
    if !linux.namespaces.is_new(Kind::User) {
        return Ok(None);
    }
    let maps = IdMaps::plan(&linux.uid_mappings, &linux.gid_mappings)?;
    if let Some(process) = &config.process {
        maps.check_user(&process.user)?;
    }
    for (index, mount) in config.mounts.iter().enumerate() {
        for (place, option) in mount.options.iter().enumerate() {
            maps.check_option(&format!("mounts[{index}].options[{place}]"), option)?;
        }
    }
    Ok(Some(maps))
}

/// Refuses mappings of a user namespace that is joined, which has its own, unless they are the
/// same: some engines repeat them.
///
/// # Errors
/// The field whose mappings are others.
pub(super) fn check_joined(config: &Config, joined: Option<&OwnedFd>) -> anyhow::Result<()> {
    let linux = &config.linux;
    let (Some(joined), Some(path)) = (joined, linux.namespaces.path(Kind::User)) else {
        return Ok(());
    };
    if linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty() {
        return Ok(());
    }
    let texts = match maps_of_path(path, joined) {
        Some(texts) => texts,
        None => maps_of(joined).context("read the mappings of the user namespace to join")?,
    };
    let fields = ["linux.uidMappings", "linux.gidMappings"];
    let given = [&linux.uid_mappings, &linux.gid_mappings];
    for ((field, given), text) in fields.into_iter().zip(given).zip(texts) {
        if parse_map(&text).map(sorted) != Some(sorted(given.clone())) {
            let problem = format!(
                "are not the mappings of the user namespace {path:?} that is joined: leave them out"
            );
            return Err(FieldError::new(field, problem).into());
        }
    }
    Ok(())
}

fn sorted(mut mappings: Vec<IdMapping>) -> Vec<IdMapping> {
    mappings.sort_unstable_by_key(|mapping| mapping.container_id);
    mappings
}

/// The maps where `path` is `/proc/PID/ns/user`, as it mostly is: the process has them beside it.
fn maps_of_path(path: &Path, joined: &OwnedFd) -> Option<[String; 2]> {
    let process = path.strip_prefix("/proc").ok()?.parent()?.parent()?;
    let dir = Path::new("/proc").join(process);
    let [uids, gids] = ["uid_map", "gid_map"].map(|file| fs::read_to_string(dir.join(file)).ok());
    // Afterwards: the process may have ended, and its id have gone to another.
    let is_the_same = fs::metadata(path).ok()?.ino() == fstat(joined).ok()?.st_ino;
    is_the_same.then_some([uids?, gids?])
}

/// The maps of any user namespace: those of a short-lived process that joins it.
fn maps_of(namespace: &OwnedFd) -> anyhow::Result<[String; 2]> {
    ensure!(has_one_thread()?, "the runtime has more than one thread");
    let (their_reader, our_writer) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    let (our_reader, their_writer) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    // SAFETY: this process has one thread, which was just counted.
    match unsafe { clone3(CloneArgs::default()) }.called(|| "clone3()".into())? {
        Cloned::Child => {
            drop((our_writer, our_reader));
            let joined = namespaces::enter(Kind::User, namespace).is_ok();
            let told = write(&their_writer, &[u8::from(joined)]);
            // Ends with the runtime, at the latest.
            while read(&their_reader, &mut [0]) == Err(Errno::EINTR) {}
            std::process::exit(i32::from(told.is_err()))
        }
        Cloned::Parent { pid, .. } => {
            drop((their_reader, their_writer));
            let read = read_maps(&our_reader, pid);
            drop(our_writer);
            waitpid(pid, None).context("waitpid")?;
            read
        }
    }
}

fn read_maps(reader: &OwnedFd, pid: Pid) -> anyhow::Result<[String; 2]> {
    let mut joined = [0];
    read(reader, &mut joined).context("read")?;
    ensure!(joined == [1], "it cannot be joined");
    let text = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("read {path:?}"))
    };
    Ok([text("uid_map")?, text("gid_map")?])
}
