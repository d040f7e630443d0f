//! `restore`: CRIU brings the processes of a checkpoint back, as a new container.
//!
//! ```text
//! runtime                                        criu, in the container's cgroup
//! plan, state directory, cgroup, as `create`
//! mount points in the root
//! request ------------------------------------->
//!                                                namespaces, mounts
//! prestart, createRuntime hooks <--------------> setup-namespaces
//! terminal to the console socket <-------------- orphan-pts-master
//! state.json                    <--------------> post-restore
//!         <------------------------------------- the processes run
//! pid file, poststart hooks
//! ```

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, bail};
use bundles::FieldError;
use bundles::config::Config;
use bundles::config::linux::namespaces::Kind;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::Pid;

use super::create::{Request, cgroup_owner, run_runtime_hooks, write_pid_file};
use super::images::{
    DESCRIPTORS, Directories, External, Images, Make, NULL, check_kept, converse, external_mounts,
    text, tidy,
};
use super::images_owner;
use super::mount_points::mount_points;
use super::prepare::{Prepared, forgive_lack_of_rights, prepare, write_files};
use super::run::{Afterwards, Running, follow, take_signals};
use super::undo::Made;
use crate::cgroups::mounts::View;
use crate::cgroups::{Cgroup, WayIn};
use crate::container::state::Process;
use crate::container::state_dir::StateDir;
use crate::criu::rpc::{
    self, CgroupRoot, ExternalMount, InheritFd, JoinNamespace, Options, Request as Message,
};
use crate::criu::{self, Service, Surroundings};
use crate::logging;
use crate::process::{notify, stdio};
use crate::sys::pidfd::pidfd_open;

/// What is asked for beside what `checkpoint` and `create` are asked for, too.
#[derive(Debug)]
pub(crate) struct Saved {
    /// The images.
    pub(crate) images: Images,
    /// `--lsm-profile`.
    pub(crate) lsm_profile: Option<String>,
    /// `--lsm-mount-context`.
    pub(crate) lsm_mount_context: Option<String>,
}

/// What CRIU calls joined namespaces that it is given as descriptors.
pub(super) const EXTERNAL_NAMESPACES: [(Kind, &str); 2] =
    [(Kind::Network, "extRootNetNS"), (Kind::Pid, "extRootPidNS")];

/// The name of CRIU's log, which engines look for.
const LOG: &str = "restore.log";

/// Brings a container back. Returns the exit status to pass on, as `run` does.
///
/// # Errors
/// As [`super::create::create`]'s; there is no CRIU; or why CRIU does not bring it back, and then
/// nothing of it is left.
pub(crate) fn restore(
    request: &Request<'_>,
    saved: &Saved,
    afterwards: Afterwards,
) -> anyhow::Result<u8> {
    let signals = take_signals(request.mode, afterwards)?;
    let mut prepared = prepare(request)?;
    check_kept(&prepared.config, &prepared.state.template).context("config.json")?;
    check(request, saved)?;
    let (directories, _) = saved.images.open(LOG, Make::No)?;
    images_owner::let_read(
        &directories.images,
        &prepared.config,
        saved.images.auto_dedup,
    )?;
    let mut made = Made::default();
    let running = bring_back(request, saved, &mut prepared, &directories, &mut made)?;
    made.cgroup = None;
    made.unit = None;
    made.rdt = None;
    follow(request, running, signals, afterwards)
}

/// What CRIU must be able to do, before anything is made.
fn check(request: &Request<'_>, saved: &Saved) -> anyhow::Result<()> {
    let version = criu::version()?;
    version.check(criu::OLDEST)?;
    for (flag, label) in [
        ("--lsm-profile", &saved.lsm_profile),
        ("--lsm-mount-context", &saved.lsm_mount_context),
    ] {
        if label.is_some() {
            version.check(criu::LABELS).context(flag)?;
        }
    }
    if request.choices.no_pivot {
        logging::warn("--no-pivot: criu changes the root as it does always");
    }
    Ok(())
}

/// Makes the container's directory and cgroup, and has CRIU fill them.
fn bring_back(
    request: &Request<'_>,
    saved: &Saved,
    prepared: &mut Prepared,
    directories: &Directories,
    made: &mut Made,
) -> anyhow::Result<Running> {
    let config = &prepared.config;
    let mut options = Options {
        root: Some(text(&prepared.state.rootfs)?),
        rst_sibling: Some(true),
        evasive_devices: Some(true),
        lsm_profile: saved.lsm_profile.clone(),
        lsm_mount_context: saved.lsm_mount_context.clone(),
        join_ns: namespaces_to_join(config).context("config.json")?,
        ..saved
            .images
            .options(directories, config, &config.annotations)
    };
    let dir = made.dir.insert(StateDir::create(request.root, request.id)?);
    write_files(dir, &prepared.state, &prepared.plan, prepared.notifies)?;
    options.ext_mnt = mounts(dir, prepared)?;
    let inherited = inherit(config, directories, &mut options)?;
    let service = start(request, prepared, &inherited, made)?;
    let _open = directories.seen_by(service.pid(), &mut options)?;
    options.cg_root = cgroup_roots(service.pid())?;
    service.ask(&Message {
        kind: rpc::Kind::Restore.into(),
        opts: Some(options),
        ..Message::default()
    })?;
    let master = hear(service, prepared, directories, made)?;
    let (Some(dir), Some((pid, pidfd))) = (made.dir.take(), made.init.take()) else {
        bail!("criu has brought no process back");
    };
    if let Some(file) = request.pid_file
        && let Err(error) = write_pid_file(file, pid)
    {
        (made.dir, made.init) = (Some(dir), Some((pid, pidfd)));
        return Err(error).with_context(|| format!("write the pid file {file:?}"));
    }
    Ok(Running {
        dir,
        state: prepared.state.clone(),
        pid,
        pidfd,
        master,
        notify: None,
    })
}

/// Makes the cgroup with its limits, and starts CRIU in it: its children are the container.
fn start(
    request: &Request<'_>,
    prepared: &mut Prepared,
    inherited: &[OwnedFd],
    made: &mut Made,
) -> anyhow::Result<Service> {
    let resources = &prepared.config.linux.resources;
    let rootless = request.globals.rootless;
    let planned = Cgroup::from_record(&prepared.state.cgroup);
    let cgroup = made
        .cgroup
        .insert(std::mem::replace(&mut prepared.cgroup, planned));
    cgroup.create().context("make the cgroup")?;
    forgive_lack_of_rights(cgroup.apply_before_entry(resources), rootless)
        .context("config.json")?;
    let surroundings = Surroundings {
        cgroups: ways_in(cgroup.way_in().context("open the cgroup")?)?,
        root: prepared
            .config
            .linux
            .namespaces
            .has(Kind::Mount)
            .then(|| CString::new(prepared.state.rootfs.as_os_str().as_bytes()))
            .transpose()?,
    };
    let service = Service::start(Some(surroundings), inherited)?;
    if let (Some(scope), Some(layout)) = (&mut prepared.scope, &prepared.layout) {
        let started = scope.start(service.pid(), resources, layout.kind());
        made.unit = scope.started();
        started.context("config.json")?;
    }
    if let (Some(rdt), Some(groups)) = (prepared.rdt.take(), &prepared.state.rdt) {
        let groups = made.rdt.insert(groups.clone());
        rdt.make(groups).context("config.json")?;
        groups.enter(service.pid()).context("config.json")?;
    }
    forgive_lack_of_rights(cgroup.apply(resources), rootless).context("config.json")?;
    if let Some(owner) = cgroup_owner(&prepared.config) {
        forgive_lack_of_rights(cgroup.delegate(owner), rootless).context("hand over the cgroup")?;
    }
    Ok(service)
}

/// The files to write oneself into.
fn ways_in(way_in: WayIn) -> anyhow::Result<Vec<OwnedFd>> {
    let mut files = way_in.tasks;
    if let Some(directory) = way_in.clone_into {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let procs = openat(&directory, "cgroup.procs", flags, FileMode::empty());
        files.push(procs.context("open cgroup.procs")?);
    }
    Ok(files)
}

/// Does what CRIU waits for; returns the terminal's master, if it is ours.
fn hear(
    service: Service,
    prepared: &mut Prepared,
    directories: &Directories,
    made: &mut Made,
) -> anyhow::Result<Option<OwnedFd>> {
    let mut kept = None;
    let Prepared {
        config,
        state,
        console,
        ..
    } = prepared;
    converse(service, directories, |script, pid, fd| match script {
        "setup-namespaces" => {
            state.init = Process::of(pid);
            run_runtime_hooks(config, state)
        }
        "orphan-pts-master" => {
            let master = fd.context("criu has sent no terminal")?;
            match &console {
                Some(socket) => stdio::send_console(socket, "/dev/ptmx", &master)
                    .context("send the terminal to the console socket")?,
                None => kept = Some(master),
            }
            Ok(())
        }
        "post-restore" => {
            state.init = Process::of(pid);
            made.init = Some((pid, pidfd_open(pid).context("pidfd_open")?));
            match &made.dir {
                Some(dir) => Ok(dir.write_state(state)?),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    })?;
    Ok(kept)
}

/// The namespaces that processes enter once they are there.
fn namespaces_to_join(config: &Config) -> Result<Vec<JoinNamespace>, FieldError> {
    let mut joined = Vec::new();
    for namespace in config.linux.namespaces.iter() {
        let Some(path) = &namespace.path else {
            continue;
        };
        match namespace.kind {
            Kind::Network | Kind::Pid => {}
            Kind::Cgroup => {
                let field = format!("linux.namespaces[{}].path", namespace.index);
                return Err(FieldError::new(field, "criu joins no cgroup namespace"));
            }
            kind => joined.push(JoinNamespace {
                ns: kind.proc_name().to_owned(),
                ns_file: path.display().to_string(),
            }),
        }
    }
    Ok(joined)
}

/// Opens the descriptors that CRIU puts in the place of what the images only name.
fn inherit(
    config: &Config,
    directories: &Directories,
    options: &mut Options,
) -> anyhow::Result<Vec<OwnedFd>> {
    let mut opened = Vec::new();
    for (kind, name) in EXTERNAL_NAMESPACES {
        let Some(path) = config.linux.namespaces.path(kind) else {
            continue;
        };
        let file = File::open(path).with_context(|| format!("open {path:?}"))?;
        options.inherit_fd.push(InheritFd {
            key: name.to_owned(),
            fd: file.as_raw_fd(),
        });
        opened.push(file.into());
    }
    let descriptors = match fs::read(directories.image(DESCRIPTORS)) {
        // Of a checkpoint that criu itself has made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(opened),
        read => read.with_context(|| format!("--image-path: read {DESCRIPTORS:?}"))?,
    };
    let descriptors: Vec<String> = serde_json::from_slice(&descriptors)
        .with_context(|| format!("--image-path: read {DESCRIPTORS:?}"))?;
    for (fd, key) in (0..3).zip(descriptors) {
        let is_given = options.inherit_fd.iter().any(|given| given.key == key);
        if key.starts_with("pipe:") && !is_given {
            options.inherit_fd.push(InheritFd { key, fd });
        }
    }
    Ok(opened)
}

/// Where the dumped cgroups go: to those that CRIU is in.
fn cgroup_roots(criu: Pid) -> anyhow::Result<Vec<CgroupRoot>> {
    let path = format!("/proc/{criu}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path:?}"))?;
    Ok(parse_cgroup_roots(&text))
}

fn parse_cgroup_roots(text: &str) -> Vec<CgroupRoot> {
    let is_unified = text.lines().count() == 1;
    let mut roots = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        roots.extend(controllers.split(',').map(|name| CgroupRoot {
            ctrl: (!is_unified).then(|| name.to_owned()),
            path: path.to_owned(),
        }));
    }
    roots
}

/// The host's mounts that the container gets, under the names that `checkpoint` gave them; what
/// they are mounted on is made where it is missing.
fn mounts(dir: &StateDir, prepared: &Prepared) -> anyhow::Result<Vec<ExternalMount>> {
    let Prepared {
        config,
        state,
        cgroup,
        layout,
        ..
    } = prepared;
    let view = View::of(&config.linux.namespaces);
    let cgroups = cgroup.mount_list(layout.as_ref(), view);
    let mut external = external_mounts(config, &state.bundle, &cgroups).context("config.json")?;
    if prepared.notifies {
        external.push(External {
            destination: notify::IN_CONTAINER.into(),
            source: notify::directory(&dir.file("")),
        });
    }
    let points = mount_points(&state.rootfs, &prepared.plan.rootfs.mounts)?;
    let mut found = Vec::new();
    for External {
        destination,
        source,
    } in external
    {
        let tidied = tidy(&destination);
        let point = points.iter().find(|(asked, _)| *asked == tidied);
        found.push(ExternalMount {
            key: text(point.map_or(&tidied, |(_, found)| found))?,
            val: text(&source)?,
        });
    }
    if !config.linux.masked_paths.is_empty() && found.iter().all(|mount| mount.key != NULL) {
        found.push(ExternalMount {
            key: NULL.to_owned(),
            val: NULL.to_owned(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_every_controller_go_where_criu_is() {
        let named = |ctrl: Option<&str>, path: &str| CgroupRoot {
            ctrl: ctrl.map(str::to_owned),
            path: path.to_owned(),
        };
        assert_eq!(parse_cgroup_roots("0::/a:b\n"), [named(None, "/a:b")]);
        assert_eq!(
            parse_cgroup_roots("5:cpu,cpuacct:/c\n1:name=systemd:/d\n0::/e\n"),
            [
                named(Some("cpu"), "/c"),
                named(Some("cpuacct"), "/c"),
                named(Some("name=systemd"), "/d"),
                named(Some(""), "/e"),
            ]
        );
    }
}
