//! Device programs of cgroup v2: loaded, attached, replaced.
//!
//! nix has nothing for bpf(2).
//!
//! See <https://man7.org/linux/man-pages/man2/bpf.2.html> and `include/uapi/linux/bpf.h`.
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// One instruction, laid out as the kernel reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// What to do.
    pub(crate) code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    /// An offset into memory or, for jumps, how many instructions to leave out.
    pub(crate) offset: i16,
    /// A constant.
    pub(crate) value: i32,
}

impl Instruction {
    /// An instruction on `registers`, destination first.
    #[must_use]
    pub(crate) fn new(code: u8, registers: (u8, u8), offset: i16, value: i32) -> Self {
        let (to, from) = registers;
        let [to, from] = if cfg!(target_endian = "little") {
            [to, from]
        } else {
            [from, to]
        };
        Self {
            code,
            registers: (from & 0xF) << 4 | (to & 0xF),
            offset,
            value,
        }
    }

    /// The registers, destination first.
    #[cfg(test)]
    pub(crate) fn registers(&self) -> (u8, u8) {
        let (low, high) = (self.registers & 0xF, self.registers >> 4);
        if cfg!(target_endian = "little") {
            (low, high)
        } else {
            (high, low)
        }
    }
}

/// Has the kernel check and load a program of type BPF_PROG_TYPE_CGROUP_DEVICE. At most 15
/// bytes of `name` are kept.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn load_device_program(program: &[Instruction], name: &[u8]) -> Result<OwnedFd, Errno> {
    // No function is called that only programs under the GPL may call.
    let license = c"Apache-2.0";
    let mut attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        ..LoadAttributes::default()
    };
    for (to, from) in attributes.name.iter_mut().take(NAME_LENGTH - 1).zip(name) {
        *to = *from;
    }
    // SAFETY: `program` and `license` outlive the call, the kernel reads `count` instructions
    // of the size of `Instruction`, and all else in the attributes is plain numbers.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }?;
    new_fd(fd)
}

/// Attaches `program` beside the programs of others; with `replaced`, in its place.
///
/// # Errors
/// The kernel's answer; EINVAL where it cannot replace, which is before 5.6.
pub(crate) fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attributes = AttachAttributes {
        cgroup: number(cgroup)?,
        program: number(program)?,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replaced: 0,
    };
    if let Some(replaced) = replaced {
        attributes.flags |= BPF_F_REPLACE;
        attributes.replaced = number(replaced)?;
    }
    // SAFETY: the attributes are plain numbers; the descriptors are borrowed for the call.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(|_| ())
}

/// Detaches `program`.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn detach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let mut attributes = AttachAttributes {
        cgroup: number(cgroup)?,
        program: number(program)?,
        attach_type: BPF_CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    };
    // SAFETY: the attributes are plain numbers; the descriptors are borrowed for the call.
    unsafe { bpf(BPF_PROG_DETACH, &mut attributes) }.map(|_| ())
}

/// The ids of the device programs that are attached to `cgroup` itself.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn attached_device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    // The kernel allows no more than this for one cgroup.
    let mut ids = [0_u32; 64];
    let mut attributes = QueryAttributes {
        cgroup: number(cgroup)?,
        attach_type: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: 64,
        ..QueryAttributes::default()
    };
    // SAFETY: the kernel writes at most `count` ids, for which `ids` has room and which
    // outlives the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.count).map_err(|_| Errno::EOVERFLOW)?;
    Ok(ids.into_iter().take(count).collect())
}

/// Opens a loaded program.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attributes = IdAttributes {
        id,
        ..IdAttributes::default()
    };
    // SAFETY: the attributes are plain numbers.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) }?;
    new_fd(fd)
}

/// The name that a program was loaded with, filled up with zeros.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn program_name(program: BorrowedFd<'_>) -> Result<[u8; NAME_LENGTH], Errno> {
    let mut info = ProgramInfo::default();
    let mut attributes = InfoAttributes {
        program: number(program)?,
        length: u32::try_from(size_of::<ProgramInfo>()).map_err(|_| Errno::EOVERFLOW)?,
        info: (&raw mut info).expose_provenance() as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to `info`, which outlives the call;
    // any bytes are a valid `ProgramInfo`. Its pointers and lengths are zero, so the kernel
    // writes nowhere else.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info.name)
}

/// How long a program's name is, with its closing zero.
pub(crate) const NAME_LENGTH: usize = 16;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

// The parts of `union bpf_attr`. No struct has padding: the kernel refuses unknown bytes that
// are not zero.

#[derive(Default)]
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LENGTH],
}

#[repr(C)]
struct AttachAttributes {
    cgroup: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[derive(Default)]
#[repr(C)]
struct QueryAttributes {
    cgroup: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    unused: u32,
}

#[derive(Default)]
#[repr(C)]
struct IdAttributes {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttributes {
    program: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to the name.
#[derive(Default)]
#[repr(C)]
struct ProgramInfo {
    program_type: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    instructions: [u64; 2],
    load_time_ns: u64,
    user: u32,
    map_count: u32,
    maps: u64,
    name: [u8; NAME_LENGTH],
}

/// Makes the system call.
///
/// # Safety
/// `attributes` must be what `command` takes, and each address in it valid for what the kernel
/// reads or writes there.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel reads and writes at most `size_of::<T>()` bytes at `attributes`, a
    // unique reference; for the rest the caller answers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    Errno::result(result)
}

fn number(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF)
}

/// Takes what a command that opens something returned; the kernel made it close-on-exec.
fn new_fd(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(size_of::<LoadAttributes>(), 64);
        assert_eq!(std::mem::offset_of!(LoadAttributes, name), 48);
        assert_eq!(size_of::<AttachAttributes>(), 20);
        assert_eq!(std::mem::offset_of!(QueryAttributes, count), 24);
        assert_eq!(std::mem::offset_of!(ProgramInfo, name), 64);
    }

    #[test]
    fn registers_go_in_and_out() {
        let instruction = Instruction::new(0xBF, (3, 2), 0, 0);
        assert_eq!(instruction.registers(), (3, 2));
    }
}
