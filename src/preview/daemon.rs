//! The oomwarden that is running here, found by the locks that it holds.

use std::path::Path;

use crate::cgroup::root::Root;
use crate::state::lock;
pub use crate::state::lock::command_line;

/// The pid of the oomwarden that acts in this tree, else of the one whose state directory this is. `None`: none is running, or it
/// can't be seen from here (another pid namespace).
#[must_use]
pub fn running(root: &Root, state: &Path) -> Option<i32> {
    lock::paths_of(root).chain([state.join(lock::NAME)]).find_map(|path| lock::holder_at(&path))
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
        // A tree of its own, of which nobody else holds the lock.
        let dir = rustix::fs::open(state.path(), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let root = Root { path: state.path().to_owned(), dir };
        let running = |state: &Path| super::running(&root, state);
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
