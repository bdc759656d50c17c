//! What outlives the daemon, in the directory of `--state`: a pause that is not over ([`pause`]),
//! the last policy that was good ([`policy`]), and where memory.oom.group was set ([`oom_group`]).
//! [`lock`] keeps a second oomwarden off.
//!
//! A file is written whole under another name, synced and renamed: whoever reads finds the old one or the new one. Readable for the
//! owner and his group. What others than root and our own user may write to is not read: a policy with hooks, or a pause for a
//! day, would be theirs. Nobody who decides or acts waits for any of this.

pub mod lock;
pub mod oom_group;
pub mod pause;
pub mod policy;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::owners;
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which start of the machine this is; empty where that can't be read.
fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The directory.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// It need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> StateDir {
        StateDir(path.to_owned())
    }

    /// Where a file of it lies.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Puts a file there, or another in its place.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let unfinished = self.path_of(&format!(".{name}.new"));
        // Of a daemon that was killed while it wrote; and never through a symlink.
        forget(&unfinished)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, self.path_of(name))?;
        // So that the new name survives a crash of the machine as well.
        File::open(&self.0)?.sync_all()
    }

    /// The content of a file, if there is one. Of one that is longer than `most` nothing.
    fn read(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let path = self.path_of(name);
        match owners::directory(&self.0) {
            Err(error) if !error.is_missing() => return Err(io::Error::new(io::ErrorKind::PermissionDenied, error)),
            _ => {}
        }
        // Never through a symlink, and without waiting for whoever opens the other end of a FIFO.
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        owners::opened(&file, &path, false).map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))?;
        let mut content = Vec::new();
        file.take(most + 1).read_to_end(&mut content)?;
        if content.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than anything that was ever written there"));
        }
        Ok(Some(content))
    }

    /// Gives a file that makes no sense another name, `NAME.bad`, so that the next one does not take
    /// its place for good. Returns where it is now.
    fn set_aside(&self, name: &str) -> io::Result<PathBuf> {
        let aside = self.path_of(&format!("{name}.bad"));
        fs::rename(self.path_of(name), &aside)?;
        Ok(aside)
    }

    /// Takes a file away, if there is one.
    fn remove(&self, name: &str) -> io::Result<()> {
        forget(&self.path_of(name))
    }
}

fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// RFC 3339, UTC, whole seconds.
#[must_use]
pub fn time_text(time: SystemTime) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{timestamp:.0}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        assert_eq!(state.read("x", 10).expect("read"), None);
        // Left by somebody who did not come to the end.
        fs::write(state.path_of(".x.new"), "half").expect("written");
        state.write("x", b"one").expect("written");
        state.write("x", b"two").expect("written");
        assert_eq!(state.read("x", 10).expect("read").as_deref(), Some(&b"two"[..]));
        assert_eq!(fs::metadata(state.path_of("x")).expect("there").permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
        assert!(state.read("x", 2).is_err(), "too long");
        state.remove("x").expect("removed");
        state.remove("x").expect("removed before");
        assert_eq!(state.read("x", 10).expect("read"), None);
    }

    #[test]
    fn what_others_may_write_to_is_not_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        state.write("x", b"one").expect("written");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        let said = || state.read("x", 10).expect_err("refused").to_string();
        mode(&state.path_of("x"), 0o662);
        assert!(said().contains("mode 0662"), "{}", said());
        mode(&state.path_of("x"), 0o640);
        mode(dir.path(), 0o1777);
        assert!(said().contains("mode 1777"), "{}", said());
        mode(dir.path(), 0o755);
        assert_eq!(state.read("x", 10).expect("read").as_deref(), Some(&b"one"[..]));
        std::os::unix::fs::symlink("x", state.path_of("link")).expect("linked");
        assert!(state.read("link", 10).is_err());
        rustix::fs::mknodat(rustix::fs::CWD, state.path_of("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
            .expect("a FIFO");
        assert_eq!(state.read("fifo", 10).expect("nothing, at once").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn without_the_directory_it_is_an_error_and_nothing_else() {
        let state = StateDir::new(Path::new("/nowhere/at/all"));
        assert!(state.write("x", b"one").is_err());
        assert_eq!(state.read("x", 10).expect("nothing"), None);
    }

    #[test]
    fn times_are_whole_seconds() {
        assert_eq!(time_text(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1500)), "1970-01-01T00:00:01Z");
    }
}
