//! System calls that no crate in use offers: modules and memory policies.
#![allow(
    unsafe_code,
    reason = "three system calls without a safe wrapper, all of them plain numbers and pointers to what outlives the call"
)]

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
