//! `linux.seccomp`: which system calls the container process may make.
//!
//! Spec: config-linux.md#seccomp

use std::path::PathBuf;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use serde::{Deserialize, Serialize};

use crate::config::no_nul;
use crate::validate::FieldError;

/// A resolved profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seccomp {
    /// What happens to a system call that no rule matches.
    pub default_action: Action,
    /// The architectures beside the machine's own, in the profile's order.
    pub architectures: Vec<Arch>,
    /// How the filter is loaded.
    pub flags: Flags,
    /// The rules, in the profile's order.
    pub syscalls: Vec<Syscall>,
    /// Who answers for [`Action::Notify`].
    pub listener: Option<Listener>,
}

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The thread is killed.
    KillThread,
    /// The process is killed.
    KillProcess,
    /// The thread gets SIGSYS.
    Trap,
    /// It fails with this errno.
    Errno(u16),
    /// The listener decides.
    Notify,
    /// A tracer is told, with this message; without one the call fails with ENOSYS.
    Trace(u16),
    /// It is allowed and logged.
    Log,
    /// It is allowed.
    Allow,
}

/// Flags of seccomp(2)'s `SECCOMP_SET_MODE_FILTER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `SECCOMP_FILTER_FLAG_TSYNC`.
    pub tsync: bool,
    /// `SECCOMP_FILTER_FLAG_LOG`.
    pub log: bool,
    /// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
    pub spec_allow: bool,
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
    pub wait_killable_recv: bool,
}

/// One entry of `linux.seccomp.syscalls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syscall {
    /// The system calls.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// Alternatives, each a list of conditions that all hold; none at all matches always.
    pub alternatives: Vec<Vec<Condition>>,
}

impl Syscall {
    /// Whether the arguments do not matter.
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        self.alternatives.iter().any(Vec::is_empty)
    }
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// What it is compared with.
    pub test: Test,
}

/// A comparison of an argument with a value, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// Not equal.
    Ne(u64),
    /// Less.
    Lt(u64),
    /// Less or equal.
    Le(u64),
    /// Equal.
    Eq(u64),
    /// Greater or equal.
    Ge(u64),
    /// Greater.
    Gt(u64),
    /// Equal in the bits of the mask.
    MaskedEq {
        /// The bits that count.
        mask: u64,
        /// What they are.
        value: u64,
    },
}

/// `listenerPath` and `listenerMetadata`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The socket that gets the notification descriptor.
    pub path: PathBuf,
    /// What is sent along.
    pub metadata: String,
}

/// errno(3)'s EPERM, the specification's default.
const EPERM: u16 = 1;
/// The largest errno that the kernel returns.
const MAX_ERRNO: u32 = 4095;
/// A system call has so many arguments.
const MAX_ARGS: usize = 6;

impl Seccomp {
    /// Resolves the profile.
    ///
    /// # Errors
    /// The field that is out of range or contradicts another.
    pub fn from_spec(profile: &LinuxSeccomp) -> Result<Self, FieldError> {
        let default_action = action(
            "linux.seccomp.defaultErrnoRet",
            profile.default_action(),
            profile.default_errno_ret(),
        )?;
        if default_action == Action::Notify {
            return Err(FieldError::new(
                "linux.seccomp.defaultAction",
                "SCMP_ACT_NOTIFY would stop the process before its listener is known",
            ));
        }
        let mut syscalls = Vec::new();
        for (index, entry) in profile.syscalls().iter().flatten().enumerate() {
            syscalls.push(syscall(index, entry)?);
        }
        Ok(Self {
            default_action,
            architectures: profile.architectures().clone().unwrap_or_default(),
            flags: flags(profile.flags().as_deref()),
            listener: listener(profile, &syscalls)?,
            syscalls,
        })
    }
}

fn action(
    errno_field: &str,
    action: LinuxSeccompAction,
    errno: Option<u32>,
) -> Result<Action, FieldError> {
    let number = |max: u32| match errno {
        None => Ok(EPERM),
        Some(errno) => match u16::try_from(errno) {
            Ok(number) if errno <= max => Ok(number),
            _ => Err(FieldError::new(
                errno_field,
                format!("{errno} is more than {max}"),
            )),
        },
    };
    let resolved = match action {
        LinuxSeccompAction::ScmpActErrno => return Ok(Action::Errno(number(MAX_ERRNO)?)),
        LinuxSeccompAction::ScmpActTrace => {
            return Ok(Action::Trace(number(u16::MAX.into())?));
        }
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            Action::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActNotify => Action::Notify,
        LinuxSeccompAction::ScmpActLog => Action::Log,
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
    };
    // Spec: config-linux.md#seccomp: an errno for an action without one is an error.
    match errno {
        Some(errno) if errno != 0 => Err(FieldError::new(
            errno_field,
            format!("{errno} is given, and {action} returns none"),
        )),
        _ => Ok(resolved),
    }
}

fn flags(list: Option<&[LinuxSeccompFilterFlag]>) -> Flags {
    // As runc does: nothing said means SPEC_ALLOW, an empty list means no flag.
    let list = list.unwrap_or(&[LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow]);
    let has = |flag| list.contains(&flag);
    Flags {
        tsync: has(LinuxSeccompFilterFlag::SeccompFilterFlagTsync),
        log: has(LinuxSeccompFilterFlag::SeccompFilterFlagLog),
        spec_allow: has(LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow),
        wait_killable_recv: has(LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv),
    }
}

fn syscall(index: usize, entry: &LinuxSyscall) -> Result<Syscall, FieldError> {
    let field = |name: &str| format!("linux.seccomp.syscalls[{index}].{name}");
    if entry.names().is_empty() {
        return Err(FieldError::new(field("names"), "is empty"));
    }
    if let Some(at) = entry.names().iter().position(String::is_empty) {
        return Err(FieldError::new(field(&format!("names[{at}]")), "is empty"));
    }
    let action = action(&field("errnoRet"), entry.action(), entry.errno_ret())?;
    let mut conditions = Vec::new();
    for (at, arg) in entry.args().iter().flatten().enumerate() {
        conditions.push(condition(&field(&format!("args[{at}].index")), arg)?);
    }
    Ok(Syscall {
        names: entry.names().clone(),
        action,
        alternatives: alternatives(conditions),
    })
}

fn condition(field: &str, arg: &LinuxSeccompArg) -> Result<Condition, FieldError> {
    let index = arg.index();
    let position = match u8::try_from(index) {
        Ok(position) if index < MAX_ARGS => position,
        _ => {
            let problem = format!("{index} is none of 0 to {}", MAX_ARGS - 1);
            return Err(FieldError::new(field, problem));
        }
    };
    let value = arg.value();
    let test = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => Test::Ne(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Lt(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::Le(value),
        LinuxSeccompOperator::ScmpCmpEq => Test::Eq(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::Ge(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Gt(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => Test::MaskedEq {
            mask: value,
            // Bits outside the mask do not count on either side.
            value: arg.value_two().unwrap_or_default() & value,
        },
    };
    Ok(Condition {
        arg: position,
        test,
    })
}

/// Conditions on different arguments must all hold. As runc does, two on the same argument
/// make every condition an alternative.
fn alternatives(mut conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    conditions.sort_by_key(|condition| condition.arg);
    let repeated = conditions.windows(2).any(|pair| pair[0].arg == pair[1].arg);
    if repeated {
        conditions.into_iter().map(|one| vec![one]).collect()
    } else {
        vec![conditions]
    }
}

fn listener(profile: &LinuxSeccomp, syscalls: &[Syscall]) -> Result<Option<Listener>, FieldError> {
    let notifies = syscalls.iter().any(|call| call.action == Action::Notify);
    let path = profile.listener_path().clone().unwrap_or_default();
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    let has_path = !path.as_os_str().is_empty();
    match (notifies, has_path) {
        (true, false) => Err(FieldError::new(
            "linux.seccomp.listenerPath",
            "is missing, and an action is SCMP_ACT_NOTIFY",
        )),
        (false, false) if !metadata.is_empty() => Err(FieldError::new(
            "linux.seccomp.listenerMetadata",
            "is given without listenerPath",
        )),
        // Spec: config-linux.md#seccomp: without the action the path is not used.
        (false, _) => Ok(None),
        (true, true) if !path.is_absolute() => Err(FieldError::new(
            "linux.seccomp.listenerPath",
            format!("{path:?} is not an absolute path"),
        )),
        (true, true) => {
            let field = || "linux.seccomp.listenerPath".to_owned();
            no_nul(field, &path.to_string_lossy())?;
            Ok(Some(Listener { path, metadata }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Seccomp, FieldError> {
        let profile: LinuxSeccomp = serde_json::from_str(text).expect(text);
        Seccomp::from_spec(&profile)
    }

    #[test]
    fn contradictions_are_named() {
        let rule =
            |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#);
        let cases = [
            (
                r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.to_owned(),
                "linux.seccomp.defaultAction: ",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.to_owned(),
                "linux.seccomp.defaultErrnoRet: 4096 is more than 4095",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_KILL","defaultErrnoRet":1}"#.to_owned(),
                "linux.seccomp.defaultErrnoRet: 1 is given, and SCMP_ACT_KILL returns none",
            ),
            (
                rule(r#"{"names":[],"action":"SCMP_ACT_LOG"}"#),
                "linux.seccomp.syscalls[0].names: is empty",
            ),
            (
                rule(r#"{"names":["a",""],"action":"SCMP_ACT_LOG"}"#),
                "linux.seccomp.syscalls[0].names[1]: is empty",
            ),
            (
                rule(r#"{"names":["a"],"action":"SCMP_ACT_TRACE","errnoRet":65536}"#),
                "linux.seccomp.syscalls[0].errnoRet: 65536 is more than 65535",
            ),
            (
                rule(
                    r#"{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#,
                ),
                "linux.seccomp.syscalls[0].args[0].index: 6 is none of 0 to 5",
            ),
            (
                rule(r#"{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}"#),
                "linux.seccomp.listenerPath: is missing",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}"#.to_owned(),
                "linux.seccomp.listenerMetadata: ",
            ),
        ];
        for (text, expected) in cases {
            let error = read(&text).expect_err(&text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn values_are_resolved() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls":[
              {"names":["a"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":1,"value":255,"valueTwo":511,"op":"SCMP_CMP_MASKED_EQ"},
                {"index":0,"value":7,"op":"SCMP_CMP_GT"}]},
              {"names":["b"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"args":[
                {"index":0,"value":7,"op":"SCMP_CMP_EQ"},
                {"index":0,"value":8,"op":"SCMP_CMP_NE"}]}]}"#;
        let profile = read(text).expect("good");
        let (zero, one) = (
            |test| Condition { arg: 0, test },
            |test| Condition { arg: 1, test },
        );
        assert_eq!(profile.default_action, Action::Errno(1));
        assert_eq!(
            profile.flags,
            Flags {
                log: true,
                ..Flags::default()
            }
        );
        let masked = one(Test::MaskedEq {
            mask: 255,
            value: 255,
        });
        assert_eq!(
            profile.syscalls[0].alternatives,
            [vec![zero(Test::Gt(7)), masked]]
        );
        assert_eq!(profile.syscalls[1].action, Action::Errno(38));
        assert_eq!(
            profile.syscalls[1].alternatives,
            [vec![zero(Test::Eq(7))], vec![zero(Test::Ne(8))]]
        );
    }

    #[test]
    fn no_flags_at_all_mean_spec_allow() {
        let of = |text: &str| read(text).expect(text).flags.spec_allow;
        assert!(of(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#));
        assert!(!of(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#));
    }
}
