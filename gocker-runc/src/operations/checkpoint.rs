//! `checkpoint`: CRIU saves the container's processes.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use bundles::Bundle;
use bundles::config::Config;
use bundles::config::linux::namespaces::Kind;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::SFlag;
use nix::unistd::write;

use super::images::{
    DESCRIPTORS, Directories, Images, Make, NULL, check_kept, converse, external_mounts, place,
    text,
};
use super::{State, delete, status};
use crate::cgroups::Cgroup;
use crate::cgroups::detect::Layout;
use crate::cgroups::mounts::View;
use crate::container::state_dir::StateDir;
use crate::container::status::Status;
use crate::criu::rpc::{self, ExternalMount, Features, Options, PageServer, Request as Message};
use crate::criu::{self, Service};
use crate::process::notify;
use crate::sys::in_root::{RootFd, file_type};
use crate::sys::process::copy_of_inherited;

/// What is asked for beside what `restore` is asked for, too.
#[derive(Debug)]
pub(crate) struct Request {
    /// The images, and how to make them.
    pub(crate) images: Images,
    /// `--parent-path`.
    pub(crate) parent_path: Option<PathBuf>,
    /// `--leave-running`.
    pub(crate) leave_running: bool,
    /// `--tcp-skip-in-flight`.
    pub(crate) tcp_skip_in_flight: bool,
    /// `--link-remap`.
    pub(crate) link_remap: bool,
    /// `--status-fd`.
    pub(crate) status_fd: Option<i32>,
    /// `--page-server`: its address and port.
    pub(crate) page_server: Option<(String, u16)>,
    /// `--pre-dump`.
    pub(crate) pre_dump: bool,
}

/// The name of CRIU's log, which engines look for.
const LOG: &str = "dump.log";

/// Saves container `id`, which is deleted then, unless it is to stay.
///
/// # Errors
/// It does not run; there is no CRIU; or why CRIU does not save it, and then it runs on.
pub(crate) fn checkpoint(root: &Path, id: &str, request: &Request) -> anyhow::Result<()> {
    let (dir, state, status) = status::locked(root, id)?;
    ensure!(
        matches!(status, Status::Running | Status::Paused),
        "cannot checkpoint a container in the {status} state"
    );
    let bundle = Bundle::open(&state.bundle)?;
    let config = Config::from_spec(&bundle.spec).context("config.json")?;
    check_kept(&config, &state.template).context("config.json")?;
    let status_fd = request.status_fd.map(open_status_fd).transpose()?;
    check(request)?;
    let (directories, is_new) = request.images.open(LOG, Make::Yes)?;
    let dumped = dump(request, &dir, &state, &config, &directories)
        .and_then(|service| hear(service, &directories, status_fd));
    if let Err(error) = dumped {
        if is_new {
            discard(&request.images.path, directories.log());
        }
        return Err(error);
    }
    if request.leave_running || request.pre_dump {
        return Ok(());
    }
    delete::kill_and_remove(dir, &state)
}

/// What CRIU and the machine must be able to do, before anything is made.
fn check(request: &Request) -> anyhow::Result<()> {
    if let Some(parent) = request
        .parent_path
        .as_ref()
        .filter(|path| path.is_absolute())
    {
        bail!("--parent-path: {parent:?} is absolute, and has to be relative to --image-path");
    }
    criu::version()?.check(criu::OLDEST)?;
    let wanted = Features {
        mem_track: (request.pre_dump || request.parent_path.is_some()).then_some(true),
        lazy_pages: request.images.lazy_pages.then_some(true),
    };
    if wanted == Features::default() {
        return Ok(());
    }
    let found = criu::features(wanted)?;
    if wanted.mem_track.is_some() && !found.mem_track() {
        bail!("--pre-dump and --parent-path: this kernel does not keep track of memory for criu");
    }
    if wanted.lazy_pages.is_some() && !found.lazy_pages() {
        bail!("--lazy-pages: this kernel has not what criu needs of userfaultfd(2)");
    }
    Ok(())
}

/// The images of an earlier checkpoint are found from those of this one.
fn check_parent(parent: &Path, images: &Path) -> anyhow::Result<()> {
    let parent = images.join(parent);
    ensure!(
        parent.is_dir(),
        "--parent-path: {parent:?} is not a directory"
    );
    Ok(())
}

/// The descriptor that is told when the server of lazy pages is ready.
fn open_status_fd(number: i32) -> anyhow::Result<OwnedFd> {
    let fd = copy_of_inherited(number)
        .with_context(|| format!("--status-fd: {number} is not an open descriptor"))?;
    let flags = fcntl(&fd, FcntlArg::F_GETFL).context("--status-fd: fcntl(F_GETFL)")?;
    let access = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
    ensure!(
        access == OFlag::O_WRONLY || access == OFlag::O_RDWR,
        "--status-fd: {number} is not open for writing"
    );
    Ok(fd)
}

/// Asks CRIU to save the container.
fn dump(
    request: &Request,
    dir: &StateDir,
    state: &State,
    config: &Config,
    directories: &Directories,
) -> anyhow::Result<Service> {
    if let Some(parent) = &request.parent_path {
        check_parent(parent, &request.images.path)?;
    }
    let pid = state.init.context("container not running")?.pid;
    let mut options = Options {
        pid: Some(pid),
        root: Some(text(&state.rootfs)?),
        leave_running: request.leave_running.then_some(true),
        tcp_skip_in_flight: request.tcp_skip_in_flight.then_some(true),
        link_remap: request.link_remap.then_some(true),
        parent_img: request.parent_path.as_deref().map(text).transpose()?,
        track_mem: (request.pre_dump || request.parent_path.is_some()).then_some(true),
        page_server: request
            .page_server
            .as_ref()
            .map(|(address, port)| PageServer {
                address: Some(address.clone()),
                port: Some(i32::from(*port)),
            }),
        external: external_namespaces(pid, config)?,
        ..request
            .images
            .options(directories, config, &state.annotations)
    };
    let cgroup = Cgroup::from_record(&state.cgroup);
    options.freeze_cgroup = cgroup.freezer_dir().map(text).transpose()?;
    let kind = if request.pre_dump {
        rpc::Kind::PreDump
    } else {
        options.ext_mnt = mounts(pid, dir, state, config, &cgroup)?;
        write_descriptors(pid, directories)?;
        rpc::Kind::Dump
    };
    let service = Service::start(None, &[])?;
    service.ask(&Message {
        kind: kind.into(),
        opts: Some(options),
        ..Message::default()
    })?;
    Ok(service)
}

fn hear(
    service: Service,
    directories: &Directories,
    mut status_fd: Option<OwnedFd>,
) -> anyhow::Result<()> {
    converse(service, directories, |script, _, _| {
        if script == "status-ready"
            && let Some(fd) = status_fd.take()
        {
            write(&fd, &[0]).context("--status-fd: write")?;
        }
        Ok(())
    })
    .map(drop)
}

/// Network and PID namespaces that were joined are not the container's to save; CRIU finds those of
/// `restore` under these names.
fn external_namespaces(pid: i32, config: &Config) -> anyhow::Result<Vec<String>> {
    let namespaces = &config.linux.namespaces;
    let joined = super::restore::EXTERNAL_NAMESPACES
        .iter()
        .filter(|(kind, _)| namespaces.path(*kind).is_some());
    let described = joined.map(|(kind, name)| {
        let path = format!("/proc/{pid}/ns/{}", kind.proc_name());
        let inode = fs::metadata(&path)
            .with_context(|| format!("stat {path:?}"))?
            .ino();
        Ok(format!("{}[{inode}]:{name}", kind.proc_name()))
    });
    described.collect()
}

/// The mounts that are the host's, under the names that `restore` looks for.
fn mounts(
    pid: i32,
    dir: &StateDir,
    state: &State,
    config: &Config,
    cgroup: &Cgroup,
) -> anyhow::Result<Vec<ExternalMount>> {
    if !config.linux.namespaces.has(Kind::Mount) {
        return Ok(Vec::new());
    }
    let path = PathBuf::from(format!("/proc/{pid}/root"));
    let root = RootFd::open(&path)?;
    // In its own namespace the root is called so.
    let top = Path::new("/");
    let layout = Layout::detect(Path::new("/proc")).ok();
    let view = View::of(&config.linux.namespaces);
    let cgroups = cgroup.mount_list(layout.as_ref(), view);
    let mut found = Vec::new();
    let mut add = |destination: &Path, name: Option<&str>| -> anyhow::Result<()> {
        let key = text(&place(&root, top, destination))?;
        let val = name.map_or_else(|| key.clone(), str::to_owned);
        found.push(ExternalMount { key, val });
        Ok(())
    };
    for external in external_mounts(config, &state.bundle, &cgroups).context("config.json")? {
        add(&external.destination, None)?;
    }
    for masked in &config.linux.masked_paths {
        let masked = Path::new(masked);
        let file = root.open_beneath(masked, OFlag::O_PATH).ok();
        let is_file = file.is_some_and(|file| file_type(&file).is_ok_and(|t| t != SFlag::S_IFDIR));
        if is_file {
            add(masked, Some(NULL))?;
        }
    }
    if notify::directory(&dir.file("")).is_dir() {
        add(Path::new(notify::IN_CONTAINER), None)?;
    }
    Ok(found)
}

/// Keeps what the first process's standard descriptors are, for `restore` to put others in the
/// place of pipes.
fn write_descriptors(pid: i32, directories: &Directories) -> anyhow::Result<()> {
    let name = |number: i32| {
        let link = format!("/proc/{pid}/fd/{number}");
        let name = fs::read_link(link).unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let json = serde_json::to_vec(&[name(0), name(1), name(2)]).context("descriptors")?;
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(directories.image(DESCRIPTORS))
        .and_then(|mut file| file.write_all(&json))
        .with_context(|| format!("--image-path: write {DESCRIPTORS:?}"))
}

/// Removes from the images' directory, which this command has made, all but `log`.
fn discard(path: &Path, log: &Path) {
    // The first error is the one to tell.
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if Some(entry.file_name().as_os_str()) != log.file_name() {
            drop(fs::remove_file(entry.path()));
        }
    }
    drop(fs::remove_dir(path));
}
