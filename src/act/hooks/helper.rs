//! The helper process: starts hooks on request, one loop for all of them, until the daemon's end of the socket is gone.
//!
//! Processes that leave their hook's session are adopted by this one (PR_SET_CHILD_SUBREAPER) and ended as soon as no hook
//! runs: nothing that a hook leaves behind may gather while memory is short.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal as Stop};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};
use tracing::Level;

use super::place;
use super::protocol::{Ended, Inbox, Reply, parse_request, write_reply};
use super::running::Running;
use crate::journal_stream;

/// Hooks at a time; the daemon has fewer ladders.
const MOST: usize = 16;
/// Descriptors that hooks may have by default, as if they had been started from a shell.
const DESCRIPTORS: u64 = 1024;
/// How often those that were left behind are looked at until they are gone.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Serves the daemon at the other end of standard input until it goes away. Hooks run in `group`, which this process enters, and nobody is
/// left in there at the end, this process included.
///
/// # Errors
/// When standard input is no socket, or fails.
pub fn run(group: Option<&Path>) -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    crate::sys::peer_credentials(socket.as_fd())?;
    prepare_self();
    let group = group.filter(|group| match place::enter(group) {
        Ok(()) => true,
        Err(error) => {
            journal_stream::say(Level::WARN, &format!("{}: {error}: hooks run in oomwarden's own group", group.display()));
            false
        }
    });
    let mut helper = Helper { socket: socket.into(), running: Vec::new(), inbox: Inbox::default(), sweeping: false };
    let ended = helper.serve();
    for hook in &helper.running {
        hook.end_session();
    }
    if let Some(group) = group {
        // Those too that left their hook's session.
        place::clear(group);
    }
    ended
}

/// Takes back what the daemon's own life asked for: hooks are ordinary processes.
fn prepare_self() {
    // Each of these may be refused, and the hooks run all the same.
    // Whoever stops the daemon tells all of its group, or of its terminal. It is the daemon that ends us, by closing the socket, when it is
    // done with its hooks.
    let mut stops = SigSet::empty();
    for signal in [Stop::SIGTERM, Stop::SIGINT, Stop::SIGHUP] {
        stops.add(signal);
    }
    let _ = stops.thread_set_mask();
    let _ = set_child_subreaper(Some(getpid()));
    if std::fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|adjust| adjust.starts_with('-')) {
        let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    }
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.min(DESCRIPTORS), hard);
    }
}

struct Helper {
    socket: UnixStream,
    running: Vec<Running>,
    inbox: Inbox,
    /// Somebody may have been left behind.
    sweeping: bool,
}

impl Helper {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            if self.wait()? && !self.requests()? {
                return Ok(());
            }
            self.advance()?;
            if self.sweeping && self.running.is_empty() {
                self.sweeping = sweep();
            }
        }
    }

    /// Waits for news; whether the daemon has some.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        for hook in &self.running {
            fds.extend(hook.awaited().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        }
        let now = Instant::now();
        let deadline = self.running.iter().map(Running::deadline).min().map(|at| at.saturating_duration_since(now));
        let sweep = (self.sweeping && self.running.is_empty()).then_some(SWEEP_EVERY);
        let timeout = deadline.into_iter().chain(sweep).min().map(timespec);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(fds.first().is_some_and(|socket| !socket.revents().is_empty())),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes what the daemon says; whether it is still there.
    fn requests(&mut self) -> io::Result<bool> {
        if !self.inbox.fill(&mut &self.socket)? {
            return Ok(false);
        }
        while let Some(frame) = self.inbox.take_frame()? {
            let (request, verdict) = parse_request(&frame)?;
            self.sweeping = true;
            let started = if self.running.len() < MOST {
                Running::start(&request, verdict)
            } else {
                let ended = Ended::NotStarted(libc::EAGAIN);
                Err(Reply { id: request.id, ended, took_us: 0, output: String::new(), cut: false })
            };
            match started {
                Ok(hook) => self.running.push(hook),
                Err(reply) => write_reply(&mut &self.socket, &reply)?,
            }
        }
        Ok(true)
    }

    fn advance(&mut self) -> io::Result<()> {
        let mut at = 0;
        while let Some(hook) = self.running.get_mut(at) {
            match hook.advance() {
                Some(reply) => {
                    self.running.swap_remove(at);
                    write_reply(&mut &self.socket, &reply)?;
                }
                None => at += 1,
            }
        }
        Ok(())
    }
}

fn timespec(time: Duration) -> Timespec {
    // Rounded up by a millisecond at most: a deadline is passed when we wake, not about to be.
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) }
}

/// Ends and collects who was left behind; whether somebody may be left still.
fn sweep() -> bool {
    let me = getpid().as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/self/task/{me}/children")).unwrap_or_default();
    for pid in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        // Our own child, so the pid is his until he is collected below.
        let _ = kill_process(pid, Signal::KILL);
    }
    // ECHILD: nobody is left.
    while let Ok(found) = wait(WaitOptions::NOHANG) {
        if found.is_none() {
            return true;
        }
    }
    false
}
