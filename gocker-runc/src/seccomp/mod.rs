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
    refuse_notify(profile)?;
    let abis = abis(profile)?;
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
    })
}

impl Filter {
    /// Puts the calling process under the filter, for good. It needs `no_new_privs` or
    /// CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// seccomp(2)'s.
    pub(crate) fn load(&self) -> Result<(), CallError> {
        kernel::set_mode_filter(&self.program, self.flags.into())
            .called(|| format!("seccomp(SET_MODE_FILTER, {self:?})"))
    }
}

fn refuse_notify(profile: &Seccomp) -> Result<(), FieldError> {
    let notifies = |call: &bundles::config::linux::seccomp::Syscall| call.action == Action::Notify;
    match profile.syscalls.iter().position(notifies) {
        None => Ok(()),
        Some(index) => Err(FieldError::new(
            format!("linux.seccomp.syscalls[{index}].action"),
            "SCMP_ACT_NOTIFY is not served yet",
        )),
    }
}

/// The machine's own architecture first, then those that the profile lists.
fn abis(profile: &Seccomp) -> Result<Vec<Abi>, FieldError> {
    let Some(native) = NATIVE.and_then(Abi::of) else {
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

impl From<Flags> for kernel::Flags {
    fn from(flags: Flags) -> Self {
        // WAIT_KILLABLE_RECV says how a listener's answer is awaited: without one it has no
        // meaning, and the kernel refuses it.
        let bits = [
            (flags.tsync, Self::TSYNC),
            (flags.log, Self::LOG),
            (flags.spec_allow, Self::SPEC_ALLOW),
        ];
        Self(
            bits.iter()
                .filter(|(set, _)| *set)
                .map(|(_, bit)| bit.0)
                .sum(),
        )
    }
}
