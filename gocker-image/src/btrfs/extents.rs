//! Where the bytes of a file lie on the disk, which tells what files share.
//!
//! Layouts and numbers: Linux, include/uapi/linux/fiemap.h.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::errno::CallError;

/// Where a run of a file's bytes lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its place, in bytes from the beginning of the file system.
    pub physical: u64,
    /// How many bytes.
    pub length: u64,
}

/// Where the bytes of a file lie, on any file system that tells. What has no place yet, or lies
/// in metadata, is left out. None: this file system does not tell.
///
/// # Errors
/// When the file cannot be read.
pub fn extents(file: BorrowedFd<'_>) -> Result<Option<Vec<Extent>>, CallError> {
    let mut found = Vec::new();
    let mut start = 0;
    loop {
        let mut map = FileMap::new(start);
        // SAFETY: the kernel reads the header of `map` during the call, and writes the header
        // and at most as many extents as it says there is room for.
        match unsafe { raw::fiemap(file.as_raw_fd(), &raw mut map) } {
            Ok(_) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY) => return Ok(None),
            Err(errno) => return Err(CallError::new("fiemap", "", errno)),
        }
        let count = usize::try_from(map.mapped).unwrap_or(0).min(EXTENTS);
        for extent in &map.extents[..count] {
            start = extent.logical + extent.length;
            if extent.flags & EXTENT_ELSEWHERE == 0 {
                let (physical, length) = (extent.physical, extent.length);
                found.push(Extent { physical, length });
            }
        }
        let last = map.extents[..count].last();
        if last.is_none_or(|extent| extent.flags & EXTENT_LAST != 0) {
            return Ok(Some(found));
        }
    }
}

/// How many extents one call tells.
const EXTENTS: usize = 128;
/// `FIEMAP_EXTENT_LAST`.
const EXTENT_LAST: u32 = 1;
/// `FIEMAP_EXTENT_UNKNOWN`, `_DELALLOC` and `_DATA_INLINE`: it is not where it says.
const EXTENT_ELSEWHERE: u32 = 0x2 | 0x4 | 0x200;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap`, with room for [`EXTENTS`].
#[repr(C)]
pub(crate) struct FileMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [MapExtent; EXTENTS],
}

impl FileMap {
    fn new(start: u64) -> Self {
        let none = MapExtent {
            logical: 0,
            physical: 0,
            length: 0,
            reserved64: [0; 2],
            flags: 0,
            reserved: [0; 3],
        };
        Self {
            start,
            length: u64::MAX - start,
            // FIEMAP_FLAG_SYNC: what was just written has a place then
            flags: 1,
            mapped: 0,
            room: 128,
            reserved: 0,
            extents: [none; EXTENTS],
        }
    }
}

const _: () = {
    assert!(size_of::<MapExtent>() == 56);
    assert!(size_of::<FileMap>() == 32 + 56 * EXTENTS);
};

/// The bare ioctl, unsafe because the kernel trusts its pointer.
mod raw {
    use super::FileMap;

    // the size in its number is that of the header alone
    nix::ioctl_readwrite_bad!(fiemap, nix::request_code_readwrite!(b'f', 11, 32), FileMap);
}
