//! A classic BPF program, written from its end to its beginning.
//!
//! Jumps only go forward and conditional ones reach 255 instructions: written backwards,
//! every target is known when the jump to it is written, and one too far away gets a stepping
//! stone.
//!
//! ```text
//! ld  [arch]
//! jeq x86_64 ── ld [nr] ── jge 128 ── ... ── ret ALLOW
//! jeq i386   ── ld [nr] ── ...
//! ret KILL
//! ```

use libc::sock_filter;

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
pub(super) const MAX_LEN: usize = 4096;

/// How far a conditional jump may be from its target: 255, less room for two stepping stones.
const NEAR: usize = 253;

/// An instruction's place, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// A comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    /// Equal.
    Eq = libc::BPF_JEQ as isize,
    /// Greater.
    Gt = libc::BPF_JGT as isize,
    /// Greater or equal.
    Ge = libc::BPF_JGE as isize,
}

/// The program so far.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Last instruction first.
    reversed: Vec<sock_filter>,
    /// Where each value was last returned.
    returns: Vec<(u32, Place)>,
}

impl Program {
    /// Returns `value`.
    pub(super) fn ret(&mut self, value: u32) -> Place {
        let known = self.returns.iter().position(|(known, _)| *known == value);
        if let Some(known) = known
            && self.distance(self.returns[known].1) <= NEAR
        {
            return self.returns[known].1;
        }
        let place = self.push(libc::BPF_RET | libc::BPF_K, value, (0, 0));
        match known {
            Some(known) => self.returns[known].1 = place,
            None => self.returns.push((value, place)),
        }
        place
    }

    /// Goes to `yes` or `no`.
    pub(super) fn branch(&mut self, jump: Jump, value: u32, yes: Place, no: Place) -> Place {
        let yes = self.within_reach(yes);
        let no = self.within_reach(no);
        if yes == no {
            return yes;
        }
        let offsets = (self.offset(yes), self.offset(no));
        self.push(libc::BPF_JMP | jump as u32 | libc::BPF_K, value, offsets)
    }

    /// Loads a word of `struct seccomp_data`, and goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Place) -> Place {
        self.fall_into(next);
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, (0, 0))
    }

    /// Keeps the accumulator's bits in `mask`, and goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Place) -> Place {
        self.fall_into(next);
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, (0, 0))
    }

    /// The program in its order.
    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    fn fall_into(&mut self, next: Place) {
        if self.distance(next) > 0 {
            self.step_to(next);
        }
    }

    fn within_reach(&mut self, place: Place) -> Place {
        if self.distance(place) <= NEAR {
            place
        } else {
            self.step_to(place)
        }
    }

    /// An unconditional jump.
    fn step_to(&mut self, place: Place) -> Place {
        // A program is far shorter than 2^32.
        let distance = u32::try_from(self.distance(place)).unwrap_or(u32::MAX);
        self.push(libc::BPF_JMP | libc::BPF_JA, distance, (0, 0))
    }

    /// How many instructions the next one would skip to get to `place`.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - place.0 - 1
    }

    fn offset(&self, place: Place) -> u8 {
        // Within reach, and so at most 255.
        u8::try_from(self.distance(place)).unwrap_or(u8::MAX)
    }

    fn push(&mut self, code: u32, k: u32, (jt, jf): (u8, u8)) -> Place {
        // Operation codes have 16 bits.
        let code = u16::try_from(code).unwrap_or(u16::MAX);
        self.reversed.push(sock_filter { code, jt, jf, k });
        Place(self.reversed.len() - 1)
    }
}
