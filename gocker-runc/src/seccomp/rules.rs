//! A profile's rules, sorted by system call number for one architecture.
//!
//! What several rules for one call mean together is libseccomp's answer, as runc's callers
//! know it:
//! - a rule with the default action says nothing;
//! - a rule without conditions is stronger than those with, and of several such the first
//!   is: engines' profiles rely on it;
//! - rules with conditions are alternatives. Where several match that have different
//!   actions, the one of the higher argument decides, then the one with equality before
//!   upper bounds before lower bounds, then the narrower bound;
//! - two actions under the same conditions are an error.

use std::cmp::{Ordering, Reverse};

use bundles::FieldError;
use bundles::config::linux::seccomp::{Action, Condition, Seccomp, Test};

use super::arch::{Abi, Multiplexer, multiplexed};
use super::names::{self, Row};

/// What happens to one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Always the same.
    Always(Action),
    /// The first alternative that matches, or the default action.
    Depends(Vec<Alternative>),
}

/// Conditions that all hold, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternative {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// A name of the profile that is known on some architecture.
pub(super) struct Named<'p> {
    /// The call's numbers.
    row: Row,
    /// Under which other call it may come.
    through: Option<(Multiplexer, u32)>,
    /// The index of its entry in `linux.seccomp.syscalls`.
    entry: usize,
    name: &'p str,
}

/// Looks up every name. One that no architecture knows is passed over, as runc does: the
/// profile may be newer than this program.
pub(super) fn look_up(profile: &Seccomp) -> Vec<Named<'_>> {
    let mut named = Vec::with_capacity(512);
    for (entry, syscall) in profile.syscalls.iter().enumerate() {
        for name in &syscall.names {
            if let Some(row) = names::find(name) {
                named.push(Named {
                    row,
                    through: multiplexed(name),
                    entry,
                    name,
                });
            }
        }
    }
    named
}

/// What the profile says for one architecture.
pub(super) struct Calls {
    /// The calls that do not get the default action, by ascending number.
    pub(super) outcomes: Vec<(u32, Outcome)>,
    /// The highest number that the profile names, whatever it says of it.
    pub(super) last: Option<u32>,
}

/// One rule for one number.
#[derive(Clone, Copy)]
struct Rule<'n, 'p> {
    number: u32,
    /// The first argument, of a call that comes through another.
    selector: Option<u32>,
    named: &'n Named<'p>,
}

/// Sorts the rules by number.
///
/// # Errors
/// Two entries that contradict each other.
pub(super) fn resolve(
    profile: &Seccomp,
    named: &[Named<'_>],
    abi: &Abi,
) -> Result<Calls, FieldError> {
    let mut rules = Vec::with_capacity(named.len());
    for named in named {
        if let Some(number) = abi.number(named.row) {
            rules.push(Rule {
                number,
                selector: None,
                named,
            });
        }
        if let (Some((socketcall, ipc)), Some((through, selector))) =
            (abi.multiplexers, named.through)
        {
            rules.push(Rule {
                number: match through {
                    Multiplexer::Socketcall => socketcall,
                    Multiplexer::Ipc => ipc,
                },
                selector: Some(selector),
                named,
            });
        }
    }
    let last = rules.iter().map(|rule| rule.number).max();
    rules.retain(|rule| profile.syscalls[rule.named.entry].action != profile.default_action);
    // Stable: the profile's order remains within a number.
    rules.sort_by_key(|rule| rule.number);
    let mut outcomes = Vec::with_capacity(rules.len());
    for same in rules.chunk_by(|a, b| a.number == b.number) {
        outcomes.push((same[0].number, combine(profile, same)?));
    }
    Ok(Calls { outcomes, last })
}

/// Combines the rules for one number.
fn combine(profile: &Seccomp, rules: &[Rule<'_, '_>]) -> Result<Outcome, FieldError> {
    let mut always = None;
    let mut alternatives: Vec<(Alternative, &Rule<'_, '_>)> = Vec::new();
    for rule in rules {
        let syscall = &profile.syscalls[rule.named.entry];
        for conditions in &syscall.alternatives {
            let conditions = with_selector(conditions, rule.selector);
            if !conditions.is_empty() {
                let action = syscall.action;
                alternatives.push((Alternative { conditions, action }, rule));
            } else if always.is_none() {
                always = Some(syscall.action);
            }
        }
    }
    if let Some(action) = always {
        return Ok(Outcome::Always(action));
    }
    alternatives.sort_by(|(a, _), (b, _)| strength(a, b));
    for pair in alternatives.windows(2) {
        let ((a, earlier), (b, later)) = (&pair[0], &pair[1]);
        let own = |rule: &Rule<'_, '_>| !profile.syscalls[rule.named.entry].is_unconditional();
        if a.conditions == b.conditions && a.action != b.action && own(later) && own(earlier) {
            return Err(contradiction(later, earlier));
        }
    }
    alternatives.dedup_by(|(a, _), (b, _)| a.conditions == b.conditions);
    let alternatives = alternatives.into_iter().map(|(alternative, _)| alternative);
    Ok(Outcome::Depends(alternatives.collect()))
}

fn contradiction(later: &Rule<'_, '_>, earlier: &Rule<'_, '_>) -> FieldError {
    FieldError::new(
        format!("linux.seccomp.syscalls[{}].action", later.named.entry),
        format!(
            "{:?} has another action in syscalls[{}] under the same conditions",
            later.named.name, earlier.named.entry
        ),
    )
}

/// A call that comes through another has the selector as its first argument.
fn with_selector(conditions: &[Condition], selector: Option<u32>) -> Vec<Condition> {
    let Some(selector) = selector else {
        return conditions.to_vec();
    };
    let selected = Condition {
        arg: 0,
        test: Test::Eq(selector.into()),
    };
    let others = conditions.iter().filter(|condition| condition.arg != 0);
    [selected].into_iter().chain(others.copied()).collect()
}

/// Which alternative is asked first.
fn strength(a: &Alternative, b: &Alternative) -> Ordering {
    let pairs = a.conditions.iter().zip(&b.conditions);
    pairs
        .map(|(a, b)| condition_strength(a).cmp(&condition_strength(b)))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.conditions.len().cmp(&b.conditions.len()))
}

fn condition_strength(condition: &Condition) -> impl Ord + use<> {
    let (kind, first, mask) = match condition.test {
        Test::Eq(value) => (0, !value, 0),
        Test::Ne(value) => (0, !value, 1),
        Test::MaskedEq { mask, value } => (0, !value, mask),
        Test::Lt(value) => (1, value, 0),
        Test::Le(value) => (1, value, 1),
        Test::Gt(value) => (2, !value, 0),
        Test::Ge(value) => (2, !value, 1),
    };
    (Reverse(condition.arg), kind, first, mask)
}
