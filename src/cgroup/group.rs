//! One control group: its identity, and its files held open.
//!
//! Which files are held is decided when the group is found (a matter of the budget of descriptors); a file that is not
//! held is opened for each use. Reading goes through [`ReadBuf`], one buffer a thread, always from the file's begin.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::GroupId;
pub use super::buffer::ReadBuf;
use super::parse::{self, ParseError};
use super::path::GroupPath;
use super::root::Root;

/// The files that are read or written, each by the name that the kernel documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum File {
    /// memory.events.local
    EventsLocal,
    /// memory.events
    Events,
    /// memory.current
    Current,
    /// memory.stat
    Stat,
    /// memory.swap.current
    SwapCurrent,
    /// memory.max
    Max,
    /// memory.high
    High,
    /// memory.low
    Low,
    /// memory.oom.group
    OomGroup,
    /// memory.pressure
    Pressure,
    /// cgroup.pressure (6.1): whether the group has PSI
    PressureSwitch,
    /// cgroup.events
    GroupEvents,
    /// cgroup.stat
    GroupStat,
    /// cgroup.type
    Type,
    /// cgroup.procs
    Procs,
    /// cgroup.kill
    Kill,
}

impl File {
    /// How many there are.
    pub const COUNT: usize = File::Kill as usize + 1;

    /// The file's name.
    #[must_use]
    pub const fn name(self) -> &'static CStr {
        match self {
            File::EventsLocal => c"memory.events.local",
            File::Events => c"memory.events",
            File::Current => c"memory.current",
            File::Stat => c"memory.stat",
            File::SwapCurrent => c"memory.swap.current",
            File::Max => c"memory.max",
            File::High => c"memory.high",
            File::Low => c"memory.low",
            File::OomGroup => c"memory.oom.group",
            File::Pressure => c"memory.pressure",
            File::PressureSwitch => c"cgroup.pressure",
            File::GroupEvents => c"cgroup.events",
            File::GroupStat => c"cgroup.stat",
            File::Type => c"cgroup.type",
            File::Procs => c"cgroup.procs",
            File::Kill => c"cgroup.kill",
        }
    }

    fn flags(self) -> OFlags {
        if self == File::Kill { OFlags::WRONLY } else { OFlags::RDONLY }
    }
}

/// Files that a judgement reads, in the order in which they are worth a descriptor.
pub const JUDGED: [File; 10] = [
    File::GroupEvents,
    File::Current,
    File::Stat,
    File::SwapCurrent,
    File::Kill,
    File::Procs,
    File::Max,
    File::High,
    File::OomGroup,
    File::GroupStat,
];

/// What went wrong with a file of a group. Made without allocating.
#[derive(Clone, Debug)]
pub struct ReadError {
    /// Whose file.
    pub group: GroupPath,
    /// Which.
    pub file: File,
    /// Why.
    pub cause: Cause,
}

/// Why a file could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The system refused.
    Errno(Errno),
    /// The text made no sense.
    Parse(ParseError),
}

impl ReadError {
    /// The group was removed: ordinary, not a fault.
    ///
    /// Only files that every group has for as long as it is there can say so. Those of a controller come and go with it:
    /// after `-memory` in the parent's cgroup.subtree_control a held memory file answers ENODEV for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.file, File::GroupEvents | File::Procs)
            && matches!(self.cause, Cause::Errno(Errno::NODEV | Errno::NOENT))
            // The root of the hierarchy has no cgroup.events.
            && !(self.file == File::GroupEvents && self.group.is_root())
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.group.file(&self.file.name().to_string_lossy()))?;
        match self.cause {
            Cause::Errno(errno) => write!(f, "{errno}"),
            Cause::Parse(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// A file of a group: held, or opened for this use.
enum Opened<'a> {
    Held(BorrowedFd<'a>),
    Now(OwnedFd),
}

impl AsFd for Opened<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Opened::Held(fd) => *fd,
            Opened::Now(fd) => fd.as_fd(),
        }
    }
}

/// A control group. See the module text.
#[derive(Debug)]
pub struct Group {
    /// Identity.
    pub id: GroupId,
    /// Path at the time it was found; groups of cgroup v2 can't be renamed.
    pub path: GroupPath,
    root: Arc<Root>,
    dir: Option<OwnedFd>,
    held: [OnceLock<OwnedFd>; File::COUNT],
    /// Files that were to be held and do not exist, a bit each: where a controller comes or goes the group is opened anew.
    absent: AtomicU32,
}

impl Group {
    /// Opens the directory of the group at `path`, relative to `parent` if that is at hand, and learns its identity.
    ///
    /// # Errors
    /// The errno: ENOENT when it is gone, EMFILE when descriptors are short.
    pub fn open(root: &Arc<Root>, parent: Option<(&Group, &CStr)>, path: GroupPath) -> Result<Group, Errno> {
        let dir = match parent {
            Some((Group { dir: Some(parent), .. }, name)) => openat(parent, name, Group::DIR_FLAGS, Mode::empty())?,
            Some((parent, name)) => openat(parent.reopen_dir()?, name, Group::DIR_FLAGS, Mode::empty())?,
            None => open_dir(root, &path)?,
        };
        let id = GroupId(fstat(&dir)?.st_ino);
        let held = [const { OnceLock::new() }; File::COUNT];
        Ok(Group { id, path, root: Arc::clone(root), dir: Some(dir), held, absent: AtomicU32::new(0) })
    }

    const DIR_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// The held directory.
    #[must_use]
    pub fn dir(&self) -> Option<&OwnedFd> {
        self.dir.as_ref()
    }

    /// Lets go of the directory, where descriptors are short: files are then found by path, with the identity checked.
    pub fn release_dir(&mut self) {
        self.dir = None;
    }

    /// The same group with nothing held: every read opens by path and checks the identity. For readers that must not share
    /// a descriptor with the warden.
    #[must_use]
    pub fn unheld(&self) -> Group {
        Group {
            id: self.id,
            path: self.path.clone(),
            root: Arc::clone(&self.root),
            dir: None,
            held: [const { OnceLock::new() }; File::COUNT],
            absent: AtomicU32::new(0),
        }
    }

    /// Whether the group was removed. Any other trouble with looking is no proof of that.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        matches!(self.reopen_dir(), Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR))
    }

    /// Holds `file` open from now on. A file that does not exist is not held, which is no error. With `warm` it is read once
    /// before others see it: the kernel makes a file's buffer at its first reading, and meanwhile every other reader waits.
    ///
    /// # Errors
    /// The errno of the open.
    pub fn hold(&self, file: File, warm: Option<&mut ReadBuf>) -> Result<(), Errno> {
        if self.held(file).is_some() {
            return Ok(());
        }
        match self.open_file(file, file.flags()) {
            Ok(fd) => {
                if let Some(buffer) = warm.filter(|_| file != File::Kill) {
                    // Whatever is in it.
                    let _ = buffer.pread(&fd);
                }
                // Lost against another thread: the other descriptor is as good.
                drop(self.held[file as usize].set(fd));
            }
            Err(Errno::NOENT) => {
                self.absent.fetch_or(1 << file as u32, Ordering::Relaxed);
            }
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Whether the file was to be held and does not exist.
    #[must_use]
    pub fn is_absent(&self, file: File) -> bool {
        self.absent.load(Ordering::Relaxed) & (1 << file as u32) != 0
    }

    /// Whether all that a judgement reads is held, as far as it exists: then nothing has to be opened for it.
    #[must_use]
    pub fn is_held_whole(&self) -> bool {
        JUDGED.into_iter().all(|file| self.held(file).is_some() || self.is_absent(file))
    }

    /// The descriptor of a held file.
    #[must_use]
    pub fn held(&self, file: File) -> Option<&OwnedFd> {
        self.held[file as usize].get()
    }

    /// How many descriptors the group holds.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        usize::from(self.dir.is_some()) + self.held.iter().filter(|held| held.get().is_some()).count()
    }

    /// Opens a file anew.
    ///
    /// # Errors
    /// The errno: ENOENT for a file that is not there, ENODEV when the group was removed.
    pub fn open_file(&self, file: File, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match &self.dir {
            Some(dir) => openat(dir, file.name(), flags, Mode::empty()),
            None => openat(self.reopen_dir()?, file.name(), flags, Mode::empty()),
        }
    }

    /// Opens the directory by path and makes sure that it is still this group.
    ///
    /// # Errors
    /// ENODEV when another group stands there now, or the errno of the open.
    pub fn reopen_dir(&self) -> Result<OwnedFd, Errno> {
        let dir = open_dir(&self.root, &self.path)?;
        if fstat(&dir)?.st_ino == self.id.0 { Ok(dir) } else { Err(Errno::NODEV) }
    }

    /// The directory opened for what a held one is not fit for: its extended attributes. Opening a
    /// directory that is held takes no lock of it.
    ///
    /// # Errors
    /// As [`Group::reopen_dir`] where it is not held; EACCES, EMFILE.
    pub fn readable_dir(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match &self.dir {
            Some(dir) => openat(dir, c".", flags, Mode::empty()),
            None => openat(self.reopen_dir()?, c".", flags, Mode::empty()),
        }
    }

    /// `opens`: whether a file that is not held may be opened.
    fn opened(&self, file: File, opens: bool) -> Result<Opened<'_>, Errno> {
        match self.held(file) {
            Some(fd) => Ok(Opened::Held(fd.as_fd())),
            None if self.is_absent(file) => Err(Errno::NOENT),
            None if !opens => Err(Errno::AGAIN),
            None => self.open_file(file, file.flags()).map(Opened::Now),
        }
    }

    fn error(&self, file: File, cause: Cause) -> ReadError {
        ReadError { group: self.path.clone(), file, cause }
    }

    /// Reads `file` and parses it. `None`: this kernel, or this group, has no such file.
    ///
    /// # Errors
    /// A failed or senseless read, with the file; EAGAIN for one that is not held where the buffer opens nothing.
    pub fn read<T>(
        &self,
        file: File,
        buffer: &mut ReadBuf,
        parse: impl FnOnce(&[u8]) -> Result<T, ParseError>,
    ) -> Result<Option<T>, ReadError> {
        let fd = match self.opened(file, buffer.may_open()) {
            Ok(fd) => fd,
            // These every group has, whatever the kernel: not there means that the group is not.
            Err(Errno::NOENT) if !matches!(file, File::GroupEvents | File::Procs) => return Ok(None),
            Err(errno) => return Err(self.error(file, Cause::Errno(errno))),
        };
        let text = buffer.pread(&fd).map_err(|errno| self.error(file, Cause::Errno(errno)))?;
        parse(text).map(Some).map_err(|error| self.error(file, Cause::Parse(error)))
    }

    /// Calls `each` with every process directly in the group, until that says `false`.
    ///
    /// # Errors
    /// A failed or senseless read; EOPNOTSUPP for a threaded group.
    pub fn each_process(&self, buffer: &mut ReadBuf, mut each: impl FnMut(parse::Process) -> bool) -> Result<(), ReadError> {
        let fd = self.opened(File::Procs, buffer.may_open()).map_err(|errno| self.error(File::Procs, Cause::Errno(errno)))?;
        let mut broken = None;
        buffer
            .each_line(&fd, |line| match parse::process(line) {
                Ok(process) => each(process),
                Err(error) => {
                    broken = Some(error);
                    false
                }
            })
            .map_err(|errno| self.error(File::Procs, Cause::Errno(errno)))?;
        broken.map_or(Ok(()), |error| Err(self.error(File::Procs, Cause::Parse(error))))
    }

    /// Writes `1` to cgroup.kill: SIGKILL to everything in the group and below. May block behind cgroup_mutex.
    ///
    /// # Errors
    /// The errno; ENOENT before Linux 5.14.
    pub fn kill(&self) -> Result<(), Errno> {
        let fd = self.opened(File::Kill, true)?;
        loop {
            match rustix::io::pwrite(&fd, b"1", 0) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Opens the directory at `path` below the root.
fn open_dir(root: &Root, path: &GroupPath) -> Result<OwnedFd, Errno> {
    let relative = path.as_bytes().strip_prefix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(b".");
    openat(&root.dir, relative, Group::DIR_FLAGS, Mode::empty())
}

#[cfg(test)]
mod tests;
