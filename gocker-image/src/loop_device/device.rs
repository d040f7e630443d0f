//! Loop devices by ioctl: attach a file, find the device that has it, take over its size.
//!
//! Layouts and numbers: Linux, include/uapi/linux/loop.h.

#![expect(
    unsafe_code,
    reason = "loop devices are driven by ioctls, for which nix has macros but no safe functions"
)]

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{BLOCK_BYTES, LoopError, open};
use crate::errno::CallError;

const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// A loop device, kept attached by its descriptor until it is mounted.
pub(super) struct Device {
    pub(super) path: PathBuf,
    file: File,
}

impl Device {
    /// Takes over the size that the file has now.
    pub(super) fn take_size(&self) -> Result<(), CallError> {
        // SAFETY: the call takes a number that it does not read, and no pointer.
        unsafe { raw::set_capacity(self.file.as_raw_fd(), 0) }
            .map_err(|errno| CallError::new("LOOP_SET_CAPACITY", &self.path, errno))?;
        Ok(())
    }
}

/// Attaches `file` to a free loop device, or finds the one that has it.
pub(super) fn attach(file: &Path) -> Result<Device, LoopError> {
    let backing = open(file, OpenOptions::new().read(true).write(true))?;
    if let Some(device) = find_attached(&backing)? {
        return Ok(device);
    }
    let control = open(
        Path::new("/dev/loop-control"),
        OpenOptions::new().read(true).write(true),
    )
    .map_err(LoopError::NoDevice)?;
    loop {
        // SAFETY: the call takes no pointer.
        let number = unsafe { raw::ctl_get_free(control.as_raw_fd()) }
            .map_err(|errno| CallError::new("LOOP_CTL_GET_FREE", "/dev/loop-control", errno))
            .map_err(LoopError::NoDevice)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device =
            open(&path, OpenOptions::new().read(true).write(true)).map_err(LoopError::NoDevice)?;
        let config = Config::new(&backing);
        // SAFETY: the kernel reads `config` during the call; the descriptor in
        // it stays open until the call returns.
        match unsafe { raw::configure(device.as_raw_fd(), &raw const config) } {
            Ok(_) => {
                return Ok(Device { path, file: device });
            }
            Err(Errno::EBUSY) => {} // someone else was quicker
            Err(errno) => return Err(CallError::new("LOOP_CONFIGURE", path, errno).into()),
        }
    }
}

/// The loop device that has the file `backing` already, in whatever mount
/// namespace: a second one would be taken for a copy of the file system.
pub(super) fn find_attached(backing: &File) -> Result<Option<Device>, CallError> {
    let wanted = backing
        .metadata()
        .map_err(|error| CallError::new("fstat", "", error))?;
    let Ok(devices) = fs::read_dir("/sys/block") else {
        return Ok(None);
    };
    for device in devices.flatten() {
        if !device.path().join("loop/backing_file").exists() {
            continue;
        }
        let path = Path::new("/dev").join(device.file_name());
        let Ok(file) = open(&path, OpenOptions::new().read(true).write(true)) else {
            continue;
        };
        let mut info = Info::default();
        // SAFETY: the kernel writes `info` during the call.
        let status = unsafe { raw::get_status(file.as_raw_fd(), &raw mut info) };
        if status.is_ok() && (info.device, info.inode) == (wanted.dev(), wanted.ino()) {
            return Ok(Some(Device { path, file }));
        }
    }
    Ok(None)
}

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Default for Info {
    fn default() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: i32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

impl Config {
    fn new(backing: &File) -> Self {
        Self {
            fd: backing.as_raw_fd(),
            block_size: BLOCK_BYTES,
            info: Info {
                flags: AUTOCLEAR | DIRECT_IO,
                ..Info::default()
            },
            reserved: [0; 8],
        }
    }
}

const _: () = {
    assert!(size_of::<Info>() == 232);
    assert!(size_of::<Config>() == 304);
};

/// The bare ioctls; those with a pointer are unsafe because the kernel trusts
/// it.
mod raw {
    use super::{Config, Info};

    nix::ioctl_none_bad!(ctl_get_free, 0x4c82);
    nix::ioctl_write_ptr_bad!(configure, 0x4c0a, Config);
    nix::ioctl_write_int_bad!(set_capacity, 0x4c07);
    nix::ioctl_read_bad!(get_status, 0x4c05, Info);
}
