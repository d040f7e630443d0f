//! The kernel's machine for classic BPF, as far as seccomp filters use it.

use libc::sock_filter;

/// `struct seccomp_data`, as far as a filter here looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) audit: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

/// Runs `program` on `call`: what it returns, and after how many instructions.
///
/// Panics where the kernel would refuse the program.
pub(super) fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let (mut at, mut accumulator) = (0, 0);
    for steps in 1..=program.len() {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        match u32::from(code) {
            0x06 => return (k, steps),
            0x54 => accumulator &= k,
            0x05 => at += usize::try_from(k).expect("k"),
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x20 => accumulator = load(call, k),
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
                (offset % 8 == 4) == cfg!(target_endian = "little"),
            )
        }
        other => panic!("a load from {other}"),
    }
}
