//! System calls that no crate in use offers: modules, memory policies, mappings.
#![allow(unsafe_code, reason = "system calls without a safe wrapper, with plain numbers and pointers to what outlives the call")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// Loads the module in `file`.
pub fn load_module(file: &File, parameters: &CStr) -> Result<(), Errno> {
    // SAFETY: the string ends with NUL, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) };
    Errno::result(result).map(drop)
}

/// Maps the first bytes of a file for good, to be read.
pub fn map(file: &File, bytes: usize) -> Result<&'static [u8], Errno> {
    // SAFETY: the kernel chooses a place that nothing else uses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: it is never unmapped, and nobody writes to the files that scenarios map.
    Ok(unsafe { std::slice::from_raw_parts(at.cast(), bytes) })
}

/// Freezes the file system that a directory is on, or thaws it.
pub fn freeze(directory: &File, frozen: bool) -> Result<(), Errno> {
    // FIFREEZE and FITHAW.
    let request = if frozen { 0xc004_5877 } else { 0xc004_5878 };
    // SAFETY: the kernel ignores the argument.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), request, 0) };
    Errno::result(result).map(drop)
}

/// A read from the beginning of a file to an address where nothing is.
pub fn read_to_nowhere(file: &File) -> Result<(), Errno> {
    // SAFETY: the kernel refuses to write to the first page, which nobody can map.
    let result = unsafe { libc::syscall(libc::SYS_pread64, file.as_raw_fd(), 16, 64, 0) };
    Errno::result(result).map(drop)
}

/// Unloads a module if nobody uses it.
pub fn unload_module(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the string ends with NUL, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
    Errno::result(result).map(drop)
}

/// Lets the calling thread, and those that it starts, take memory from one NUMA node only.
pub fn bind_memory(node: u32) -> Result<(), Errno> {
    let mask: libc::c_ulong = 1 << node;
    // One more than the number of bits: the kernel takes one off.
    let bits = libc::c_ulong::from(libc::c_ulong::BITS) + 1;
    // SAFETY: the kernel reads `bits - 1` bits from the mask, which is as long.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, &raw const mask, bits) };
    Errno::result(result).map(drop)
}

/// Anonymous memory, kept for good, that is taken from one NUMA node only.
pub fn map_on_node(bytes: usize, node: u32) -> Result<&'static mut [u8], Errno> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // More than there is may be asked for.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses a place that nothing else uses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let mask: libc::c_ulong = 1 << node;
    let bits = libc::c_ulong::from(libc::c_ulong::BITS) + 1;
    // SAFETY: as in `bind_memory`; the stretch is ours.
    let result = unsafe { libc::syscall(libc::SYS_mbind, at, bytes, libc::MPOL_BIND, &raw const mask, bits, 0) };
    Errno::result(result)?;
    // SAFETY: it is never unmapped, nobody else knows of it, and it begins as zeroes.
    Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), bytes) })
}

/// Queues an event, without a limit to their number, for each file that is closed on the mount that a path is on, until what it returns is closed.
pub fn watch_closes(path: &Path) -> Result<OwnedFd, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: takes flags only.
    let watcher = unsafe {
        libc::fanotify_init(libc::FAN_CLASS_NOTIF | libc::FAN_UNLIMITED_QUEUE | libc::FAN_CLOEXEC, libc::O_RDONLY as libc::c_uint)
    };
    Errno::result(watcher)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    let watcher = unsafe { OwnedFd::from_raw_fd(watcher) };
    let how = libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT;
    // SAFETY: the string ends with NUL, and the kernel only reads it.
    let marked = unsafe { libc::fanotify_mark(watcher.as_raw_fd(), how, libc::FAN_CLOSE, libc::AT_FDCWD, path.as_ptr()) };
    Errno::result(marked)?;
    Ok(watcher)
}

/// Maps memory for good whose equal pages KSM may merge.
pub fn mergeable(bytes: usize) -> Result<&'static mut [u8], Errno> {
    let (read_write, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses a place that nothing else uses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, read_write, private, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the mapping was just made, as long as that.
    Errno::result(unsafe { libc::madvise(at, bytes, libc::MADV_MERGEABLE) })?;
    // SAFETY: as above; it is never unmapped, and nobody else knows it.
    Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), bytes) })
}
