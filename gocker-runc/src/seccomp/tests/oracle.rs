//! A profile's meaning, worked out call by call, without ranges, trees and jumps.

use bundles::config::linux::seccomp::{Action, Condition, Seccomp, Test};
use oci_spec::runtime::Arch;

use super::super::arch::{Abi, Multiplexer, Word, X32_BIT, multiplexed};
use super::super::names;
use super::machine::Call;

/// A profile whose names are looked up.
pub(super) struct Oracle<'p> {
    profile: &'p Seccomp,
    abis: Vec<(Abi, Vec<Rule>)>,
}

/// What one name of one entry says for one architecture.
struct Rule {
    number: u32,
    selector: Option<u32>,
    entry: usize,
}

impl<'p> Oracle<'p> {
    /// The meaning on a machine of the architecture `native`.
    pub(super) fn new(native: Arch, profile: &'p Seccomp) -> Self {
        let native = Abi::of(native).expect("a known machine");
        let listed = profile
            .architectures
            .iter()
            .filter_map(|arch| Abi::of(*arch));
        let mut abis: Vec<(Abi, Vec<Rule>)> = Vec::new();
        for abi in [native].into_iter().chain(listed) {
            if abis.iter().all(|(known, _)| *known != abi) {
                abis.push((abi, rules(profile, &abi)));
            }
        }
        Self { profile, abis }
    }

    /// The numbers that rules speak of, for `audit`.
    pub(super) fn numbers(&self, audit: u32) -> Vec<u32> {
        let abis = self.abis.iter().filter(|(abi, _)| abi.audit == audit);
        abis.flat_map(|(_, rules)| rules.iter().map(|rule| rule.number))
            .collect()
    }

    /// The audit architectures.
    pub(super) fn audits(&self) -> Vec<u32> {
        self.abis.iter().map(|(abi, _)| abi.audit).collect()
    }

    /// What happens to `call`.
    pub(super) fn decide(&self, call: &Call) -> Action {
        let x86_64 = Abi::of(Arch::ScmpArchX86_64).expect("known").audit;
        let x32 = call.audit == x86_64 && call.number >= X32_BIT;
        let of_call = |(abi, _): &&(Abi, Vec<Rule>)| {
            abi.audit == call.audit && (abi.arch == Arch::ScmpArchX32) == x32
        };
        let Some((abi, rules)) = self.abis.iter().find(of_call) else {
            let skipped = x32 && call.number == u32::MAX;
            return if skipped {
                self.profile.default_action
            } else {
                Action::KillThread
            };
        };
        if self.is_new(abi, rules, call.number) {
            return Action::Errno(38);
        }
        self.by_rules(abi, rules, call)
    }

    /// Whether the rule for newer calls decides `call`.
    #[cfg(feature = "compare-libseccomp")]
    pub(super) fn is_newer(&self, call: &Call) -> bool {
        let x32 = call.number >= X32_BIT;
        self.abis.iter().any(|(abi, rules)| {
            let of_x86_64 = matches!(abi.arch, Arch::ScmpArchX32 | Arch::ScmpArchX86_64);
            abi.audit == call.audit
                && (!of_x86_64 || (abi.arch == Arch::ScmpArchX32) == x32)
                && self.is_new(abi, rules, call.number)
        })
    }

    /// Whether runc's rule for calls newer than the profile holds.
    fn is_new(&self, abi: &Abi, rules: &[Rule], number: u32) -> bool {
        let permissive = matches!(
            self.profile.default_action,
            Action::Allow | Action::Log | Action::Trace(_)
        );
        let last = rules.iter().map(|rule| rule.number).max();
        // On s390 a call that the kernel does not know has the number of one that nobody calls.
        let setup = number == 0 && matches!(abi.arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x);
        !permissive && (setup || last.is_some_and(|last| number > last))
    }

    fn by_rules(&self, abi: &Abi, rules: &[Rule], call: &Call) -> Action {
        let default = self.profile.default_action;
        let mut best: Option<(Vec<[u128; 4]>, Action)> = None;
        for rule in rules.iter().filter(|rule| rule.number == call.number) {
            let entry = &self.profile.syscalls[rule.entry];
            if entry.action == default {
                continue;
            }
            for conditions in &entry.alternatives {
                let mut conditions = conditions.clone();
                if let Some(selector) = rule.selector {
                    conditions.retain(|condition| condition.arg != 0);
                    let test = Test::Eq(selector.into());
                    conditions.insert(0, Condition { arg: 0, test });
                }
                if conditions.is_empty() {
                    return entry.action;
                }
                if !conditions.iter().all(|one| holds(abi.word, one, call)) {
                    continue;
                }
                let key: Vec<_> = conditions.iter().map(precedence).collect();
                if best.as_ref().is_none_or(|(other, _)| key < *other) {
                    best = Some((key, entry.action));
                }
            }
        }
        best.map_or(default, |(_, action)| action)
    }
}

fn rules(profile: &Seccomp, abi: &Abi) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (entry, syscall) in profile.syscalls.iter().enumerate() {
        for name in &syscall.names {
            let number = names::find(name).and_then(|row| abi.number(row));
            rules.extend(number.map(|number| Rule {
                number,
                selector: None,
                entry,
            }));
            if let (Some(through), Some(multiplexers)) = (multiplexed(name), abi.multiplexers) {
                let number = match through.0 {
                    Multiplexer::Socketcall => multiplexers.0,
                    Multiplexer::Ipc => multiplexers.1,
                };
                let selector = Some(through.1);
                rules.push(Rule {
                    number,
                    selector,
                    entry,
                });
            }
        }
    }
    rules
}

/// Smaller is asked first.
fn precedence(condition: &Condition) -> [u128; 4] {
    let falling = |value: u64| u128::from(u64::MAX - value);
    let (kind, value, rest) = match condition.test {
        Test::Eq(value) => (0, falling(value), 0),
        Test::Ne(value) => (0, falling(value), 1),
        Test::MaskedEq { mask, value } => (0, falling(value), u128::from(mask)),
        Test::Lt(value) => (1, value.into(), 0),
        Test::Le(value) => (1, value.into(), 1),
        Test::Gt(value) => (2, falling(value), 0),
        Test::Ge(value) => (2, falling(value), 1),
    };
    [u128::from(6 - condition.arg), kind, value, rest]
}

fn holds(word: Word, condition: &Condition, call: &Call) -> bool {
    let cut = |value: u64| match word {
        Word::Bits32 => value & 0xffff_ffff,
        Word::Bits64 => value,
    };
    let arg = cut(call.args[usize::from(condition.arg)]);
    match condition.test {
        Test::Ne(value) => arg != cut(value),
        Test::Lt(value) => arg < cut(value),
        Test::Le(value) => arg <= cut(value),
        Test::Eq(value) => arg == cut(value),
        Test::Ge(value) => arg >= cut(value),
        Test::Gt(value) => arg > cut(value),
        Test::MaskedEq { mask, value } => arg & cut(mask) == cut(value),
    }
}
