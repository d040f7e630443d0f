//! Architectures, as a filter and its profile see them.
//!
//! The kernel tells a filter the audit architecture of each call. x86_64 and x32 share one:
//! bit 30 of the system call number tells them apart.

use oci_spec::runtime::Arch;

use super::names::Row;

/// What a filter has to know of an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abi {
    /// The profile's name of it.
    pub(super) arch: Arch,
    /// The kernel's `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// Its column in the table of names.
    column: usize,
    /// How wide an argument is.
    pub(super) word: Word,
    /// Which byte comes first.
    pub(super) endian: Endian,
    /// The numbers of `socketcall` and `ipc`, where other calls may come as those.
    pub(super) multiplexers: Option<(u32, u32)>,
}

/// How wide an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Word {
    /// Only the low half counts.
    Bits32,
    /// Both halves count.
    Bits64,
}

/// Which byte comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Endian {
    /// The lowest.
    Little,
    /// The highest.
    Big,
}

/// What this program runs on.
pub(super) const NATIVE: Option<Arch> = if cfg!(target_arch = "x86_64") {
    Some(Arch::ScmpArchX86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(Arch::ScmpArchAarch64)
} else if cfg!(target_arch = "riscv64") {
    Some(Arch::ScmpArchRiscv64)
} else if cfg!(target_arch = "s390x") {
    Some(Arch::ScmpArchS390x)
} else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
    Some(Arch::ScmpArchPpc64le)
} else if cfg!(target_arch = "loongarch64") {
    Some(Arch::ScmpArchLoongarch64)
} else if cfg!(target_arch = "x86") {
    Some(Arch::ScmpArchX86)
} else if cfg!(target_arch = "arm") {
    Some(Arch::ScmpArchArm)
} else {
    None
};

/// The bit of an x32 system call's number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Every architecture that is served. Column and audit numbers are the kernel's
/// (include/uapi/linux/audit.h), the multiplexers those of its system call tables.
const SERVED: [Abi; 20] = {
    use Endian::{Big, Little};
    use Word::{Bits32, Bits64};
    const X86: Option<(u32, u32)> = Some((102, 117));
    [
        abi(Arch::ScmpArchX86_64, 0xc000_003e, 0, (Bits64, Little), None),
        abi(Arch::ScmpArchX86, 0x4000_0003, 1, (Bits32, Little), X86),
        abi(Arch::ScmpArchX32, 0xc000_003e, 2, (Bits32, Little), None),
        abi(
            Arch::ScmpArchAarch64,
            0xc000_00b7,
            3,
            (Bits64, Little),
            None,
        ),
        abi(Arch::ScmpArchArm, 0x4000_0028, 4, (Bits32, Little), None),
        abi(
            Arch::ScmpArchMips,
            0x0000_0008,
            5,
            (Bits32, Big),
            Some((4102, 4117)),
        ),
        abi(
            Arch::ScmpArchMipsel,
            0x4000_0008,
            5,
            (Bits32, Little),
            Some((4102, 4117)),
        ),
        abi(Arch::ScmpArchMips64, 0x8000_0008, 6, (Bits64, Big), None),
        abi(
            Arch::ScmpArchMipsel64,
            0xc000_0008,
            6,
            (Bits64, Little),
            None,
        ),
        abi(Arch::ScmpArchMips64n32, 0xa000_0008, 7, (Bits32, Big), None),
        abi(
            Arch::ScmpArchMipsel64n32,
            0xe000_0008,
            7,
            (Bits32, Little),
            None,
        ),
        abi(Arch::ScmpArchPpc, 0x0000_0014, 8, (Bits32, Big), X86),
        abi(Arch::ScmpArchPpc64, 0x8000_0015, 9, (Bits64, Big), X86),
        abi(Arch::ScmpArchPpc64le, 0xc000_0015, 9, (Bits64, Little), X86),
        abi(Arch::ScmpArchS390x, 0x8000_0016, 10, (Bits64, Big), X86),
        abi(Arch::ScmpArchS390, 0x0000_0016, 15, (Bits32, Big), X86),
        abi(
            Arch::ScmpArchRiscv64,
            0xc000_00f3,
            11,
            (Bits64, Little),
            None,
        ),
        abi(
            Arch::ScmpArchLoongarch64,
            0xc000_0102,
            12,
            (Bits64, Little),
            None,
        ),
        abi(Arch::ScmpArchM68k, 0x0000_0004, 13, (Bits32, Big), X86),
        abi(Arch::ScmpArchSh, 0x4000_002a, 14, (Bits32, Little), X86),
    ]
};

const fn abi(
    arch: Arch,
    audit: u32,
    column: usize,
    (word, endian): (Word, Endian),
    multiplexers: Option<(u32, u32)>,
) -> Abi {
    Abi {
        arch,
        audit,
        column,
        word,
        endian,
        multiplexers,
    }
}

impl Abi {
    /// What is known of `arch`; None where there is no table of its system calls.
    pub(super) fn of(arch: Arch) -> Option<Self> {
        SERVED.into_iter().find(|abi| abi.arch == arch)
    }

    /// Those that the kernel calls `audit`.
    #[cfg(all(test, feature = "compare-libseccomp"))]
    pub(super) fn all_of(audit: u32) -> impl Iterator<Item = Self> {
        SERVED.into_iter().filter(move |abi| abi.audit == audit)
    }

    /// The call's number here.
    pub(super) fn number(&self, row: Row) -> Option<u32> {
        u32::try_from(row[self.column]).ok()
    }
}

/// The architectures that are served, as `features` lists them.
pub(super) fn served() -> impl Iterator<Item = Arch> {
    let native = NATIVE.and_then(Abi::of);
    SERVED
        .into_iter()
        .filter(move |abi| native.is_some_and(|native| native.endian == abi.endian))
        .map(|abi| abi.arch)
}

/// Where a call comes as another: through `socketcall` or `ipc`, and with which first
/// argument (include/uapi/linux/net.h, include/uapi/linux/ipc.h).
pub(super) fn multiplexed(name: &str) -> Option<(Multiplexer, u32)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u32); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    for (selector, call) in (1..).zip(SOCKET) {
        if call == name {
            return Some((Multiplexer::Socketcall, selector));
        }
    }
    IPC.iter()
        .find(|(call, _)| *call == name)
        .map(|(_, selector)| (Multiplexer::Ipc, *selector))
}

/// A call that stands for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Multiplexer {
    /// socketcall(2).
    Socketcall,
    /// ipc(2).
    Ipc,
}
