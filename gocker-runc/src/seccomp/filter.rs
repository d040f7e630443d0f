//! From a profile to a program: for each architecture a search tree over ranges of system
//! call numbers, with the checks of arguments at its leaves.

use bundles::config::linux::seccomp::{Action, Condition, Test};

use super::arch::{Abi, Endian, Word};
use super::program::{Jump, Place, Program};
use super::rules::{Alternative, Calls, Outcome};

/// `offsetof(struct seccomp_data, ...)`, include/uapi/linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// The value that a filter returns for `action`.
pub(super) fn code(action: Action) -> u32 {
    match action {
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
        Action::Trace(message) => libc::SECCOMP_RET_TRACE | u32::from(message),
        Action::Log => libc::SECCOMP_RET_LOG,
        Action::Allow => libc::SECCOMP_RET_ALLOW,
    }
}

/// What happens to the numbers from `start` to the next range's.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u32,
    leaf: Leaf,
}

/// What happens to a range of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Return(Action),
    /// The alternatives at this index of [`Checks`].
    Check(usize),
}

/// The checks of arguments, each once.
#[derive(Default)]
struct Checks<'c> {
    list: Vec<(&'c [Alternative], Word)>,
    /// Where each was written.
    places: Vec<Option<Place>>,
}

/// What holds for the whole filter.
pub(super) struct Frame {
    /// What happens to a call that no rule names.
    pub(super) default: Action,
    /// What happens to a call newer than any in the profile.
    pub(super) newer: Action,
    /// Where an argument's halves are.
    pub(super) endian: Endian,
}

/// Numbers that are one kernel architecture's.
pub(super) struct Group<'c> {
    /// `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// Its calls, by ascending first number.
    pub(super) parts: Vec<Part<'c>>,
}

/// An architecture's calls within its group.
pub(super) struct Part<'c> {
    pub(super) start: u32,
    pub(super) content: Content<'c>,
}

/// What a part says.
pub(super) enum Content<'c> {
    /// These calls' outcomes, and the default for others.
    Calls(&'c Abi, &'c Calls),
    /// The same for every number.
    All(Action),
}

/// Writes the program.
pub(super) fn write(frame: &Frame, groups: &[Group<'_>]) -> Program {
    let mut program = Program::default();
    let mut checks = Checks::default();
    let mut places = Vec::with_capacity(groups.len());
    // The first group is the machine's own: nearest to the beginning, and asked first.
    for group in groups.iter().rev() {
        let ranges = ranges(frame, group, &mut checks);
        let tree = tree(&mut program, frame, &mut checks, &ranges);
        places.push((group.audit, program.load(NUMBER, tree)));
    }
    let mut next = program.ret(code(Action::KillThread));
    for (audit, place) in places {
        next = program.branch(Jump::Eq, audit, place, next);
    }
    program.load(ARCH, next);
    program
}

/// Cuts all numbers into ranges, neighbours differing.
fn ranges<'c>(frame: &Frame, group: &Group<'c>, checks: &mut Checks<'c>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::with_capacity(256);
    let mut add = |start: u32, leaf: Leaf| match ranges.last_mut() {
        Some(last) if last.leaf == leaf => {}
        Some(last) if last.start == start => last.leaf = leaf,
        _ => ranges.push(Range { start, leaf }),
    };
    let default = Leaf::Return(frame.default);
    for part in &group.parts {
        let (abi, calls) = match part.content {
            Content::Calls(abi, calls) => (abi, calls),
            Content::All(action) => {
                add(part.start, Leaf::Return(action));
                continue;
            }
        };
        add(part.start, default);
        let mut next = part.start;
        for (number, outcome) in &calls.outcomes {
            if *number > next {
                add(next, default);
            }
            add(*number, checks.leaf(outcome, abi.word));
            next = number.saturating_add(1);
        }
        add(next, default);
        if let Some(last) = calls.last {
            add(last.saturating_add(1), Leaf::Return(frame.newer));
        }
    }
    ranges
}

impl<'c> Checks<'c> {
    fn leaf(&mut self, outcome: &'c Outcome, word: Word) -> Leaf {
        let alternatives = match outcome {
            Outcome::Always(action) => return Leaf::Return(*action),
            Outcome::Depends(alternatives) => alternatives,
        };
        let same = |(known, of): &(&[Alternative], Word)| *of == word && known == alternatives;
        let index = self.list.iter().position(same).unwrap_or_else(|| {
            self.list.push((alternatives, word));
            self.places.push(None);
            self.list.len() - 1
        });
        Leaf::Check(index)
    }
}

/// A balanced search tree over the ranges; the accumulator holds the number.
fn tree(program: &mut Program, frame: &Frame, checks: &mut Checks<'_>, ranges: &[Range]) -> Place {
    match ranges {
        [] => program.ret(code(frame.default)),
        [range] => leaf(program, frame, checks, range.leaf),
        // One call amid others that are alike.
        [before, one, after] if before.leaf == after.leaf && after.start - one.start == 1 => {
            let no = leaf(program, frame, checks, before.leaf);
            let yes = leaf(program, frame, checks, one.leaf);
            program.branch(Jump::Eq, one.start, yes, no)
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let above = tree(program, frame, checks, high);
            let below = tree(program, frame, checks, low);
            program.branch(Jump::Ge, high[0].start, above, below)
        }
    }
}

fn leaf(program: &mut Program, frame: &Frame, checks: &mut Checks<'_>, leaf: Leaf) -> Place {
    let index = match leaf {
        Leaf::Return(action) => return program.ret(code(action)),
        Leaf::Check(index) => index,
    };
    if let Some(place) = checks.places[index] {
        return place;
    }
    let (alternatives, word) = checks.list[index];
    let place = alternatives_place(program, frame, word, alternatives);
    checks.places[index] = Some(place);
    place
}

/// Asks the alternatives in their order.
fn alternatives_place(
    program: &mut Program,
    frame: &Frame,
    word: Word,
    alternatives: &[Alternative],
) -> Place {
    let mut no = program.ret(code(frame.default));
    for alike in alternatives.chunk_by(differ_in_the_low_half).rev() {
        let yes = program.ret(code(alike[0].action));
        let (last, others) = match alike.split_last() {
            Some(split) => split,
            None => continue,
        };
        // The conditions of one alternative, or many values of one argument.
        let low = low_values(others);
        let writer = Writer { frame, word };
        let mut place = yes;
        for (index, condition) in last.conditions.iter().enumerate().rev() {
            let values = if index == 0 { low.as_slice() } else { &[] };
            place = writer.condition(program, condition, values, (place, no));
        }
        no = place;
    }
    no
}

/// Whether two alternatives each ask one argument to equal a value, and the values share
/// their high half: then one load serves both.
fn differ_in_the_low_half(a: &Alternative, b: &Alternative) -> bool {
    match (a.conditions.as_slice(), b.conditions.as_slice()) {
        (
            [
                Condition {
                    arg: of,
                    test: Test::Eq(a_value),
                },
            ],
            [
                Condition {
                    arg,
                    test: Test::Eq(b_value),
                },
            ],
        ) => of == arg && a.action == b.action && a_value >> 32 == b_value >> 32,
        _ => false,
    }
}

fn low_values(alternatives: &[Alternative]) -> Vec<u32> {
    let equal = |alternative: &Alternative| match alternative.conditions.as_slice() {
        [
            Condition {
                test: Test::Eq(value),
                ..
            },
        ] => Some(halves(*value).1),
        _ => None,
    };
    alternatives.iter().filter_map(equal).collect()
}

/// The high and the low half.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

/// Writes conditions.
struct Writer<'f> {
    frame: &'f Frame,
    word: Word,
}

impl Writer<'_> {
    /// Goes to `yes` or `no`; `also` are further low halves that an equality accepts.
    fn condition(
        &self,
        program: &mut Program,
        condition: &Condition,
        also: &[u32],
        (yes, no): (Place, Place),
    ) -> Place {
        let arg = condition.arg;
        match condition.test {
            Test::Eq(value) => {
                let mut low = program.branch(Jump::Eq, halves(value).1, yes, no);
                for other in also {
                    low = program.branch(Jump::Eq, *other, yes, low);
                }
                let low = program.load(self.low(arg), low);
                self.equal_high(program, arg, value, (low, no))
            }
            Test::Ne(value) => {
                let low = program.branch(Jump::Eq, halves(value).1, no, yes);
                let low = program.load(self.low(arg), low);
                self.equal_high(program, arg, value, (low, yes))
            }
            Test::Gt(value) => self.above(program, arg, (Jump::Gt, value), (yes, no)),
            Test::Ge(value) => self.above(program, arg, (Jump::Ge, value), (yes, no)),
            Test::Lt(value) => self.above(program, arg, (Jump::Ge, value), (no, yes)),
            Test::Le(value) => self.above(program, arg, (Jump::Gt, value), (no, yes)),
            Test::MaskedEq { mask, value } => {
                let (high_mask, low_mask) = halves(mask);
                let (high, low) = halves(value);
                let place = self.masked(program, self.low(arg), (low_mask, low), (yes, no));
                if self.word == Word::Bits32 {
                    return place;
                }
                self.masked(program, self.high(arg), (high_mask, high), (place, no))
            }
        }
    }

    /// Goes on at `yes` if the high half is `value`'s, where there is one.
    fn equal_high(
        &self,
        program: &mut Program,
        arg: u8,
        value: u64,
        (yes, no): (Place, Place),
    ) -> Place {
        if self.word == Word::Bits32 {
            return yes;
        }
        let place = program.branch(Jump::Eq, halves(value).0, yes, no);
        program.load(self.high(arg), place)
    }

    /// Compares the high halves, and the low ones where those are equal.
    fn above(
        &self,
        program: &mut Program,
        arg: u8,
        (jump, value): (Jump, u64),
        (yes, no): (Place, Place),
    ) -> Place {
        let (high, low) = halves(value);
        let place = program.branch(jump, low, yes, no);
        let place = program.load(self.low(arg), place);
        if self.word == Word::Bits32 {
            return place;
        }
        let place = program.branch(Jump::Eq, high, place, no);
        let place = program.branch(Jump::Gt, high, yes, place);
        program.load(self.high(arg), place)
    }

    fn masked(
        &self,
        program: &mut Program,
        offset: u32,
        (mask, value): (u32, u32),
        (yes, no): (Place, Place),
    ) -> Place {
        if mask == 0 {
            return yes;
        }
        let mut place = program.branch(Jump::Eq, value, yes, no);
        if mask != u32::MAX {
            place = program.and(mask, place);
        }
        program.load(offset, place)
    }

    fn high(&self, arg: u8) -> u32 {
        let half = if self.frame.endian == Endian::Little {
            4
        } else {
            0
        };
        ARGS + 8 * u32::from(arg) + half
    }

    fn low(&self, arg: u8) -> u32 {
        let half = if self.frame.endian == Endian::Little {
            0
        } else {
            4
        };
        ARGS + 8 * u32::from(arg) + half
    }
}
