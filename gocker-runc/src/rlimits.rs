//! `process.rlimits`.
//!
//! Spec: config.md#posix-process; getrlimit(2)

use nix::unistd::Pid;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use crate::sys::process::set_rlimit;
use crate::sys::{CallError, Called};

/// A limit that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("process.rlimits: {kind}")]
pub(crate) struct Error {
    kind: PosixRlimitType,
    source: CallError,
}

/// Sets `rlimits` of process `pid`.
///
/// Runs in: runtime namespace, whose CAP_SYS_RESOURCE is what counts.
///
/// # Errors
/// The limit, and the kernel's answer.
pub(crate) fn set(pid: Pid, rlimits: &[PosixRlimit]) -> Result<(), Error> {
    for rlimit in rlimits {
        let (soft, hard) = (rlimit.soft(), rlimit.hard());
        set_rlimit(pid, resource(rlimit.typ()), soft, hard)
            .called(|| format!("prlimit(soft {soft}, hard {hard})"))
            .map_err(|source| Error {
                kind: rlimit.typ(),
                source,
            })?;
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
