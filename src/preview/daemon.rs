//! The oomwarden that is running here, found by the lock that it holds in its state directory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use procfs::{LockKind, LockType};

use crate::cgroup::path::Escaped;

/// The pid of the oomwarden whose state directory this is. `None`: none is running, or it can't be seen from here (another
/// pid namespace, no such directory).
#[must_use]
pub fn running(state: &Path) -> Option<i32> {
    let file = fs::metadata(state.join("lock")).ok()?;
    let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let holds = |lock: &procfs::Lock| {
        lock.lock_type == LockType::FLock
            && matches!(lock.kind, LockKind::Write)
            && lock.inode == file.ino()
            && (lock.devmaj, lock.devmin) == device
    };
    let lock = procfs::locks().ok()?.into_iter().find(holds)?;
    lock.pid.filter(|pid| *pid > 0)
}

/// The command that a process was started with, for people. `None`: it is gone, or may not be looked at.
#[must_use]
pub fn command_line(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|line| !line.is_empty())?;
    let words = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
    Some(words.map(|word| Escaped(word).to_string()).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::fcntl::{Flock, FlockArg};

    use super::super::testing::Sleeper;
    use super::*;

    #[test]
    fn who_holds_the_lock_is_the_daemon() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(running(state.path()), None, "no lock was ever there");
        let file = File::create(state.path().join("lock")).unwrap();
        assert_eq!(running(state.path()), None, "a lock that nobody holds");
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        assert_eq!(running(state.path()), Some(i32::try_from(std::process::id()).unwrap()));
        drop(lock);
        assert_eq!(running(state.path()), None);
    }

    #[test]
    fn a_command_line_is_told_in_one_line() {
        let sleeper = Sleeper::start();
        let pid = i32::try_from(sleeper.pid()).unwrap();
        assert_eq!(command_line(pid).as_deref(), Some("sleep 600"));
        drop(sleeper);
        assert_eq!(command_line(pid), None);
    }
}
