//! Where journal lines go: a file that is appended to, standard output, or nowhere.
//!
//! The file may be moved away or removed under the daemon (log rotation): each line looks whether the path still leads
//! to the file that is open. A line is written by one call where the kernel lets it; if a write ends in the middle, the
//! half line is closed by a newline before the next one, so that every later line can be read.
//!
//! A file that grows past its [`Rotation`] is renamed to `FILE.1`, that one to `FILE.2` and so on, before the line that
//! would have made it too large. Where that can't be done (a directory that may not be written to), it grows on: a record too
//! large is better than none.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;

use crate::owners::{self, Unsafe};
use crate::units::Bytes;

/// The file's mode when it is created: groups' names and memory are not everybody's business.
const MODE: u32 = 0o640;

/// Where the journal goes, as the command line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalTo {
    /// Nowhere.
    Nowhere,
    /// Standard output: `-`.
    Stdout,
    /// This file.
    File(PathBuf),
}

impl FromStr for JournalTo {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<JournalTo, Self::Err> {
        Ok(match text {
            "" => JournalTo::Nowhere,
            "-" => JournalTo::Stdout,
            path => JournalTo::File(path.into()),
        })
    }
}

/// When a journal file makes room for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// No line makes the file larger than this, unless it is the only one in it. `None`: the file grows as it likes.
    pub at: Option<Bytes>,
    /// How many former files are kept: `FILE.1` is the youngest.
    pub keep: u16,
}

impl Rotation {
    /// Nothing is ever rotated.
    pub const NEVER: Rotation = Rotation { at: None, keep: 0 };
}

impl Default for Rotation {
    /// Some ten thousand judgements a file, a third of a gigabyte in all.
    fn default() -> Rotation {
        Rotation { at: Some(Bytes(64 << 20)), keep: 4 }
    }
}

/// A journal, and when it makes room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Where it goes.
    pub to: JournalTo,
    /// For files.
    pub rotation: Rotation,
}

impl From<JournalTo> for Destination {
    /// With the usual rotation.
    fn from(to: JournalTo) -> Destination {
        Destination { to, rotation: Rotation::default() }
    }
}

/// The journal can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("journal {}: {source}; its directory must exist and be writable, or choose another by --journal", path.display())]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// An open journal.
#[derive(Debug)]
pub struct JournalFile {
    to: JournalTo,
    rotation: Rotation,
    unrotated: Option<io::Error>,
    open: Option<OpenFile>,
    stdout: HalfLine,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    device: u64,
    inode: u64,
    half_line: HalfLine,
    unsynced: bool,
}

impl JournalFile {
    /// Opens the journal.
    ///
    /// # Errors
    /// The file can't be created or opened for appending.
    pub fn open(destination: impl Into<Destination>) -> Result<JournalFile, JournalError> {
        let Destination { to, rotation } = destination.into();
        let open = match &to {
            JournalTo::File(path) => Some(OpenFile::open(path).map_err(|source| JournalError { path: path.clone(), source })?),
            JournalTo::Stdout | JournalTo::Nowhere => None,
        };
        Ok(JournalFile { to, rotation, unrotated: None, open, stdout: HalfLine::default() })
    }

    /// Where it goes.
    #[must_use]
    pub fn to(&self) -> &JournalTo {
        &self.to
    }

    /// Appends one line; the newline is added here.
    ///
    /// # Errors
    /// The line is lost, wholly or from some byte on; the next call tries the file anew.
    pub fn write(&mut self, line: &str) -> io::Result<()> {
        match &self.to {
            JournalTo::Nowhere => Ok(()),
            JournalTo::Stdout => {
                let mut out = io::stdout().lock();
                self.stdout.write(&mut out, line)?;
                out.flush()
            }
            JournalTo::File(path) => {
                let there = self.open.as_ref().and_then(|open| open.found_at(path));
                let is_full = there.as_ref().is_some_and(|there| self.rotation.is_due(there, line));
                if is_full {
                    self.unrotated = self.rotation.rotate(path).err();
                }
                if there.is_none() || (is_full && self.unrotated.is_none()) {
                    if let Some(mut old) = self.open.take() {
                        old.sync();
                    }
                    self.open = Some(OpenFile::open(path)?);
                }
                let Some(open) = &mut self.open else { return Ok(()) };
                open.unsynced = true;
                open.half_line.write(&mut &open.file, line)
            }
        }
    }

    /// Why the last file that was full could not be renamed, if that is so: it is told once.
    pub fn unrotated(&mut self) -> Option<io::Error> {
        self.unrotated.take()
    }

    /// Asks the kernel to bring what was written to the disk: whoever runs out of memory may well be reset next. Errors
    /// are those of the disk, and the next write meets them too.
    pub fn flush(&mut self) {
        if let Some(open) = &mut self.open {
            open.sync();
        }
    }
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<OpenFile> {
        // A symlink or a file that somebody else put there would have us write, as root, where he likes.
        let file = owners::append(path, MODE).map_err(|error| match error {
            Unsafe::Io { source, .. } => source,
            writable => io::Error::new(io::ErrorKind::PermissionDenied, writable),
        })?;
        let metadata = file.metadata()?;
        let half_line = HalfLine { is_open: ends_in_mid_line(&file, &metadata) };
        Ok(OpenFile { device: metadata.dev(), inode: metadata.ino(), file, half_line, unsynced: false })
    }

    fn sync(&mut self) {
        if std::mem::take(&mut self.unsynced) {
            // A FIFO or a terminal can't be synced; a disk that can't will refuse the next line too.
            let _ = self.file.sync_data();
        }
    }

    /// The file that the path leads to, if that is still this one.
    fn found_at(&self, path: &Path) -> Option<Metadata> {
        std::fs::metadata(path).ok().filter(|there| there.dev() == self.device && there.ino() == self.inode)
    }
}

impl Rotation {
    /// Whether this line would make the file too large. A FIFO or a terminal has no size.
    fn is_due(self, there: &Metadata, line: &str) -> bool {
        let after = there.len().saturating_add(line.len() as u64).saturating_add(1);
        there.is_file() && there.len() > 0 && self.at.is_some_and(|most| after > most.0)
    }

    /// Renames `FILE.1` to `FILE.2` and so on, the oldest over the one that is dropped, and at last the file itself.
    fn rotate(self, path: &Path) -> io::Result<()> {
        if self.keep == 0 {
            return std::fs::remove_file(path);
        }
        for younger in (1..self.keep).rev() {
            match std::fs::rename(numbered(path, younger), numbered(path, younger + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(path, numbered(path, 1))
    }
}

/// `FILE.1`
fn numbered(path: &Path, number: u16) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Whether an earlier run was cut off while it wrote.
fn ends_in_mid_line(file: &File, metadata: &Metadata) -> bool {
    let mut last = [b'\n'];
    if metadata.is_file() && metadata.len() > 0 {
        // If it can't be read it is taken for whole: an empty line too many would do no harm, but neither any good.
        let _ = file.read_at(&mut last, metadata.len() - 1);
    }
    last != [b'\n']
}

/// Whether the last write ended in the middle of a line.
#[derive(Debug, Default)]
struct HalfLine {
    is_open: bool,
}

impl HalfLine {
    fn write(&mut self, out: &mut impl Write, line: &str) -> io::Result<()> {
        let newline = if self.is_open { "\n" } else { "" };
        let text = format!("{newline}{line}\n");
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(0) => return Err(Errno::EIO.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    // Closed again only by the newline at the end, or by one that stood in front and was all that went.
                    let gone = text.len() - rest.len();
                    self.is_open = !rest.is_empty() && gone > newline.len();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
