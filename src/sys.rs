//! The system calls that no crate offers safely: the only module with `unsafe`.
#![allow(
    unsafe_code,
    reason = "locking memory, scheduling, and calls that crates lack have no safe wrapper; each call says why it is sound"
)]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use procfs::process::{MMPermissions, MMapPath, Process};
use rustix::io::Errno;
use rustix::mm::{Advice, MlockFlags, madvise, mlock, mlock_with};

/// Frees the memory of a dying process at once, from our own context (process_mrelease(2), Linux 5.15).
///
/// # Errors
/// The errno: ENOSYS before 5.15, EINVAL if the process is not dying, ESRCH if it is gone.
pub fn process_mrelease(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_fd().as_raw_fd(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by its number, real-time ones too (pidfd_send_signal(2)).
///
/// # Errors
/// The errno: ESRCH if the process is gone, EPERM without the right.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the call takes integers and a null pointer, which stands for what kill(2) would send.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Who connected a Unix socket (SO_PEERCRED): pid and uid. A pid of 0 is that of a process in another pid namespace.
///
/// # Errors
/// The errno: ENOTSOCK.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> Result<(i32, u32), Errno> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    // SAFETY: the struct is made of integers, for which any bytes will do.
    unsafe { socket_option(socket, libc::SO_PEERCRED, &mut credentials) }?;
    Ok((credentials.pid, credentials.uid))
}

/// The process at the other end of a Unix socket, whose pid can't be recycled while this is held (SO_PEERPIDFD, Linux 6.5).
///
/// # Errors
/// The errno: ENOPROTOOPT before 6.5, ESRCH if the process is gone.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    /// asm-generic/socket.h; libc has no name for it yet.
    const SO_PEERPIDFD: i32 = 77;
    let mut fd: i32 = -1;
    // SAFETY: an integer, for which any bytes will do.
    unsafe { socket_option(socket, SO_PEERPIDFD, &mut fd) }?;
    if fd < 0 {
        return Err(Errno::SRCH);
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads a socket option at the level of sockets.
///
/// # Safety
/// Any bytes must make a valid `T`.
unsafe fn socket_option<T>(socket: BorrowedFd<'_>, option: i32, value: &mut T) -> Result<(), Errno> {
    let size = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)?;
    let mut length = size;
    let place = std::ptr::from_mut(value).cast::<c_void>();
    // SAFETY: the kernel writes at most `length` bytes to the place, which is as long; both outlive the call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, place, &raw mut length) };
    match result {
        0 if length == size => Ok(()),
        0 => Err(Errno::NOPROTOOPT),
        _ => Err(last_errno()),
    }
}

/// Has a command run in a session of its own, with no signal blocked, and end when the thread that starts it does (setsid(2),
/// PR_SET_PDEATHSIG).
pub fn in_own_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: between fork and exec only three system calls are made, which take and keep no lock and allocate nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
}

fn last_errno() -> Errno {
    Errno::from_raw_os_error(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Runs this thread before all ordinary ones (SCHED_RR, lowest priority; threads that it starts don't inherit that). Besides, the
/// kernel lets allocations of such a thread go below the watermark at which all others have to reclaim
/// (`gfp_to_alloc_flags` in mm/page_alloc.c), so that whoever is to end a shortage need not wait for its end.
///
/// # Errors
/// EPERM without CAP_SYS_NICE or RLIMIT_RTPRIO.
pub fn run_before_others() -> io::Result<()> {
    schedule(libc::SCHED_RR, 1)
}

/// Takes [`run_before_others`] back.
///
/// # Errors
/// As there.
pub fn run_like_others() -> io::Result<()> {
    schedule(libc::SCHED_OTHER, 0)
}

fn schedule(policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the call reads one struct that lives until it returns; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How much of a stack is touched and locked: more than the kill path was seen to need.
const STACK_BYTES: usize = 32 * 1024;

/// Touches and locks the part of this thread's stack that calls from here on will use.
///
/// # Errors
/// The errno of mlock(2): ENOMEM or EPERM beyond RLIMIT_MEMLOCK.
#[inline(never)]
pub fn lock_stack() -> io::Result<()> {
    let mut frame = [0u8; STACK_BYTES];
    lock(std::hint::black_box(&mut frame))
}

/// Locks what `buffer` occupies. The lock outlives the buffer, which is harmless: the pages stay resident.
///
/// # Errors
/// As [`lock_stack`].
pub fn lock(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: the range is that of a live slice; locking changes no content.
    unsafe { mlock(buffer.as_mut_ptr().cast::<c_void>(), buffer.len()) }.map_err(io::Error::from)
}

/// Keeps pages of this program's own file resident once they have been used from now on (mlock2(2), MLOCK_ONFAULT), so that
/// under a shortage the kill path's code need not be read from disk again. Pages never used cost nothing. Code that only the
/// start has used is let go of before: what is still needed of it comes back at its next use.
///
/// # Errors
/// As [`lock_stack`]; also when /proc/self/maps can't be read.
pub fn lock_program_on_use() -> io::Result<()> {
    let maps = Process::myself().and_then(|me| Ok((me.exe()?, me.maps()?))).map_err(io::Error::other)?;
    let (program, maps) = maps;
    for map in maps.iter().filter(|map| matches!(&map.pathname, MMapPath::Path(path) if *path == program || is_library(path))) {
        let (begin, end) = map.address;
        let length = usize::try_from(end.saturating_sub(begin)).map_err(io::Error::other)?;
        let begin = usize::try_from(begin).map_err(io::Error::other)? as *mut c_void;
        if map.perms.contains(MMPermissions::EXECUTE) && !map.perms.contains(MMPermissions::WRITE) {
            // SAFETY: nobody has written to code, so that it is read from the file again as it was.
            unsafe { madvise(begin, length, Advice::LinuxDontNeed) }?;
        }
        // SAFETY: the range is a mapping of this process that stays for its lifetime (the program or a library that is
        // never unloaded); locking changes no content.
        unsafe { mlock_with(begin, length, MlockFlags::ONFAULT) }?;
    }
    Ok(())
}

/// Whether a mapped file is a shared library.
fn is_library(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().windows(3).any(|part| part == b".so"))
}

/// Copies the end of the kernel's log into `buffer`, nothing is taken out of it; gives how many bytes (syslog(2),
/// SYSLOG_ACTION_READ_ALL).
///
/// # Errors
/// EPERM without CAP_SYSLOG where kernel.dmesg_restrict is set; ENOSYS for a kernel without printk.
pub fn read_kernel_log(buffer: &mut [u8]) -> io::Result<usize> {
    const READ_ALL: i32 = 3;
    let length = i32::try_from(buffer.len()).unwrap_or(i32::MAX);
    // SAFETY: the call writes at most `length` bytes into a live slice at least that long.
    let result = unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), length) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// How large the kernel's log is (SYSLOG_ACTION_SIZE_BUFFER).
///
/// # Errors
/// As [`read_kernel_log`].
pub fn kernel_log_size() -> io::Result<usize> {
    const SIZE_BUFFER: i32 = 10;
    // SAFETY: this action takes no buffer.
    let result = unsafe { libc::klogctl(SIZE_BUFFER, std::ptr::null_mut(), 0) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_not_released() {
        let me = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).unwrap();
        let error = process_mrelease(me.as_fd()).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)), "{error}");
    }
}
