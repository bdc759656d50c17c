//! One buffer a thread, in which small files of the kernel are read whole.

use std::os::fd::AsFd;

use rustix::io::{Errno, pread};

/// The largest text that is read in one go: several times the longest memory.stat.
const BUFFER_BYTES: usize = 16 * 1024;

/// A reused buffer for reading small files.
#[derive(Debug)]
pub struct ReadBuf(Box<[u8]>, Opening);

/// Whether a file that is not held open may be opened for a reading. An open can wait for a task that waits for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    Allowed,
    Refused,
}

impl Default for ReadBuf {
    fn default() -> ReadBuf {
        ReadBuf::new()
    }
}

impl ReadBuf {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> ReadBuf {
        ReadBuf(vec![0; BUFFER_BYTES].into(), Opening::Allowed)
    }

    /// Reads nothing but held files from now on, or any again.
    pub fn only_held(&mut self, only: bool) {
        self.1 = if only { Opening::Refused } else { Opening::Allowed };
    }

    /// Whether a file that is not held may be opened for a reading.
    #[must_use]
    pub fn may_open(&self) -> bool {
        self.1 == Opening::Allowed
    }

    /// Locks the buffer in memory.
    ///
    /// # Errors
    /// As [`crate::sys::lock`].
    pub fn lock(&mut self) -> std::io::Result<()> {
        crate::sys::lock(&mut self.0)
    }

    /// Reads a whole file from its begin.
    ///
    /// # Errors
    /// The errno; E2BIG for a file longer than the buffer.
    pub fn pread(&mut self, file: impl AsFd) -> Result<&[u8], Errno> {
        let mut filled = 0;
        loop {
            match pread(&file, &mut self.0[filled..], filled as u64) {
                Ok(0) if filled == self.0.len() => return Err(Errno::TOOBIG),
                Ok(0) => return Ok(&self.0[..filled]),
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Reads a file of lines of any length in chunks and calls `line` with each, without its newline, until that says
    /// `false`. A last line without a newline is given as well.
    ///
    /// # Errors
    /// The errno; E2BIG for a line longer than the buffer.
    pub fn each_line(&mut self, file: impl AsFd, mut line: impl FnMut(&[u8]) -> bool) -> Result<(), Errno> {
        let (mut offset, mut kept) = (0u64, 0);
        loop {
            if kept == self.0.len() {
                return Err(Errno::TOOBIG);
            }
            let read = match pread(&file, &mut self.0[kept..], offset) {
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            offset += read as u64;
            let filled = kept + read;
            let mut begin = 0;
            while let Some(length) = self.0[begin..filled].iter().position(|byte| *byte == b'\n') {
                if !line(&self.0[begin..begin + length]) {
                    return Ok(());
                }
                begin += length + 1;
            }
            if read == 0 {
                if begin < filled {
                    line(&self.0[begin..filled]);
                }
                return Ok(());
            }
            self.0.copy_within(begin..filled, 0);
            kept = filled - begin;
        }
    }
}
