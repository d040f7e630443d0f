//! Device rules of a cgroup: one program of ours, replaced in one step.
//!
//! systemd and others may attach programs of their own; a device must get past each of them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bundles::config::linux::resources::DeviceRule;
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::device_program::compile;
use super::open_dir;
use crate::cgroups::Error;
use crate::cgroups::device_rules::container_rules;
use crate::sys::bpf::{self, Instruction};

/// By this the program is known again.
const NAME: &[u8] = b"gocker_devices";

/// Attaches the program for `rules`, in place of the one that was attached before.
pub(super) fn set(dir: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    let failed = |operation| {
        move |answer| Error::DeviceProgram {
            operation,
            path: dir.to_owned(),
            answer,
        }
    };
    let cgroup = open_dir(dir)?;
    let program = load(&compile(&container_rules(rules))).map_err(failed("load"))?;
    let old = attached(&cgroup).map_err(failed("find"))?;
    let Some(old) = old else {
        return bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), None)
            .map_err(failed("attach"));
    };
    match bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), Some(old.as_fd())) {
        // Kernels before 5.6 cannot replace. With both attached only what both allow is
        // allowed: so there is no moment in which more is allowed than before or after.
        Err(Errno::EINVAL) => {
            bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), None)
                .map_err(failed("attach"))?;
            bpf::detach_device_program(cgroup.as_fd(), old.as_fd()).map_err(failed("detach"))
        }
        result => result.map_err(failed("replace")),
    }
}

/// The program that [`set`] attached before.
fn attached(cgroup: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    for id in bpf::attached_device_programs(cgroup.as_fd())? {
        let program = bpf::program_by_id(id)?;
        if bpf::program_name(program.as_fd())?.starts_with(NAME) {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

/// Kernels before 5.11 count programs as locked memory of the user, which soon is too much.
fn load(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    match bpf::load_device_program(program, NAME) {
        Err(Errno::EPERM) => (),
        result => return result,
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if soft == RLIM_INFINITY
        || setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err()
    {
        return Err(Errno::EPERM);
    }
    let loaded = bpf::load_device_program(program, NAME);
    // The container inherits the limits.
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    loaded
}
