//! The plan of a container's root filesystem: config.json's mounts, checked and in order.
//!
//! Spec: config.md#mounts, config-linux.md

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use bundles::FieldError;
use bundles::config::Config;
use bundles::config::linux::namespaces::Kind;
use bundles::config::mounts::Mount;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::cgroup_mounts;
use super::plan::{Choices, c_string};
use crate::cgroups::Record;
use crate::cgroups::mounts::CgroupMounts;
use crate::container::state::State;
use crate::lsm;
use crate::rootfs::RootfsPlan;
use crate::rootfs::devices::Nodes;
use crate::rootfs::idmapped::{IdMap, Ids};
use crate::rootfs::mount::{MountPlan, What};
use crate::rootfs::mount_options::MountOptions;
use crate::rootfs::pivot::Pivot;
use crate::sys::errno::describe;
use crate::sys::mount_api::Recursive;

/// Makes the plan of a container's root.
///
/// # Errors
/// The mount or other field that cannot be served.
pub(super) fn plan(
    config: &Config,
    state: &State<Record>,
    choices: Choices,
    mounts: &CgroupMounts,
) -> Result<RootfsPlan, FieldError> {
    let linux = &config.linux;
    let pivot = match (linux.namespaces.has(Kind::Mount), choices.no_pivot) {
        (false, _) => Pivot::Chroot,
        (true, true) => Pivot::Move,
        (true, false) => Pivot::Swap,
    };
    if pivot == Pivot::Chroot {
        check_without_mount_namespace(config)?;
    }
    lsm::check_mount_label(linux.mount_label.as_deref())?;
    let mount_label = linux.mount_label.as_ref();
    let mount_label = mount_label
        .map(|label| c_string("linux.mountLabel", label.as_bytes()))
        .transpose()?;
    let mut planned = Vec::with_capacity(config.mounts.len());
    let mut links = Vec::new();
    for (index, mount) in config.mounts.iter().enumerate() {
        let options = MountOptions::parse(index, &mount.options)?;
        check_destination(index, mount, &options)?;
        if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
            let (mounts, more) = cgroup_mounts::plan(mount, &options, mounts)?;
            planned.extend(mounts);
            links.extend(more);
        } else {
            let mut mount = plan_mount(index, mount, options, &state.bundle, config)?;
            if let Some(label) = &mount_label {
                set_label(&mut mount, label);
            }
            planned.push(mount);
        }
    }
    let in_user_namespace = linux.namespaces.has(Kind::User);
    let host_dev = config
        .mounts
        .iter()
        .any(|m| m.destination == Path::new("/dev") && m.is_bind());
    let nodes = if in_user_namespace {
        Nodes::Bind
    } else {
        Nodes::Make
    };
    Ok(RootfsPlan {
        path: state.rootfs.clone(),
        readonly: config.root_readonly,
        propagation: linux.rootfs_propagation,
        mounts: planned,
        unsealed: Vec::new(),
        links,
        dev: (!host_dev && pivot != Pivot::Chroot).then_some(nodes),
        devices: linux.devices.clone(),
        mount_label,
        masked_paths: linux.masked_paths.clone(),
        readonly_paths: linux.readonly_paths.clone(),
        pivot,
    })
}

/// Has the files of a new filesystem labelled. procfs, sysfs and cgroups have labels of the
/// policy's own; mqueue takes one for its top only, and not as a parameter.
fn set_label(mount: &mut MountPlan, label: &CString) {
    let What::Filesystem { kind, .. } = &mount.what else {
        return;
    };
    match kind.to_bytes() {
        b"proc" | b"sysfs" => {}
        b"mqueue" => mount.options.label = Some(label.clone()),
        _ => {
            let context = (c"context".to_owned(), Some(label.clone()));
            mount.options.data.push(context);
        }
    }
}

/// Refuses a destination that is the root itself, which no mount can take the place of: the
/// container's processes start below it.
fn check_destination(
    index: usize,
    mount: &Mount,
    options: &MountOptions,
) -> Result<(), FieldError> {
    let mut depth = 0_usize;
    for component in mount.destination.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.saturating_sub(1),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if depth > 0 || options.remount {
        return Ok(());
    }
    let problem = format!(
        "{:?} is the root itself, which root.path says",
        mount.destination
    );
    Err(FieldError::new(
        format!("mounts[{index}].destination"),
        problem,
    ))
}

/// Refuses a source that is not there before anything is made. What cannot be told yet, because
/// this user may not look or another mount namespace is joined, is told when it is opened.
fn check_source(index: usize, source: &Path, config: &Config) -> Result<(), FieldError> {
    if config.linux.namespaces.path(Kind::Mount).is_some() {
        return Ok(());
    }
    match access(source, AccessFlags::F_OK) {
        Err(errno @ (Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG)) => {
            let problem = format!("{source:?}: {}", describe(errno));
            Err(FieldError::new(format!("mounts[{index}].source"), problem))
        }
        _ => Ok(()),
    }
}

/// Without a mount namespace every mount would be the host's.
fn check_without_mount_namespace(config: &Config) -> Result<(), FieldError> {
    let linux = &config.linux;
    let given = [
        ("mounts", !config.mounts.is_empty()),
        ("linux.maskedPaths", !linux.masked_paths.is_empty()),
        ("linux.readonlyPaths", !linux.readonly_paths.is_empty()),
        ("linux.devices", !linux.devices.is_empty()),
        (
            "linux.rootfsPropagation",
            linux.rootfs_propagation.is_some(),
        ),
        ("root.readonly", config.root_readonly),
        (
            "process.terminal",
            config
                .process
                .as_ref()
                .is_some_and(|process| process.terminal),
        ),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(FieldError::new(
            *field,
            "is given without a mount namespace, and would change the host's mounts",
        )),
        None => Ok(()),
    }
}

fn plan_mount(
    index: usize,
    mount: &Mount,
    mut options: MountOptions,
    bundle: &Path,
    config: &Config,
) -> Result<MountPlan, FieldError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    if options.copy_up && mount.kind != "tmpfs" {
        return Err(FieldError::new(
            field("options"),
            "tmpcopyup is for a tmpfs",
        ));
    }
    let source = mount.source.clone().unwrap_or_default();
    let what = if options.remount {
        // The filesystem of a bind mount is the host's.
        if let Some((key, _)) = options.data.first().filter(|_| mount.is_bind()) {
            let problem = format!("{key:?} means nothing for a bind mount");
            return Err(FieldError::new(field("options"), problem));
        }
        What::Remount
    } else if mount.is_bind() {
        for (key, value) in options.data.drain(..) {
            let problem = format!("{key:?} means nothing for a bind mount");
            let field = field("options");
            // runc takes a filesystem's parameters here, and the kernel passes them over: there
            // are such configurations. A mere word is one that nobody knows.
            if value.is_none() {
                return Err(FieldError::new(field, problem));
            }
            crate::logging::warn(&format!("config.json: {field}: {problem}"));
        }
        // Spec: config.md#mounts: a relative source is taken from the bundle.
        let source = bundle.join(source);
        check_source(index, &source, config)?;
        What::Bind { source, tree: None }
    } else {
        What::Filesystem {
            kind: c_string(&field("type"), mount.kind.as_bytes())?,
            source: c_string(&field("source"), source.as_os_str().as_bytes())?,
            fallback: None,
        }
    };
    let id_map = plan_id_map(index, mount, &options, config)?;
    Ok(MountPlan {
        destination: mount.destination.clone(),
        what,
        options,
        id_map,
    })
}

/// A mapping of the mount's own, or the container's.
///
/// Spec: config.md#linux-mount-options (idmap, ridmap)
fn plan_id_map(
    index: usize,
    mount: &Mount,
    options: &MountOptions,
    config: &Config,
) -> Result<Option<IdMap>, FieldError> {
    let refuse = |name: &str, problem: &str| {
        Err(FieldError::new(format!("mounts[{index}].{name}"), problem))
    };
    let own = !mount.uid_mappings.is_empty();
    if !own && options.id_map.is_none() {
        return Ok(None);
    }
    if !mount.is_bind() || options.remount {
        return refuse("options", "idmap and ridmap are for a bind mount");
    }
    let linux = &config.linux;
    let ids = if own {
        Ids::Mapped(mount.uid_mappings.clone(), mount.gid_mappings.clone())
    } else if linux.namespaces.is_new(Kind::User) {
        Ids::Mapped(linux.uid_mappings.clone(), linux.gid_mappings.clone())
    } else if let Some(path) = linux.namespaces.path(Kind::User) {
        Ids::OfNamespace(path.to_owned())
    } else {
        return refuse(
            "options",
            "idmap needs uidMappings and gidMappings where the container has no user namespace",
        );
    };
    Ok(Some(IdMap {
        mount: index,
        recursive: options.id_map.unwrap_or(Recursive::No),
        ids,
    }))
}
