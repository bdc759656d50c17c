//! Where journal lines go: a file that is appended to, standard output, or nowhere.
//!
//! The file may be moved away or removed under the daemon (log rotation): each line looks whether the path still leads
//! to the file that is open. A line is written by one call where the kernel lets it; if a write ends in the middle, the
//! half line is closed by a newline before the next one, so that every later line can be read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;

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
    pub fn open(to: JournalTo) -> Result<JournalFile, JournalError> {
        let open = match &to {
            JournalTo::File(path) => Some(OpenFile::open(path).map_err(|source| JournalError { path: path.clone(), source })?),
            JournalTo::Stdout | JournalTo::Nowhere => None,
        };
        Ok(JournalFile { to, open, stdout: HalfLine::default() })
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
                if !self.open.as_ref().is_some_and(|open| open.is_at(path)) {
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
        let options = |read: bool| {
            let mut options = OpenOptions::new();
            // Nonblocking for those who name a FIFO: a line without a reader is lost, the recorder is not.
            options.append(true).read(read).create(true).mode(MODE).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            options
        };
        let (file, readable) = match options(true).open(path) {
            Ok(file) => (file, true),
            Err(_) => (options(false).open(path)?, false),
        };
        let metadata = file.metadata()?;
        let half_line = HalfLine { is_open: readable && ends_in_mid_line(&file, &metadata) };
        Ok(OpenFile { device: metadata.dev(), inode: metadata.ino(), file, half_line, unsynced: false })
    }

    fn sync(&mut self) {
        if std::mem::take(&mut self.unsynced) {
            // A FIFO or a terminal can't be synced; a disk that can't will refuse the next line too.
            let _ = self.file.sync_data();
        }
    }

    /// Whether the path still leads to this file.
    fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|there| there.dev() == self.device && there.ino() == self.inode)
    }
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
