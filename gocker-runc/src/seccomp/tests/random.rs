//! Random profiles and calls, from few values, so that they often meet.

use bundles::config::linux::seccomp::{Action, Condition, Flags, Seccomp, Syscall, Test};
use oci_spec::runtime::Arch;

use super::machine::Call;
use super::oracle::Oracle;

/// Marsaglia's xorshift: the same cases on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 33) % bound as u64).expect("below a usize")
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const ACTIONS: [Action; 8] = [
    Action::KillThread,
    Action::KillProcess,
    Action::Trap,
    Action::Errno(1),
    Action::Errno(38),
    Action::Trace(7),
    Action::Log,
    Action::Allow,
];

/// Machines, and what their profiles list beside; the first ones are more often drawn.
const MACHINES: [(Arch, &[Arch]); 8] = [
    (
        Arch::ScmpArchX86_64,
        &[Arch::ScmpArchX86, Arch::ScmpArchX32],
    ),
    (Arch::ScmpArchX86_64, LITTLE_ENDIAN),
    (Arch::ScmpArchAarch64, &[Arch::ScmpArchArm]),
    (Arch::ScmpArchAarch64, LITTLE_ENDIAN),
    (Arch::ScmpArchRiscv64, LITTLE_ENDIAN),
    (Arch::ScmpArchPpc64le, LITTLE_ENDIAN),
    (Arch::ScmpArchS390x, &[Arch::ScmpArchS390]),
    (Arch::ScmpArchS390x, BIG_ENDIAN),
];

const LITTLE_ENDIAN: &[Arch] = &[
    Arch::ScmpArchX86_64,
    Arch::ScmpArchX86,
    Arch::ScmpArchX32,
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchPpc64le,
    Arch::ScmpArchRiscv64,
    Arch::ScmpArchMipsel,
    Arch::ScmpArchMipsel64,
    Arch::ScmpArchMipsel64n32,
];

const BIG_ENDIAN: &[Arch] = &[
    Arch::ScmpArchS390,
    Arch::ScmpArchPpc,
    Arch::ScmpArchPpc64,
    Arch::ScmpArchMips,
    Arch::ScmpArchMips64,
    Arch::ScmpArchMips64n32,
];

/// Names that meet in one number, that only some architectures have, or that nobody has.
const NAMES: [&str; 28] = [
    "read",
    "write",
    "openat",
    "clone",
    "clone3",
    "personality",
    "socket",
    "bind",
    "accept",
    "accept4",
    "sendmmsg",
    "socketcall",
    "shmget",
    "semtimedop",
    "msgrcv",
    "ipc",
    "mmap",
    "mmap2",
    "arch_prctl",
    "set_tls",
    "newfstatat",
    "ioctl",
    "rt_sigreturn",
    "getpid",
    "ptrace",
    "mseal",
    "no_such_call",
    "futex_time64",
];

const VALUES: [u64; 14] = [
    0,
    1,
    2,
    16,
    40,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x28_0000_0028,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

/// Which actions a profile's rules have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Actions {
    /// Any.
    Mixed,
    /// One, beside the default.
    #[cfg(feature = "compare-libseccomp")]
    One,
}

/// A machine's architecture, and a profile for it.
pub(super) fn profile(random: &mut Random, actions: Actions) -> (Arch, Seccomp) {
    let (native, listed) = random.of(&MACHINES);
    let default_action = random.of(&ACTIONS);
    #[cfg(feature = "compare-libseccomp")]
    let common = random.of(&ACTIONS);
    let architectures = (0..random.below(4)).map(|_| random.of(listed)).collect();
    let syscalls = (0..1 + random.below(10)).map(|_| Syscall {
        names: (0..1 + random.below(5))
            .map(|_| random.of(&NAMES).to_owned())
            .collect(),
        action: match actions {
            Actions::Mixed => random.of(&ACTIONS),
            #[cfg(feature = "compare-libseccomp")]
            Actions::One => common,
        },
        alternatives: alternatives(random),
    });
    let syscalls = syscalls.collect();
    let profile = Seccomp {
        default_action,
        architectures,
        flags: Flags::default(),
        syscalls,
        listener: None,
    };
    (native, profile)
}

fn alternatives(random: &mut Random) -> Vec<Vec<Condition>> {
    let mut conditions: Vec<Condition> = (0..random.below(4)).map(|_| condition(random)).collect();
    conditions.sort_by_key(|condition| condition.arg);
    if conditions.windows(2).any(|pair| pair[0].arg == pair[1].arg) {
        return conditions.into_iter().map(|one| vec![one]).collect();
    }
    vec![conditions]
}

fn condition(random: &mut Random) -> Condition {
    let value = random.of(&VALUES);
    let mask = random.of(&VALUES);
    let tests = [
        Test::Ne(value),
        Test::Lt(value),
        Test::Le(value),
        Test::Eq(value),
        Test::Ge(value),
        Test::Gt(value),
        Test::MaskedEq {
            mask,
            value: value & mask,
        },
    ];
    Condition {
        arg: random.of(&[0, 0, 1, 2, 5]),
        test: random.of(&tests),
    }
}

pub(super) fn call(random: &mut Random, oracle: &Oracle<'_>) -> Call {
    let audit = match random.below(12) {
        0 => 0x4000_00b7,
        _ => random.of(&oracle.audits()),
    };
    let numbers = oracle.numbers(audit);
    let number = match random.below(10) {
        0 => random.of(&[
            0,
            1,
            335,
            1000,
            0x4000_0000,
            0x4000_0fff,
            0x7fff_ffff,
            u32::MAX,
        ]),
        1 => u32::try_from(random.below(520)).expect("small"),
        _ if numbers.is_empty() => 0,
        2 => random.of(&numbers).wrapping_add(1),
        3 => random.of(&numbers).wrapping_sub(1),
        _ => random.of(&numbers),
    };
    let mut args = [0; 6];
    for arg in &mut args {
        *arg = random.of(&VALUES);
        if random.below(4) == 0 {
            *arg = arg.wrapping_add(1);
        }
    }
    Call {
        audit,
        number,
        args,
    }
}
