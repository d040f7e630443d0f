//! What `checkpoint` and `restore` have in common: the directories, the options of CRIU's, and
//! the mounts of a container that are not its own.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use bundles::FieldError;
use bundles::config::Config;
use bundles::config::linux::namespaces::Kind;
use nix::fcntl::{OFlag, readlink};
use nix::unistd::Pid;

use super::create::listener;
use crate::cgroups::mounts::{CgroupMounts, V1Source};
use crate::container::state::Template;
use crate::criu::rpc::{CgroupsMode, Options, Response};
use crate::criu::{self, Answer, Service, log};
use crate::logging;
use crate::rootfs::devices;
use crate::sys::in_root::RootFd;

/// What both commands are asked for.
#[derive(Debug)]
pub(crate) struct Images {
    /// `--image-path`.
    pub(crate) path: PathBuf,
    /// `--work-path`; None is the images' directory.
    pub(crate) work_path: Option<PathBuf>,
    /// `--tcp-established`.
    pub(crate) tcp_established: bool,
    /// `--ext-unix-sk`.
    pub(crate) ext_unix_sk: bool,
    /// `--shell-job`.
    pub(crate) shell_job: bool,
    /// `--file-locks`.
    pub(crate) file_locks: bool,
    /// `--manage-cgroups-mode`.
    pub(crate) cgroups: CgroupsMode,
    /// `--empty-ns network`.
    pub(crate) empty_network: bool,
    /// `--lazy-pages`.
    pub(crate) lazy_pages: bool,
    /// `--auto-dedup`.
    pub(crate) auto_dedup: bool,
}

/// The directories, open.
#[derive(Debug)]
pub(super) struct Directories {
    pub(super) images: File,
    work: Option<File>,
    log: PathBuf,
}

/// A mount that belongs to the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct External {
    /// Where, in the container; as the configuration says it.
    pub(super) destination: PathBuf,
    /// What the host has there.
    pub(super) source: PathBuf,
}

/// What the standard descriptors of the container's first process were.
///
/// The name and the form are runc's, so that images can be taken from one to the other.
pub(super) const DESCRIPTORS: &str = "descriptors.json";

/// What stands for the null device in images, where it masks a file.
pub(super) const NULL: &str = "/dev/null";

/// CRIU's options for every container, where no annotation names others.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";

/// Names the file of a container's own.
pub(super) const CONFIG_FILE_ANNOTATION: &str = "org.criu.config";

/// What CRIU says while it works: enough to find out afterwards why it did not.
const LOG_LEVEL: i32 = 4;

impl Images {
    /// Opens the directories; `log` is the name of CRIU's log. Returns whether the images' was
    /// made, too, where that is `allowed`.
    ///
    /// # Errors
    /// A directory that is not there, or is none.
    pub(super) fn open(&self, log: &str, allowed: Make) -> anyhow::Result<(Directories, bool)> {
        let mut was_made = false;
        if allowed == Make::Yes && !self.path.exists() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder
                .create(&self.path)
                .with_context(|| format!("--image-path: make {:?}", self.path))?;
            was_made = true;
        }
        let images = open_directory("--image-path", &self.path)?;
        let work = self.work_path.as_deref();
        let work = work
            .map(|path| open_directory("--work-path", path))
            .transpose()?;
        let log = self.work_path.as_deref().unwrap_or(&self.path).join(log);
        let log = std::path::absolute(&log).unwrap_or(log);
        Ok((Directories { images, work, log }, was_made))
    }

    /// The options that both requests have.
    pub(super) fn options(
        &self,
        directories: &Directories,
        config: &Config,
        annotations: &HashMap<String, String>,
    ) -> Options {
        let log = directories.log.file_name().unwrap_or_default();
        let yes = |wanted: bool| wanted.then_some(true);
        Options {
            images_dir_fd: directories.images.as_raw_fd(),
            work_dir_fd: directories.work.as_ref().map(AsRawFd::as_raw_fd),
            log_level: Some(LOG_LEVEL),
            log_file: Some(log.to_string_lossy().into_owned()),
            notify_scripts: Some(true),
            orphan_pts_master: Some(true),
            tcp_established: yes(self.tcp_established),
            ext_unix_sk: yes(self.ext_unix_sk),
            shell_job: yes(self.shell_job),
            file_locks: yes(self.file_locks),
            lazy_pages: yes(self.lazy_pages),
            auto_dedup: yes(self.auto_dedup),
            manage_cgroups_mode: Some(self.cgroups.into()),
            empty_ns: (self.empty_network || has_network_of_hooks(config))
                .then_some(libc::CLONE_NEWNET.cast_unsigned()),
            config_file: config_file(annotations, Path::new(CONFIG_FILE)),
            ..Options::default()
        }
    }
}

/// Whether the images' directory is made where it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Make {
    Yes,
    No,
}

impl Directories {
    /// The same directories as process `pid` has them in its mount namespace: nothing can be mounted
    /// in one of another's.
    ///
    /// # Errors
    /// readlink(2)'s and open(2)'s.
    pub(super) fn seen_by(&self, pid: Pid, options: &mut Options) -> anyhow::Result<Vec<File>> {
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let open = |flag: &str, directory: &File| {
            let path = within(directory, Path::new("/"));
            let path = path.with_context(|| format!("{flag}: has no path"))?;
            open_directory(flag, &root.join(path.strip_prefix("/").unwrap_or(&path)))
        };
        let images = open("--image-path", &self.images)?;
        let work = self.work.as_ref();
        let work = work.map(|work| open("--work-path", work)).transpose()?;
        options.images_dir_fd = images.as_raw_fd();
        options.work_dir_fd = work.as_ref().map(AsRawFd::as_raw_fd);
        Ok([images].into_iter().chain(work).collect())
    }

    /// Where CRIU's log is.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// A path of an open file's, for what has no call of its own.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        let directory = self.images.as_raw_fd();
        Path::new("/proc/self/fd")
            .join(directory.to_string())
            .join(name)
    }
}

fn open_directory(flag: &str, path: &Path) -> anyhow::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_DIRECTORY);
    options
        .open(path)
        .with_context(|| format!("{flag}: open {path:?}"))
}

/// Whether the hooks of an engine's set up the container's network, and will again: then CRIU is not
/// to save devices whose other end is theirs.
fn has_network_of_hooks(config: &Config) -> bool {
    let hooks = &config.hooks;
    let has_hooks = !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty();
    has_hooks && config.linux.namespaces.is_new(Kind::Network)
}

/// An annotation that is empty wants no file at all.
fn config_file(annotations: &HashMap<String, String>, usual: &Path) -> Option<String> {
    match annotations.get(CONFIG_FILE_ANNOTATION) {
        Some(path) => Some(path.clone()).filter(|path| !path.is_empty()),
        None => usual.exists().then(|| usual.display().to_string()),
    }
}

/// Talks with `service` until it has answered. What a turning point is for is done by `act`; if that
/// fails, CRIU undoes what it has done.
///
/// # Errors
/// What `act` says, or else why CRIU refused, in its own words.
pub(super) fn converse(
    mut service: Service,
    directories: &Directories,
    mut act: impl FnMut(&str, Pid, Option<OwnedFd>) -> anyhow::Result<()>,
) -> anyhow::Result<Response> {
    let mut failed = None;
    let answer = loop {
        match service.hear() {
            Ok(Answer::Notified { script, pid, fd }) => {
                logging::debug(|| format!("criu: {script}, process {pid}"));
                let done = act(&script, pid, fd);
                let success = done.is_ok();
                failed = failed.or(done.err());
                // If it does not listen any more, its end is heard next.
                drop(service.acknowledge(success));
            }
            Ok(Answer::Done(response)) => break Ok(response),
            Err(error) => break Err(error),
        }
    };
    match (failed, answer) {
        (Some(error), _) => {
            // It has to be through with what it undoes.
            drop(service.end());
            Err(error)
        }
        (None, Ok(response)) if response.success => {
            service.end()?;
            Ok(response)
        }
        (None, Ok(response)) => {
            service.end()?;
            bail!(refusal(&criu::reason(&response), directories.log()))
        }
        (None, Err(error)) => {
            let error = format!(": {}", crate::errors::chain(&error));
            bail!(refusal(&error, directories.log()))
        }
    }
}

/// Why CRIU refused: its log's last errors, or else `reason`.
fn refusal(reason: &str, path: &Path) -> String {
    match log::last_errors(path) {
        Ok(errors) if !errors.is_empty() => format!("criu: {errors} (log file: {path:?})"),
        Ok(_) => format!("criu refused{reason} (log file: {path:?})"),
        Err(_) => format!("criu refused{reason}, and left no log"),
    }
}

/// Refuses what would not come back as it was, and nobody would notice.
///
/// # Errors
/// The field.
pub(super) fn check_kept(config: &Config, template: &Template) -> Result<(), FieldError> {
    let fields = [
        ("linux.memoryPolicy", template.memory_policy.is_some()),
        ("linux.netDevices", !config.linux.net_devices.is_empty()),
        ("linux.seccomp.listenerPath", listener(config).is_some()),
    ];
    match fields.iter().find(|(_, is_given)| *is_given) {
        Some((field, _)) => Err(FieldError::new(*field, "is not kept by criu")),
        None => Ok(()),
    }
}

/// The mounts of the host's that the container has.
///
/// # Errors
/// An id-mapped one, which CRIU would bring back with the owners that it has on the host.
pub(super) fn external_mounts(
    config: &Config,
    bundle: &Path,
    cgroups: &CgroupMounts,
) -> Result<Vec<External>, FieldError> {
    let mut found = Vec::new();
    if !config.linux.namespaces.has(Kind::Mount) {
        return Ok(found);
    }
    for (index, mount) in config.mounts.iter().enumerate() {
        let is_mapped = mount
            .options
            .iter()
            .any(|option| option == "idmap" || option == "ridmap");
        if is_mapped || !mount.uid_mappings.is_empty() {
            let problem = format!(
                "{:?} is id-mapped, which CRIU does not keep",
                mount.destination
            );
            return Err(FieldError::new(format!("mounts[{index}]"), problem));
        }
        if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
            found.extend(external_cgroups(&mount.destination, cgroups, config));
        } else if mount.is_bind() && !mount.options.iter().any(|option| option == "remount") {
            let source = mount.source.clone().unwrap_or_default();
            found.push(External {
                destination: mount.destination.clone(),
                source: bundle.join(source),
            });
        }
    }
    if config.linux.namespaces.has(Kind::User) {
        // Nodes are the host's there.
        let extra = config
            .linux
            .devices
            .iter()
            .map(|device| device.path.clone());
        found.extend(devices::default_paths().chain(extra).map(|path| External {
            destination: path.clone(),
            source: path,
        }));
    }
    Ok(found)
}

fn external_cgroups(destination: &Path, cgroups: &CgroupMounts, config: &Config) -> Vec<External> {
    let namespaces = &config.linux.namespaces;
    let mounts = match cgroups {
        CgroupMounts::V1 { mounts, .. } => mounts,
        // The kernel mounts none there, and the host's was bound.
        CgroupMounts::V2 { fallback, .. }
            if namespaces.has(Kind::User) && !namespaces.has(Kind::Cgroup) =>
        {
            return vec![External {
                destination: destination.to_owned(),
                source: fallback.clone(),
            }];
        }
        CgroupMounts::V2 { .. } => return Vec::new(),
    };
    let bound = mounts.iter().filter_map(|mount| match &mount.source {
        V1Source::Bind(source) => Some(External {
            destination: destination.join(&mount.name),
            source: source.clone(),
        }),
        V1Source::FileSystem(_) => None,
    });
    bound.collect()
}

/// Where `path` is beneath `root`, a directory that is called `name`: symlinks on the way are
/// followed; what is not there is taken as it is written.
pub(super) fn place(root: &RootFd, name: &Path, path: &Path) -> PathBuf {
    let found = root
        .open_beneath(path, OFlag::O_PATH)
        .ok()
        .and_then(|fd| within(&fd, name));
    found.unwrap_or_else(|| tidy(path))
}

/// The path of what `fd` refers to, beneath the directory `name`.
pub(super) fn within(fd: impl AsFd, name: &Path) -> Option<PathBuf> {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let found = PathBuf::from(readlink(link.as_str()).ok()?);
    let beneath = found.strip_prefix(name).ok()?;
    Some(Path::new("/").join(beneath))
}

/// `path` without anything that a path need not have.
pub(super) fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => tidy.push(name),
            Component::ParentDir => {
                tidy.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    tidy
}

/// `path` as CRIU's messages carry it.
///
/// # Errors
/// It is not UTF-8.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes());
    text.map(str::to_owned)
        .with_context(|| format!("{path:?} cannot be told to criu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_names_the_file_or_wants_none() {
        let given = |value: &str| HashMap::from([("org.criu.config".into(), value.into())]);
        let (there, missing) = (Path::new("/dev/null"), Path::new("/nowhere"));
        let table = [
            (given("/a"), there, Some("/a")),
            (given(""), there, None),
            (HashMap::new(), there, Some("/dev/null")),
            (HashMap::new(), missing, None),
        ];
        for (annotations, usual, expected) in table {
            let found = config_file(&annotations, usual);
            assert_eq!(found.as_deref(), expected, "{annotations:?}");
        }
    }

    #[test]
    fn mounts_of_the_host_are_found() {
        let spec = r#"{"ociVersion": "1.0.0", "root": {"path": "r"},
            "linux": {"namespaces": [{"type": "mount"}]},
            "mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/d", "source": "s", "options": ["rbind"]},
                {"destination": "/e", "type": "bind", "source": "/s", "options": ["remount"]}]}"#;
        let spec = serde_json::from_str(spec).expect("is well-formed");
        let mut config = Config::from_spec(&spec).expect("is good");
        let none = CgroupMounts::V1 {
            mounts: Vec::new(),
            links: Vec::new(),
        };
        let found = external_mounts(&config, Path::new("/b"), &none).expect("are served");
        let expected = External {
            destination: "/d".into(),
            source: "/b/s".into(),
        };
        assert_eq!(found, [expected]);
        config.mounts[1].options.push("idmap".into());
        let error = external_mounts(&config, Path::new("/b"), &none).expect_err("is mapped");
        assert!(error.to_string().starts_with("mounts[1]: "), "{error}");
    }

    #[test]
    fn paths_are_tidied() {
        for (path, expected) in [("/a//b/./c/", "/a/b/c"), ("a/../b", "/b"), ("/../..", "/")] {
            assert_eq!(tidy(Path::new(path)), Path::new(expected));
        }
    }
}
