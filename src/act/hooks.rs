//! Hooks: the administrator's programs, run for a ladder by a helper process.
//!
//! The daemon itself never forks: its memory is locked and its oom_score_adj is -1000, and neither is for others. The helper is
//! this program again (`oomwarden hook-helper`), started before all that; it stands at the other end of a socket pair, gives each
//! hook a session, its input and a time limit, and dies with the daemon.
//!
//! - [`protocol`]: what goes over the socket.
//! - [`helper`]: the helper process.
//! - [`running`]: one hook under way.
//! - [`place`]: the group that hooks stand in.
//! - [`hazards`]: what takes the daemon down with a hook that the kernel kills.

pub mod hazards;
pub mod helper;
pub mod place;
pub mod protocol;
pub mod running;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use place::Place;

/// The name of the hidden subcommand.
pub const SUBCOMMAND: &str = "hook-helper";
/// How long a request may take to be written: a helper that reads nothing is none.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The option that names the group to run hooks in.
pub const GROUP: &str = "--group";

/// Starts helpers, in a group of their own where there can be one ([`place`]). Dropping it puts the groups back as they were; the helper must be
/// gone by then.
#[derive(Debug)]
pub struct Starter {
    program: PathBuf,
    mounts: Vec<PathBuf>,
    place: Option<Result<Place, String>>,
}

impl Starter {
    /// `program` is this one; `mounts` are places where cgroup v2 may be mounted. Nothing is done before the first helper is asked for.
    #[must_use]
    pub fn new(program: PathBuf, mounts: Vec<PathBuf>) -> Starter {
        Starter { program, mounts, place: None }
    }

    /// Starts a helper; the first time the hooks' group is made before.
    ///
    /// # Errors
    /// As [`Helper::start`].
    pub fn start(&mut self) -> io::Result<Helper> {
        let mounts: Vec<&Path> = self.mounts.iter().map(PathBuf::as_path).collect();
        let place = self.place.get_or_insert_with(|| Place::make(&mounts));
        Helper::start(&self.program, place.as_ref().ok().map(Place::hooks).as_deref())
    }

    /// Where hooks stand, or why they stand in the daemon's own group; `None` before the first helper.
    #[must_use]
    pub fn place(&self) -> Option<&Result<Place, String>> {
        self.place.as_ref()
    }

    /// Ends whoever a helper and its hooks left behind in their group.
    pub fn clear(&self) {
        if let Some(Ok(place)) = &self.place {
            place.clear();
        }
    }

    /// Puts the groups back as they were; the helper must be gone by then.
    pub fn undo(&mut self) {
        if let Some(Ok(place)) = self.place.take() {
            place.undo();
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        self.undo();
    }
}

/// The running helper, from the daemon's side. Dropping it closes the socket, at which it ends its hooks and itself.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    /// Requests go in, replies come out; reading does not block.
    pub socket: UnixStream,
}

impl Helper {
    /// Starts `program` (this one) as the helper, which moves itself into `group`.
    ///
    /// # Errors
    /// What could not be made or started.
    pub fn start(program: &Path, group: Option<&Path>) -> io::Result<Helper> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let child = Command::new(program)
            .arg(SUBCOMMAND)
            .args(group.map(|group| [GROUP.as_ref(), group.as_os_str()]).into_iter().flatten())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Its own complaints; hooks write to pipes.
            .stderr(Stdio::inherit())
            .current_dir("/")
            .spawn()?;
        Ok(Helper { child, socket })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGKILL, and its hooks with it.
    pub fn kill(mut self) {
        // Gone already. Collected at once where it goes at once; else by init, after us.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

#[cfg(test)]
mod tests;
