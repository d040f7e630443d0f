//! What `features` says of seccomp: what is served here and the kernel has.
//!
//! Spec: features-linux.md#seccomp

use bundles::config::linux::seccomp::Action;
use oci_spec::runtime::{LinuxSeccompFilterFlag, LinuxSeccompOperator};
use serde_json::{Value, json};

use super::arch;
use super::filter::code;
use crate::sys::seccomp::{Flags, are_flags_available, is_action_available};

/// The section.
pub(crate) fn document() -> Value {
    let actions = ACTIONS
        .iter()
        .filter(|(_, action)| is_action_available(code(*action)));
    let flags = |known: &[(LinuxSeccompFilterFlag, Flags)]| -> Vec<String> {
        known.iter().map(|(flag, _)| flag.to_string()).collect()
    };
    let supported: Vec<_> = FLAGS
        .into_iter()
        .filter(|(_, flag)| {
            // Only with a listener does it mean anything.
            let listener = *flag == Flags::WAIT_KILLABLE_RECV;
            let with = if listener { Flags::NEW_LISTENER.0 } else { 0 };
            are_flags_available(Flags(flag.0 | with))
        })
        .collect();
    json!({
        "enabled": true,
        "actions": actions.map(|(name, _)| name).collect::<Vec<_>>(),
        "operators": OPERATORS.map(|operator| operator.to_string()),
        "archs": arch::served().map(|arch| arch.to_string()).collect::<Vec<_>>(),
        "knownFlags": flags(&FLAGS),
        "supportedFlags": flags(&supported),
    })
}

const ACTIONS: [(&str, Action); 9] = [
    ("SCMP_ACT_KILL", Action::KillThread),
    ("SCMP_ACT_KILL_THREAD", Action::KillThread),
    ("SCMP_ACT_KILL_PROCESS", Action::KillProcess),
    ("SCMP_ACT_TRAP", Action::Trap),
    ("SCMP_ACT_ERRNO", Action::Errno(1)),
    ("SCMP_ACT_TRACE", Action::Trace(1)),
    ("SCMP_ACT_NOTIFY", Action::Notify),
    ("SCMP_ACT_LOG", Action::Log),
    ("SCMP_ACT_ALLOW", Action::Allow),
];

const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpNe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
];

const FLAGS: [(LinuxSeccompFilterFlag, Flags); 4] = [
    (LinuxSeccompFilterFlag::SeccompFilterFlagTsync, Flags::TSYNC),
    (LinuxSeccompFilterFlag::SeccompFilterFlagLog, Flags::LOG),
    (
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow,
        Flags::SPEC_ALLOW,
    ),
    (
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
        Flags::WAIT_KILLABLE_RECV,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_specifications() {
        let document = document().to_string();
        for name in [
            "SCMP_CMP_MASKED_EQ",
            "SCMP_ARCH_X86_64",
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SCMP_ACT_ALLOW",
        ] {
            assert!(document.contains(&format!("{name:?}")), "{document}");
        }
    }
}
