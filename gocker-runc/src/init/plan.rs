//! Everything that init needs, looked up, opened and checked before the clone.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use bundles::FieldError;
use bundles::config::Config;
use bundles::config::hooks::Hook;
use bundles::config::linux::namespaces::Kind;
use bundles::config::process::{ConsoleSize, Process, User};
use nix::errno::Errno;
use nix::sys::utsname::uname;
use oci_spec::runtime::{LinuxPersonalityDomain, PosixRlimit};

use super::rootfs_plan;
use crate::capabilities::CapabilitySets;
use crate::cgroups::Record;
use crate::cgroups::mounts::CgroupMounts;
use crate::container::state::State;
use crate::cpu_affinity::CpuAffinity;
use crate::lsm::Labels;
use crate::memory_policy::MemoryPolicy;
use crate::namespaces::NamespacePlan;
use crate::rootfs::mount::MountPlan;
use crate::rootfs::pivot::Pivot;
use crate::rootfs::{self, RootfsPlan};
use crate::sys::caller::{in_user_namespace, is_ordinary_user};
use crate::sys::errno::describe;
use crate::{seccomp, sysctl};

/// The plan of a container process.
#[derive(Debug)]
pub(crate) struct InitPlan {
    /// The container's id, for the keyring's name.
    pub(crate) id: String,
    /// What hooks are told.
    pub(crate) state: State<Record>,
    /// Namespaces to make and to join.
    pub(crate) namespaces: NamespacePlan,
    /// Whether the container has a user namespace, new or joined.
    pub(crate) in_user_namespace: bool,
    /// Whether the runtime writes id mappings.
    pub(crate) new_user_namespace: bool,
    /// Whether the runtime has no rights but an ordinary user's. Then only a dumpable process can
    /// be mapped, and nothing can be set from outside that a user may not set.
    pub(crate) of_ordinary_user: bool,
    /// /proc/self/oom_score_adj, where init itself has to set it.
    pub(crate) oom_score_adj: Option<i32>,
    /// v1's files to write oneself into.
    pub(crate) way_in: Vec<OwnedFd>,
    /// Whether the runtime has it moved into its cgroup.
    pub(crate) awaits_cgroup: bool,
    /// Whether nothing but the record of the container tells that it is there, so that init ends
    /// where the runtime is gone before it was written.
    pub(crate) awaits_record: bool,
    /// Whether a session keyring is made.
    pub(crate) new_keyring: bool,
    /// Whether the network namespace is new.
    pub(crate) bring_loopback_up: bool,
    /// Kernel parameters.
    pub(crate) sysctl: BTreeMap<String, String>,
    /// The root filesystem.
    pub(crate) rootfs: RootfsPlan,
    /// Whether the runtime has hooks to run once the mounts are made, or devices to give until then.
    pub(crate) has_runtime_hooks: bool,
    /// `hooks.createContainer`.
    pub(crate) create_container: Vec<Hook>,
    /// `hooks.startContainer`.
    pub(crate) start_container: Vec<Hook>,
    /// The host name.
    pub(crate) hostname: Option<String>,
    /// The NIS domain name.
    pub(crate) domainname: Option<String>,
    /// The program.
    pub(crate) process: Option<ProcessPlan>,
}

/// The program and who runs it.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    /// The same, for the kernel.
    pub(crate) c_args: Vec<CString>,
    /// `NAME=value` strings.
    pub(crate) env: Vec<String>,
    /// The working directory.
    pub(crate) cwd: PathBuf,
    /// Ids, groups and umask.
    pub(crate) user: User,
    /// The capability sets.
    pub(crate) capabilities: CapabilitySets,
    /// Labels of security modules.
    pub(crate) labels: Labels,
    /// The CPUs of a further process; they are not init's.
    pub(crate) cpu_affinity: CpuAffinity,
    /// `linux.memoryPolicy`, which a process of `exec` has, too.
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// Resource limits, where init itself may set them.
    pub(crate) rlimits: Vec<PosixRlimit>,
    /// Whether execve(2) may grant nothing.
    pub(crate) no_new_privileges: bool,
    /// Which system calls it may make.
    pub(crate) seccomp: Option<seccomp::Filter>,
    /// Whether it gets a terminal.
    pub(crate) terminal: bool,
    /// The terminal's size.
    pub(crate) console_size: Option<ConsoleSize>,
    /// Its execution domain.
    pub(crate) personality: Option<LinuxPersonalityDomain>,
    /// How many descriptors from 3 on it inherits.
    pub(crate) preserve_fds: u32,
}

/// What the command line adds to the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choices {
    /// `--no-pivot`.
    pub(crate) no_pivot: bool,
    /// `--no-new-keyring`.
    pub(crate) no_new_keyring: bool,
    /// `--preserve-fds`, and LISTEN_FDS.
    pub(crate) preserve_fds: u32,
}

impl InitPlan {
    /// Makes the plan of a container.
    ///
    /// # Errors
    /// The field that cannot be served.
    pub(crate) fn new(
        config: &Config,
        state: State<Record>,
        choices: Choices,
        cgroup_mounts: &CgroupMounts,
    ) -> Result<Self, FieldError> {
        let namespaces = &config.linux.namespaces;
        let namespace_plan = NamespacePlan::new(namespaces, &config.linux.time_offsets)?;
        let is_its_own = |kind| namespace_plan.has_other(namespaces, kind);
        sysctl::check(&config.linux.sysctl, is_its_own, config.hostname.is_some())?;
        check_names(config, is_its_own)?;
        let filter = config.linux.seccomp.as_ref().map(seccomp::compile);
        let filter = filter.transpose()?;
        let process = config.process.as_ref().map(|process| {
            let plan = ProcessPlan::new(process, filter, choices.preserve_fds)?;
            Ok(ProcessPlan {
                personality: config.linux.personality,
                ..plan
            })
        });
        let hooks = &config.hooks;
        Ok(Self {
            id: state.id.clone(),
            rootfs: rootfs_plan::plan(config, &state, choices, cgroup_mounts)?,
            state,
            namespaces: namespace_plan,
            in_user_namespace: namespaces.has(Kind::User),
            new_user_namespace: namespaces.is_new(Kind::User),
            of_ordinary_user: is_ordinary_user(),
            oom_score_adj: config
                .process
                .as_ref()
                .filter(|_| is_ordinary_user())
                .and_then(|process| process.oom_score_adj),
            way_in: Vec::new(),
            awaits_cgroup: false,
            awaits_record: false,
            new_keyring: !choices.no_new_keyring,
            bring_loopback_up: namespaces.is_new(Kind::Network),
            sysctl: config.linux.sysctl.clone(),
            has_runtime_hooks: !hooks.prestart.is_empty()
                || !hooks.create_runtime.is_empty()
                || !config.linux.net_devices.is_empty(),
            create_container: hooks.create_container.clone(),
            start_container: hooks.start_container.clone(),
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            process: process.transpose()?,
        })
    }
}

impl InitPlan {
    /// Copies the bind mounts' sources where the container has a user namespace: inside, the
    /// host's paths may be closed to the mapped root.
    ///
    /// Runs in: runtime namespace, when the cgroup is made, which may be among them.
    ///
    /// # Errors
    /// The mount whose source cannot be opened.
    pub(crate) fn open_sources(&mut self) -> Result<(), rootfs::Error> {
        // Who may not copy mounts can open them as well inside, as the user who it still is.
        if !self.in_user_namespace || self.of_ordinary_user || self.rootfs.pivot == Pivot::Chroot {
            return Ok(());
        }
        let opened = self
            .rootfs
            .mounts
            .iter_mut()
            .try_for_each(rootfs::mount::open_ahead);
        match opened {
            Err(error) if error.errno() == Some(Errno::EPERM) && in_user_namespace() => Ok(()),
            opened => opened,
        }
    }

    /// The descriptors that init needs from the runtime; all others are closed in it.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let namespaces = self.namespaces.joined.iter().map(|(_, fd)| fd);
        let trees = self.rootfs.mounts.iter().filter_map(MountPlan::tree);
        let all = self
            .way_in
            .iter()
            .chain(namespaces)
            .chain(&self.namespaces.joined_pid);
        all.chain(trees).map(AsRawFd::as_raw_fd).collect()
    }

    /// Whether an ordinary user made it, who may want to `exec` in it before it is started; nobody
    /// else sees it in its PID namespace by then.
    pub(crate) fn may_be_joined_by_its_user(&self) -> bool {
        let new_pid = u64::from(libc::CLONE_NEWPID.cast_unsigned());
        self.of_ordinary_user && self.namespaces.clone_flags & new_pid != 0
    }

    /// Closes what was needed for the mounts and the namespaces.
    pub(crate) fn close_used(&mut self) {
        self.rootfs.mounts.clear();
        self.rootfs.unsealed.clear();
        self.namespaces.joined.clear();
    }
}

/// Names belong to a UTS namespace of the container's own: the host keeps its. One that is joined
/// and is the host's is no other; engines that do so repeat the name that it has.
fn check_names(config: &Config, is_its_own: impl Fn(Kind) -> bool) -> Result<(), FieldError> {
    if config.hostname.is_none() && config.domainname.is_none() || is_its_own(Kind::Uts) {
        return Ok(());
    }
    let is_joined = config.linux.namespaces.has(Kind::Uts);
    let hosts = uname().map_err(|errno| FieldError::new("hostname", describe(errno)))?;
    let named = [
        ("hostname", &config.hostname, hosts.nodename()),
        ("domainname", &config.domainname, hosts.domainname()),
    ];
    for (field, name, hosts) in named {
        let changes = name.as_ref().is_some_and(|name| hosts != name.as_str());
        let problem = match (name, is_joined) {
            (Some(_), false) => "is given without a UTS namespace, and would change the host's",
            (Some(_), true) if changes => {
                "would change the host's: its UTS namespace is the one that is joined"
            }
            _ => continue,
        };
        return Err(FieldError::new(field, problem));
    }
    Ok(())
}

impl ProcessPlan {
    /// Makes the plan of a process that inherits `preserve_fds` descriptors from 3 on.
    ///
    /// # Errors
    /// The field that no system call can carry.
    pub(crate) fn new(
        process: &Process,
        seccomp: Option<seccomp::Filter>,
        preserve_fds: u32,
    ) -> Result<Self, FieldError> {
        let c_args = process
            .args
            .iter()
            .map(|arg| c_string("process.args", arg.as_bytes()));
        Ok(Self {
            args: process.args.clone(),
            c_args: c_args.collect::<Result<_, _>>()?,
            env: process.env.clone(),
            cwd: process.cwd.clone(),
            user: process.user.clone(),
            capabilities: CapabilitySets::new(process.capabilities.as_ref()),
            labels: Labels::new(process)?,
            cpu_affinity: CpuAffinity::new(process.exec_cpu_affinity.as_ref())?,
            memory_policy: None,
            rlimits: process.rlimits.clone(),
            no_new_privileges: process.no_new_privileges,
            seccomp,
            terminal: process.terminal,
            console_size: process.console_size,
            personality: None,
            preserve_fds,
        })
    }
}

pub(super) fn c_string(field: &str, bytes: &[u8]) -> Result<CString, FieldError> {
    CString::new(bytes).map_err(|_| FieldError::new(field, "holds a NUL byte"))
}
