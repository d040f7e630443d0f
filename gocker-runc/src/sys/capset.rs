//! capset(2), which the `caps` crate calls once for each set, and reads the others before.
#![allow(unsafe_code, reason = "a system call that nix lacks")]

use nix::errno::Errno;

/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`, include/uapi/linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: a word of each set.
#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets of this thread, one bit for each capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sets {
    /// In force.
    pub(crate) effective: u64,
    /// May be put in force.
    pub(crate) permitted: u64,
    /// May be kept by a program that asks for them.
    pub(crate) inheritable: u64,
}

/// Sets the three at once.
///
/// # Errors
/// capset(2)'s; EPERM for a capability that this thread lacks.
pub(crate) fn capset(sets: Sets) -> Result<(), Errno> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let word = |set: u64, shift: u32| u32::try_from(set >> shift & 0xffff_ffff).unwrap_or_default();
    let data = [0, 32].map(|shift| Data {
        effective: word(sets.effective, shift),
        permitted: word(sets.permitted, shift),
        inheritable: word(sets.inheritable, shift),
    });
    // SAFETY: the header says that there are two elements of data; both outlive the call, which
    // only reads them, as the version is one that the kernel knows.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(done).map(drop)
}
