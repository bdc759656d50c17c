//! Which signals a process handles: SigCgt in /proc/PID/status (proc_pid_status(5)).
//!
//! A signal that is not handled ends the process, so only what is surely handled counts: what can't be read is not. Reading
//! the file takes no mmap_lock, so a process that is stuck in reclaim holds nobody up.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open, openat};

use crate::cgroup::buffer::ReadBuf;
use crate::policy::model::WarnSignal;
use crate::sense::process::PathBuffer;

/// A reader of /proc that holds the directory open.
#[derive(Debug)]
pub struct Handlers {
    /// `None`: no /proc, so nobody is known to handle anything.
    proc: Option<OwnedFd>,
}

impl Handlers {
    /// Opens /proc.
    #[must_use]
    pub fn open() -> Handlers {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Handlers { proc: open("/proc", flags, Mode::empty()).ok() }
    }

    /// Whether the process handles the signal right now.
    pub fn handles(&self, pid: i32, signal: WarnSignal, buffer: &mut ReadBuf) -> bool {
        let Some(proc) = &self.proc else { return false };
        let mut path = PathBuffer::default();
        let file = openat(proc, path.write(pid, b"status"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        file.and_then(|file| Ok(caught(buffer.pread(file)?))).is_ok_and(|caught| caught.is_some_and(|set| set & bit(signal) != 0))
    }
}

fn bit(signal: WarnSignal) -> u64 {
    u32::try_from(signal.number() - 1).ok().and_then(|shift| 1u64.checked_shl(shift)).unwrap_or(0)
}

/// The set after `SigCgt:`; a process's name can't forge the line, because the kernel escapes its newlines.
fn caught(status: &[u8]) -> Option<u64> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"SigCgt:\t"))?;
    u64::from_str_radix(std::str::from_utf8(line).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_found_and_what_is_no_set_counts_for_nothing() {
        let status = b"Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000000800\nSigCgt:\t8000000000000200\nCapInh:\t0\n";
        assert_eq!(caught(status), Some(0x8000_0000_0000_0200));
        for broken in [&b""[..], b"SigCgt:\t", b"SigCgt:\tx\n", b"SigCgt: 1\n", b"Name:\tSigCgt:\tff\n", b"SigCgt:\t11111111111111111\n"] {
            assert_eq!(caught(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn signals_are_bits_counted_from_one() {
        assert_eq!((bit(WarnSignal::USR1), bit(WarnSignal::USR2)), (0x200, 0x800));
        assert_eq!(WarnSignal::real_time(30).map(bit), Some(1 << 63));
    }

    #[test]
    fn who_is_gone_handles_nothing() {
        assert!(!Handlers::open().handles(i32::MAX, WarnSignal::USR1, &mut ReadBuf::new()));
    }
}
