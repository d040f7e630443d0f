//! A compiled filter as bytes, for the processes that `exec` adds later.
//!
//! ```text
//! flags  u32                                    seccomp(2), SECCOMP_FILTER_FLAG_*
//! instruction  u16 code, u8 jt, u8 jf, u32 k    as many as there are
//! ```
//!
//! All in the machine's own byte order: the bytes do not leave it.

use bundles::config::linux::seccomp::Flags;
use libc::sock_filter;

use super::Filter;

/// Bits of the first word.
const TSYNC: u32 = 1;
const LOG: u32 = 2;
const SPEC_ALLOW: u32 = 4;
const NEW_LISTENER: u32 = 8;
const WAIT_KILLABLE_RECV: u32 = 32;

impl Filter {
    /// The filter as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let flags = [
            (self.flags.tsync, TSYNC),
            (self.flags.log, LOG),
            (self.flags.spec_allow, SPEC_ALLOW),
            (self.flags.wait_killable_recv, WAIT_KILLABLE_RECV),
            (self.notifies, NEW_LISTENER),
        ];
        let flags: u32 = flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|flag| flag.1)
            .sum();
        let mut bytes = Vec::with_capacity(4 + 8 * self.program.len());
        bytes.extend(flags.to_ne_bytes());
        for instruction in &self.program {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; None where it did not.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, program) = bytes.split_first_chunk::<4>()?;
        let (instructions, rest) = program.as_chunks::<8>();
        if instructions.is_empty() || !rest.is_empty() {
            return None;
        }
        let flags = u32::from_ne_bytes(*flags);
        let instruction = |[a, b, jt, jf, k @ ..]: &[u8; 8]| sock_filter {
            code: u16::from_ne_bytes([*a, *b]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(*k),
        };
        Some(Self {
            program: instructions.iter().map(instruction).collect(),
            flags: Flags {
                tsync: flags & TSYNC != 0,
                log: flags & LOG != 0,
                spec_allow: flags & SPEC_ALLOW != 0,
                wait_killable_recv: flags & WAIT_KILLABLE_RECV != 0,
            },
            notifies: flags & NEW_LISTENER != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_as_it_was_written() {
        let filter = Filter {
            program: vec![
                sock_filter {
                    code: 0x20,
                    jt: 0,
                    jf: 0,
                    k: 4,
                },
                sock_filter {
                    code: 0x15,
                    jt: 3,
                    jf: 254,
                    k: 0xc000_003e,
                },
            ],
            flags: Flags {
                log: true,
                ..Flags::default()
            },
            notifies: true,
        };
        let bytes = filter.to_bytes();
        assert_eq!(bytes.len(), 20);
        let read = Filter::from_bytes(&bytes).expect("is whole");
        assert!(read.notifies() && read.flags.log);
        assert_eq!(read.to_bytes(), bytes);
        for cut in [0, 3, 4, 19] {
            assert!(Filter::from_bytes(&bytes[..cut]).is_none(), "{cut}");
        }
    }
}
