//! The last line of a process that aborts: it must come out, and must not keep the abort waiting.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::journal_stream;

/// How long the reader of standard error may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// One line, which a pipe takes whole or not at all (PIPE_BUF is 4096).
const LONGEST: usize = 1024;

/// Whether standard error is the journal. Found out beforehand: a thread that panics may hold what
/// reading the environment needs.
static TO_JOURNAL: AtomicBool = AtomicBool::new(false);

/// Finds out what a last line must look like.
pub(super) fn prepare() {
    TO_JOURNAL.store(journal_stream::is_stderr(), Ordering::Relaxed);
}

/// Says which thread died of what, and ends the process by SIGABRT.
pub(super) fn abort(name: &str, said: &str, at: &str) -> ! {
    // Past the log, whose thread may be the one that hangs, and past the lock of standard error, which somebody may hold who waits
    // for its reader.
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    if poll(&mut fds, patience).is_ok_and(|ready| ready > 0) {
        let mut text = [0; LONGEST];
        // There is nobody left to be told of a failure.
        let prefix = if TO_JOURNAL.load(Ordering::Relaxed) { journal_stream::CRITICAL } else { "" };
        let _ = rustix::io::write(&stderr, line(&mut text, prefix, name, said, at));
    }
    std::process::abort()
}

/// One line in a buffer of its own: cut where it is too long, and without control characters, since names of groups may be in it.
fn line<'t>(text: &'t mut [u8; LONGEST], prefix: &str, name: &str, said: &str, at: &str) -> &'t [u8] {
    let mut rest = io::Cursor::new(&mut text[..LONGEST - 1]);
    let place = if at.is_empty() { "" } else { " at " };
    // Full: it is cut.
    let _ = write!(
        rest,
        "{prefix}oomwarden: error: thread {name} panicked{place}{at}, and without it nobody is protected: the process ends so that its supervisor starts it anew: {said}"
    );
    let length = usize::try_from(rest.position()).unwrap_or(0).min(LONGEST - 1);
    text[..length].iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b'?');
    text[length] = b'\n';
    &text[..=length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_one_line_and_is_cut() {
        let mut text = [0; LONGEST];
        let told = String::from_utf8(line(&mut text, "", "scout", "a\nb\x1b[1m", "src/x.rs:1:2").to_vec()).unwrap();
        assert!(told.starts_with("oomwarden: error: thread scout panicked at src/x.rs:1:2, and"), "{told}");
        assert!(told.ends_with(": a?b?[1m\n"), "{told}");
        let told = line(&mut text, journal_stream::CRITICAL, "scout", &"x".repeat(5000), "");
        assert!(told.starts_with(b"<2>oomwarden: "));
        assert_eq!((told.len(), told.last()), (LONGEST, Some(&b'\n')));
    }
}
