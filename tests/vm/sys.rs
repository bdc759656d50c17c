//! System calls that no crate in use offers: modules, memory policies, mappings.
#![allow(unsafe_code, reason = "system calls without a safe wrapper, with plain numbers and pointers to what outlives the call")]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;

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
