//! The kernel's machine for classic BPF, as far as seccomp filters use it.

use libc::sock_filter;

/// `struct seccomp_data`, as far as a filter here looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) audit: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

/// `__AUDIT_ARCH_LE`, include/uapi/linux/audit.h: which half of an argument comes first.
pub(super) const LITTLE_ENDIAN: u32 = 0x4000_0000;

/// Runs `program` on `call`: what it returns, and after how many instructions.
///
/// Panics where the kernel would refuse the program.
pub(super) fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let (result, steps, _) = run_and_watch(program, call);
    (result, steps)
}

/// Whether `program` looks at the call's number at all.
#[cfg(feature = "compare-libseccomp")]
pub(super) fn loads_number(program: &[sock_filter], call: &Call) -> bool {
    run_and_watch(program, call).2
}

/// What is returned, after how many instructions, and whether the number was loaded.
fn run_and_watch(program: &[sock_filter], call: &Call) -> (u32, usize, bool) {
    let (mut at, mut accumulator, mut number_loaded) = (0, 0, false);
    for steps in 1..=program.len() {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        match u32::from(code) {
            0x06 => return (k, steps, number_loaded),
            0x54 => accumulator &= k,
            0x05 => at += usize::try_from(k).expect("k"),
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x20 => {
                accumulator = load(call, k);
                number_loaded |= k == 0;
            }
            other => panic!("instruction {other:#x}"),
        }
    }
    panic!("the program does not return")
}

fn load(call: &Call, offset: u32) -> u32 {
    let half = |value: u64, high: bool| {
        let low = u32::try_from(value & 0xffff_ffff).expect("half");
        if high {
            u32::try_from(value >> 32).expect("half")
        } else {
            low
        }
    };
    assert_eq!(offset % 4, 0, "an unaligned load");
    match offset {
        0 => call.number,
        4 => call.audit,
        16..64 => {
            let arg = usize::try_from((offset - 16) / 8).expect("argument");
            half(
                call.args[arg],
                (offset % 8 == 4) == (call.audit & LITTLE_ENDIAN != 0),
            )
        }
        other => panic!("a load from {other}"),
    }
}
