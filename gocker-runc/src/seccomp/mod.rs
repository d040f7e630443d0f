//! Seccomp: from a profile to a BPF program, and the program to the kernel.
//!
//! ```text
//! profile ── rules: numbers and outcomes of each architecture
//!                └─ filter: ranges of numbers, a search tree, checks of arguments
//!                        └─ program: instructions, jumps within reach
//! ```
//!
//! Compiling is a pure function, so that the runtime process can do it; loading is init's.
//!
//! Spec: config-linux.md#seccomp; seccomp(2)

mod arch;
mod features;
mod filter;
mod names;
mod program;
mod rules;
mod stored;

#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::OwnedFd;

use bundles::FieldError;
use bundles::config::linux::seccomp::{Action, Flags, Seccomp};
use libc::sock_filter;
use oci_spec::runtime::Arch;

use crate::sys::{CallError, Called, seccomp as kernel};
use arch::{Abi, NATIVE, X32_BIT};
use filter::{Content, Frame, Group, Part};
use rules::{Calls, Outcome};

pub(crate) use features::document as features;

/// A program that is ready to be loaded.
#[derive(Clone)]
pub(crate) struct Filter {
    program: Vec<sock_filter>,
    flags: Flags,
    /// Whether a listener is asked.
    notifies: bool,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter of {} instructions", self.program.len())
    }
}

/// What a call gets that this kernel or its profile does not know.
const ENOSYS: Action = Action::Errno(38);

/// Compiles a profile.
///
/// # Errors
/// An architecture without a table, rules that contradict each other, a program that is too
/// long for the kernel.
pub(crate) fn compile(profile: &Seccomp) -> Result<Filter, FieldError> {
    compile_for(NATIVE, profile)
}

/// Compiles a profile for a machine of this architecture, where it is known.
fn compile_for(native: Option<Arch>, profile: &Seccomp) -> Result<Filter, FieldError> {
    let notifies = check_notify(profile)?;
    check_flags(profile.flags, notifies)?;
    let abis = abis(native, profile)?;
    let named = rules::look_up(profile);
    let newer = newer_calls_action(profile.default_action);
    let mut calls = Vec::with_capacity(abis.len());
    for abi in &abis {
        let mut of_abi = rules::resolve(profile, &named, abi)?;
        if newer == ENOSYS {
            refuse_setup(abi, &mut of_abi);
        }
        calls.push((*abi, of_abi));
    }
    let frame = Frame {
        default: profile.default_action,
        newer,
        endian: abis[0].endian,
    };
    let program = filter::write(&frame, &groups(&frame, &calls)).finish();
    if program.len() > program::MAX_LEN {
        return Err(FieldError::new(
            "linux.seccomp.syscalls",
            format!(
                "make a filter of {} instructions, and the kernel takes {}",
                program.len(),
                program::MAX_LEN
            ),
        ));
    }
    Ok(Filter {
        program,
        flags: profile.flags,
        notifies,
    })
}

/// Compiles a profile to what the kernel takes, for the benchmark.
///
/// # Errors
/// As those of a container.
#[cfg(feature = "compare-libseccomp")]
pub fn program(profile: &Seccomp) -> Result<Vec<sock_filter>, FieldError> {
    compile(profile).map(|filter| filter.program)
}

impl Filter {
    /// Puts the calling process under the filter, for good. It needs `no_new_privs` or
    /// CAP_SYS_ADMIN. Returns the descriptor on which a listener answers, if it is asked.
    ///
    /// # Errors
    /// seccomp(2)'s.
    pub(crate) fn load(&self) -> Result<Option<OwnedFd>, CallError> {
        kernel::set_mode_filter(&self.program, self.kernel_flags())
            .called(|| format!("seccomp(SET_MODE_FILTER, {self:?})"))
    }

    /// Whether a listener is asked for some calls.
    pub(crate) fn notifies(&self) -> bool {
        self.notifies
    }

    fn kernel_flags(&self) -> kernel::Flags {
        let Flags {
            tsync,
            log,
            spec_allow,
            wait_killable_recv,
        } = self.flags;
        // WAIT_KILLABLE_RECV says how a listener's answer is awaited: without one it has no
        // meaning, and the kernel refuses it.
        let bits = [
            (tsync, kernel::Flags::TSYNC),
            (log, kernel::Flags::LOG),
            (spec_allow, kernel::Flags::SPEC_ALLOW),
            (self.notifies, kernel::Flags::NEW_LISTENER),
            (self.notifies && tsync, kernel::Flags::TSYNC_ESRCH),
            (
                self.notifies && wait_killable_recv,
                kernel::Flags::WAIT_KILLABLE_RECV,
            ),
        ];
        let set = bits.iter().filter(|(set, _)| *set);
        kernel::Flags(set.map(|(_, bit)| bit.0).sum())
    }
}

/// Whether a listener is asked for some calls; it never is for those by which it comes to be one.
fn check_notify(profile: &Seccomp) -> Result<bool, FieldError> {
    let entries = profile.syscalls.iter().enumerate();
    let mut notifying = entries
        .filter(|(_, entry)| entry.action == Action::Notify)
        .peekable();
    let Some((first, _)) = notifying.peek() else {
        return Ok(false);
    };
    if !kernel::is_action_available(filter::code(Action::Notify)) {
        return Err(FieldError::new(
            format!("linux.seccomp.syscalls[{first}].action"),
            "this kernel has no SCMP_ACT_NOTIFY: Linux 5.0 has",
        ));
    }
    for (index, entry) in notifying {
        if let Some(at) = entry.names.iter().position(|name| name == "write") {
            return Err(FieldError::new(
                format!("linux.seccomp.syscalls[{index}].names[{at}]"),
                "SCMP_ACT_NOTIFY cannot be used for write: by it the listener is handed over",
            ));
        }
    }
    Ok(true)
}

/// Asks the kernel for the one flag that the oldest kernels here do not have.
fn check_flags(flags: Flags, notifies: bool) -> Result<(), FieldError> {
    let wanted = flags.wait_killable_recv && notifies;
    let needed = kernel::Flags(kernel::Flags::WAIT_KILLABLE_RECV.0 | kernel::Flags::NEW_LISTENER.0);
    if wanted && !kernel::are_flags_available(needed) {
        return Err(FieldError::new(
            "linux.seccomp.flags",
            "this kernel has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: Linux 5.19 has",
        ));
    }
    Ok(())
}

/// The machine's own architecture first, then those that the profile lists.
fn abis(native: Option<Arch>, profile: &Seccomp) -> Result<Vec<Abi>, FieldError> {
    let Some(native) = native.and_then(Abi::of) else {
        return Err(FieldError::new(
            "linux.seccomp",
            "this machine's architecture has no table of system calls",
        ));
    };
    let mut abis = vec![native];
    for (index, arch) in profile.architectures.iter().enumerate() {
        let field = || format!("linux.seccomp.architectures[{index}]");
        if *arch == Arch::ScmpArchNative {
            continue;
        }
        let Some(abi) = Abi::of(*arch) else {
            let problem = format!("{arch} has no table of system calls here");
            return Err(FieldError::new(field(), problem));
        };
        if abi.endian != native.endian {
            let problem = format!("{arch} has another byte order than this machine");
            return Err(FieldError::new(field(), problem));
        }
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    Ok(abis)
}

/// A program that tries a new call falls back on an old one when it hears ENOSYS, and not
/// when it hears EPERM. So, as runc has it, calls newer than any in the profile get ENOSYS
/// where the default action forbids.
fn newer_calls_action(default: Action) -> Action {
    match default {
        Action::Allow | Action::Log | Action::Trace(_) => default,
        _ => ENOSYS,
    }
}

/// On s390 and s390x the number of a call that the kernel does not know becomes 0, `setup`,
/// which nothing calls by itself.
fn refuse_setup(abi: &Abi, calls: &mut Calls) {
    if !matches!(abi.arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x) {
        return;
    }
    calls.outcomes.retain(|(number, _)| *number != 0);
    calls.outcomes.insert(0, (0, Outcome::Always(ENOSYS)));
}

/// Puts together what the kernel sees as one architecture.
fn groups<'c>(frame: &Frame, calls: &'c [(Abi, Calls)]) -> Vec<Group<'c>> {
    let mut groups: Vec<Group<'_>> = Vec::with_capacity(calls.len());
    for (abi, of_abi) in calls {
        let part = Part {
            start: if abi.arch == Arch::ScmpArchX32 {
                X32_BIT
            } else {
                0
            },
            content: Content::Calls(abi, of_abi),
        };
        match groups.iter_mut().find(|group| group.audit == abi.audit) {
            Some(group) => group.parts.push(part),
            None => groups.push(Group {
                audit: abi.audit,
                parts: vec![part],
            }),
        }
    }
    let all = |start, action| Part {
        start,
        content: Content::All(action),
    };
    for group in &mut groups {
        group.parts.sort_by_key(|part| part.start);
        let is_x86_64 = Abi::of(Arch::ScmpArchX86_64).is_some_and(|abi| abi.audit == group.audit);
        if is_x86_64 && group.parts[0].start > 0 {
            group.parts.insert(0, all(0, Action::KillThread));
        } else if is_x86_64 && group.parts.len() == 1 {
            // A profile without x32 kills its calls, as those of any architecture that it
            // does not list; -1 is the number of a call that a tracer skips.
            group.parts.push(all(X32_BIT, Action::KillThread));
            group.parts.push(all(u32::MAX, frame.default));
        }
    }
    groups
}
