//! The kernel module's low memory signal: /proc/oom_notifier, held open.
//!
//! The file is read for levels and counts, waited on for EPOLLPRI (a change of the level, or the begin of a hold), and written
//! by the one process that is the handler. Reading takes a notice back, so each reader opens the file for itself: what one
//! has seen stays news for the other. Registration, and a table that is not to be kept, end with the open file.
//!
//! Where there is no module there is no file, and nothing else is missed: [`Lms::open`] says `None`. While the file is open the
//! module can't be unloaded. kmod/README.md describes the file.

mod line;
mod report;
mod table;

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, write};

pub use report::Report;
#[cfg(test)]
pub(crate) use report::tests::TEXT as REPORT;
pub use table::{INTERFACE, LONGEST_GLOB, LONGEST_KEEP, Lines, MOST_BYTES, MOST_LINES, Table};

use crate::cgroup::GroupId;
use crate::cgroup::buffer::ReadBuf;
use crate::cgroup::parse::ParseError;
use line::Line;

/// Where the module puts its file.
pub const PATH: &str = "/proc/oom_notifier";

/// Why the module's file told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LmsError {
    /// The system refused.
    #[error("{PATH}: {0}")]
    Errno(Errno),
    /// The text made no sense: another version of the module, most likely.
    #[error("{PATH}: {0}")]
    Parse(ParseError),
}

/// The open file.
#[derive(Debug)]
pub struct Lms {
    file: OwnedFd,
    writable: bool,
    /// What a stand-in refuses: commands that begin so, with the errno.
    #[cfg(test)]
    pub(crate) refuses: std::sync::Mutex<Vec<(&'static str, Errno)>>,
    /// What the warden does while a stand-in takes a table: it changes its mind.
    #[cfg(test)]
    pub(crate) overtakes: std::sync::Mutex<Option<std::sync::Arc<std::sync::atomic::AtomicU64>>>,
}

impl Lms {
    /// Opens the module's file (`path` is [`PATH`], but for tests), to be written where we may, else to be read. `None`: the
    /// module isn't loaded.
    ///
    /// # Errors
    /// The errno of open(2) for reading.
    pub fn open(path: &Path) -> io::Result<Option<Lms>> {
        let opened = |access: OFlags| match open(path, access | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        };
        let (file, writable) = match opened(OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => (opened(OFlags::RDONLY)?, false),
            other => (other?, true),
        };
        Ok(file.map(|file| Lms {
            file,
            writable,
            #[cfg(test)]
            refuses: std::sync::Mutex::default(),
            #[cfg(test)]
            overtakes: std::sync::Mutex::default(),
        }))
    }

    /// Reads the whole text, and with that takes EPOLLPRI back. Allocates nothing.
    ///
    /// # Errors
    /// A failed or senseless read.
    pub fn read(&self, buffer: &mut ReadBuf) -> Result<Report, LmsError> {
        let text = buffer.pread(&self.file).map_err(LmsError::Errno)?;
        Report::parse(text).map_err(LmsError::Parse)
    }

    /// Makes this process the handler until the file is closed. A hold lasts `hold` (whole milliseconds, 1 ms to 2 s) at the
    /// most, and never longer than the module's own parameter says. Again: another `hold`.
    ///
    /// # Errors
    /// EBUSY: another process is the handler. EPERM without CAP_KILL and CAP_SYS_RESOURCE. EINVAL for a `hold` out of range.
    pub fn register(&self, hold: Duration) -> Result<(), Errno> {
        self.command(format_args!("handler {}", hold.as_millis()))
    }

    /// Is the handler no longer.
    ///
    /// # Errors
    /// ENOENT if it was not; EPERM as above.
    pub fn release(&self) -> Result<(), Errno> {
        self.command(format_args!("release"))
    }

    /// Answers the hold `seq` (of [`Report::hold_seq`]): the signals are delivered. The ends of
    /// those that were killed in the group `victim`, or below it, are hastened. Allocates nothing.
    ///
    /// An older module of the same interface takes no group in an answer (EINVAL); it is answered
    /// without one.
    ///
    /// # Errors
    /// ESTALE if that hold is over; EPERM if this file is not the handler's.
    pub fn ack(&self, seq: u64, victim: Option<GroupId>) -> Result<(), Errno> {
        match victim {
            Some(GroupId(id)) => match self.command(format_args!("ack {seq} {id}")) {
                Err(Errno::INVAL) => self.ack(seq, None),
                result => result,
            },
            None => self.command(format_args!("ack {seq}")),
        }
    }

    /// Answers the hold `seq`: nobody will be killed, so the kernel may go ahead. Allocates nothing.
    ///
    /// # Errors
    /// As [`Lms::ack`].
    pub fn pass(&self, seq: u64) -> Result<(), Errno> {
        self.command(format_args!("pass {seq}"))
    }

    /// Tells the module how much swap there is in all. Allocates nothing.
    ///
    /// # Errors
    /// EPERM if this file is not the handler's.
    pub fn tell_swap_total(&self, bytes: u64) -> Result<(), Errno> {
        self.command(format_args!("swap_total {}", bytes / 1024))
    }

    /// Puts `table` in the place of the module's. Allocates nothing here; the module may have to, so this is not for the
    /// moment of an OOM.
    ///
    /// # Errors
    /// EBUSY: another process is the handler. EPERM as above.
    pub fn write_table(&self, table: &Table) -> Result<(), Errno> {
        self.write(table.as_bytes())
    }

    /// Empties the module's table. Allocates nothing, here and in the module.
    ///
    /// # Errors
    /// As [`Lms::write_table`].
    pub fn clear_table(&self) -> Result<(), Errno> {
        self.command(format_args!("clear"))
    }

    fn command(&self, words: fmt::Arguments<'_>) -> Result<(), Errno> {
        let mut line = Line::default();
        writeln!(line, "{words}").map_err(|fmt::Error| Errno::INVAL)?;
        self.write(line.as_bytes())
    }

    /// One command is one write: a part of one would be another command.
    fn write(&self, bytes: &[u8]) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::ACCESS);
        }
        #[cfg(test)]
        if bytes.starts_with(b"table")
            && let Some(changes) = self.overtakes.lock().unwrap().take()
        {
            changes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        #[cfg(test)]
        if let Some((_, errno)) = self.refuses.lock().unwrap().iter().find(|(begin, _)| bytes.starts_with(begin.as_bytes())) {
            return Err(*errno);
        }
        loop {
            match write(&self.file, bytes) {
                Ok(written) if written == bytes.len() => return Ok(()),
                Ok(_) => return Err(Errno::IO),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Lms {
    /// For the epoll set: EPOLLPRI. EPOLLIN is always there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests;
