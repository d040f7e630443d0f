//! A profile through libseccomp, in the way that runc uses it.

use std::fs::File;
use std::io::{Read, Seek};

use bundles::config::linux::seccomp::{Action, Condition, Seccomp, Test};
use libc::sock_filter;
use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::Arch;

fn action(action: Action) -> ScmpAction {
    match action {
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno(errno) => ScmpAction::Errno(errno.into()),
        Action::Notify => ScmpAction::Notify,
        Action::Trace(message) => ScmpAction::Trace(message),
        Action::Log => ScmpAction::Log,
        Action::Allow => ScmpAction::Allow,
    }
}

fn arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        other => panic!("{other} is not among the random ones"),
    }
}

fn compare(condition: &Condition) -> ScmpArgCompare {
    let (op, datum) = match condition.test {
        Test::Ne(value) => (ScmpCompareOp::NotEqual, value),
        Test::Lt(value) => (ScmpCompareOp::Less, value),
        Test::Le(value) => (ScmpCompareOp::LessOrEqual, value),
        Test::Eq(value) => (ScmpCompareOp::Equal, value),
        Test::Ge(value) => (ScmpCompareOp::GreaterEqual, value),
        Test::Gt(value) => (ScmpCompareOp::Greater, value),
        Test::MaskedEq { mask, value } => (ScmpCompareOp::MaskedEqual(mask), value),
    };
    ScmpArgCompare::new(condition.arg.into(), op, datum)
}

/// Compiles a profile for a machine of the architecture `native`.
///
/// # Errors
/// libseccomp's.
pub(super) fn by_libseccomp(
    native: Arch,
    profile: &Seccomp,
) -> Result<Vec<sock_filter>, SeccompError> {
    let mut context = ScmpFilterContext::new(action(profile.default_action))?;
    // This machine's own architecture may have the other byte order.
    if arch(native) != ScmpArch::native() {
        context.remove_arch(ScmpArch::native())?;
        context.add_arch(arch(native))?;
    }
    for one in &profile.architectures {
        context.add_arch(arch(*one))?;
    }
    for entry in &profile.syscalls {
        if entry.action == profile.default_action {
            continue;
        }
        for name in &entry.names {
            let Ok(call) = ScmpSyscall::from_name(name) else {
                continue;
            };
            for conditions in &entry.alternatives {
                let conditions: Vec<_> = conditions.iter().map(compare).collect();
                context.add_rule_conditional(action(entry.action), call, &conditions)?;
            }
        }
    }
    let mut file: File = tempfile::tempfile().expect("a temporary file");
    context.export_bpf(&mut file)?;
    file.rewind().expect("rewind");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("read");
    let (instructions, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    let big_endian = native == Arch::ScmpArchS390x;
    let instruction = |[a, b, jt, jf, k @ ..]: &[u8; 8]| {
        let (code, k) = (u16::from_le_bytes([*a, *b]), u32::from_le_bytes(*k));
        sock_filter {
            code: if big_endian { code.swap_bytes() } else { code },
            jt: *jt,
            jf: *jf,
            k: if big_endian { k.swap_bytes() } else { k },
        }
    };
    Ok(instructions.iter().map(instruction).collect())
}
