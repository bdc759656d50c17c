//! Hooks: the administrator's programs, run for a ladder by a helper process.
//!
//! The daemon itself never forks: its memory is locked and its oom_score_adj is -1000, and neither is for others. The helper is
//! this program again (`oomwarden hook-helper`), started before all that; it stands at the other end of a socket pair, gives each
//! hook a session, its input and a time limit, and dies with the daemon.
//!
//! - [`protocol`]: what goes over the socket.
//! - [`helper`]: the helper process.
//! - [`running`]: one hook under way.

pub mod helper;
pub mod protocol;
pub mod running;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The name of the hidden subcommand.
pub const SUBCOMMAND: &str = "hook-helper";
/// How long a request may take to be written: a helper that reads nothing is none.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The running helper, from the daemon's side. Dropping it closes the socket, at which it ends its hooks and itself.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    /// Requests go in, replies come out; reading does not block.
    pub socket: UnixStream,
}

impl Helper {
    /// Starts `program` (this one) as the helper.
    ///
    /// # Errors
    /// What could not be made or started.
    pub fn start(program: &Path) -> io::Result<Helper> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let child = Command::new(program)
            .arg(SUBCOMMAND)
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
