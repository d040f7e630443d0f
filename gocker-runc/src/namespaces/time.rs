//! A new time namespace, and how far its clocks are from the host's.
//!
//! ```text
//! open      /proc/self/timens_offsets     as the user who still owns it
//! ...       the user namespace is entered, which is to own the clocks
//! unshare   CLONE_NEWTIME                 for later children: this process keeps its clocks
//! write     the offsets                   they are final once a process has entered
//! enter     time_for_children             where it is not a child that enters
//! ```
//!
//! Spec: config-linux.md#offset-for-time-namespace; time_namespaces(7)

use std::os::fd::OwnedFd;
use std::path::Path;

use bundles::config::linux::namespaces::Kind;
use bundles::config::linux::time_offsets::TimeOffset;
use nix::fcntl::OFlag;
use nix::sched::unshare;
use nix::unistd::write;

use super::{Error, enter, flag};
use crate::sys::procfs::ProcFd;
use crate::sys::{CallError, Called};

/// A time namespace to be made, by the process that opened this.
pub(crate) struct NewTime {
    proc: ProcFd,
    offsets_file: OwnedFd,
}

/// Whether this kernel has time namespaces: Linux 5.6.
pub(super) fn is_served() -> bool {
    Path::new("/proc/self/ns/time_for_children").exists()
}

impl NewTime {
    /// Opens the file of the offsets.
    ///
    /// Runs in: a process that has not changed its user since its clone.
    ///
    /// # Errors
    /// procfs's.
    pub(super) fn open() -> Result<Self, CallError> {
        let proc = ProcFd::private()?;
        let offsets_file = proc.open("self/timens_offsets", OFlag::O_WRONLY)?;
        Ok(Self { proc, offsets_file })
    }

    /// Makes the namespace, for children that this process makes from here on.
    ///
    /// # Errors
    /// The kernel's: ERANGE where a clock would begin before 0.
    pub(super) fn make(&self, offsets: &[TimeOffset]) -> Result<(), Error> {
        unshare(flag(Kind::Time))
            .called(|| "unshare(CLONE_NEWTIME)".into())
            .map_err(failed("create"))?;
        if offsets.is_empty() {
            return Ok(());
        }
        let text = lines(offsets);
        write(&self.offsets_file, text.as_bytes())
            .called(|| format!("write(timens_offsets, {:?})", text.trim_end()))
            .map_err(failed("set linux.timeOffsets of the"))?;
        Ok(())
    }

    /// Moves this process itself to where its children would be.
    ///
    /// # Errors
    /// setns(2)'s.
    pub(super) fn enter(&self) -> Result<(), Error> {
        let file = self
            .proc
            .open_namespace("self/ns/time_for_children")
            .map_err(failed("open"))?;
        enter(Kind::Time, &file)
    }
}

fn failed(what: &'static str) -> impl Fn(CallError) -> Error {
    move |source| Error {
        what,
        kind: Kind::Time,
        source,
    }
}

/// What the kernel reads: a line for each clock.
fn lines(offsets: &[TimeOffset]) -> String {
    let line = |offset: &TimeOffset| {
        let TimeOffset {
            clock,
            secs,
            nanosecs,
        } = offset;
        format!("{clock} {secs} {nanosecs}\n")
    };
    offsets.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_each_clock() {
        let offset = |clock, secs, nanosecs| TimeOffset {
            clock,
            secs,
            nanosecs,
        };
        let offsets = [offset("monotonic", -5, 0), offset("boottime", 9, 17)];
        assert_eq!(lines(&offsets), "monotonic -5 0\nboottime 9 17\n");
    }
}
