//! Policy reloads: a thread that watches the policy's files and hands finished policies over.
//!
//! A policy of one file is read when that is closed or renamed, one behind a symlink when that is swapped (as Kubernetes does it with a
//! ConfigMap), and any at SIGHUP. A policy of several files, such as a directory, is read when nothing has happened to them for
//! a while ([`settle`]), so that one that is rewritten file by file is never in force half-written; and until two readings are the
//! same (`policy::files`). A policy that is refused leaves the old one in force.
//!
//! A path need not exist: the nearest directory on the way to it is watched, and the next one as soon as it is made.

mod settle;
mod watch;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::control::mailbox::{Mailbox, Prepared};
use crate::control::reloads::Decided;
use crate::gather::last_resort::LastResort;
use crate::metrics::counters::Counters;
use crate::policy::model::{Mode, Policy};
use crate::policy::refusal::gist;
use crate::threads;
use settle::{LONGEST, Part, Settling};
use watch::Change;
pub use watch::Watcher;

/// How the thread gets a policy: reads and compiles the files.
pub type Load = Box<dyn Fn() -> Result<Policy, String> + Send>;

/// Starts the thread. `watcher` watches the policy's files since before they were read; `current` is the policy in force.
///
/// # Errors
/// When the thread can't be started.
pub fn start(mailbox: Mailbox, watcher: Watcher, current: Arc<Policy>, counters: Arc<Counters>, load: Load) -> io::Result<()> {
    let mut reloader = Reloader { mailbox, watcher, current, counters, load };
    threads::watched("reloader", 512 * 1024, move |before| {
        if before > 0 {
            reloader.gave_up();
        }
        reloader.work()
    })?;
    Ok(())
}

struct Reloader {
    mailbox: Mailbox,
    watcher: Watcher,
    current: Arc<Policy>,
    counters: Arc<Counters>,
    load: Load,
}

impl Reloader {
    /// A policy may have been read when the thread died: it is not tried again by itself, or it might kill the thread again.
    fn gave_up(&mut self) {
        let text = format!("the policy's files were not read to the end, {} stays in force: SIGHUP tries again", self.current.hash);
        tracing::error!("{text}");
        self.counters.policy_refused(text);
    }

    fn work(&mut self) -> Result<(), String> {
        let mut settling: Option<Settling> = None;
        // Said now that there is a log: what can't be watched.
        self.watcher.renew();
        let reloads = self.mailbox.reloads();
        loop {
            let mut fds = [PollFd::new(self.watcher.as_fd(), PollFlags::POLLIN), PollFd::new(reloads.as_fd(), PollFlags::POLLIN)];
            if let Err(error) = poll(&mut fds, settling.as_ref().map_or(PollTimeout::NONE, |settling| until(settling.due()))) {
                if error == nix::errno::Errno::EINTR {
                    continue;
                }
                return Err(format!("poll: {error}"));
            }
            let (asked, waiting) = reloads.take();
            let whole = self.hear(&mut settling);
            let now = Instant::now();
            let settled = settling.take_if(|settling| settling.due() <= now);
            if let Some(settled) = settled.as_ref().filter(|settled| settled.is_overdue(now)) {
                let writing = settled.writing().map(|name| format!(" ({} is still open)", Path::new(name).display()));
                tracing::warn!(
                    "the policy's files have been changing for {} s{}: they are read as they stand",
                    LONGEST.as_secs(),
                    writing.unwrap_or_default()
                );
            }
            if asked || whole || settled.is_some() {
                let decided = self.reload(asked);
                reloads.tell(waiting, &decided);
                // A swapped symlink may point elsewhere now.
                self.watcher.renew();
            }
        }
    }

    /// Takes what happened to the files. Whether they are whole; if they are in the middle of a change, or may be, `settling` knows.
    fn hear(&mut self, settling: &mut Option<Settling>) -> bool {
        let in_force = self.counters.is_last_policy_in_force();
        let (now, mut whole, mut moved, mut nearer) = (Instant::now(), false, false, false);
        let mut note = |part| settling.get_or_insert_with(|| Settling::new(now)).note(now, part);
        self.watcher.changes(|change| match change {
            Change::Whole => whole = true,
            Change::Part(part) => {
                moved = true;
                note(part);
            }
            Change::Nearer => nearer = true,
            // Perhaps they may be read now. Who makes a file sets its rights before it is whole.
            Change::Rights if !in_force => note(Part::Unknown),
            Change::Rights => {}
        });
        if moved || nearer {
            // A directory may be another one, which is being filled already.
            self.watcher.renew();
        }
        if nearer && self.watcher.are_all_there() {
            note(Part::Unknown);
        }
        whole
    }

    fn reload(&mut self, asked: bool) -> Decided {
        match (self.load)() {
            // The built-in policy that only observes, in place of one that could not be used, may have the text of the one that can.
            Ok(policy) if policy.hash == self.current.hash && policy.mode == self.current.mode && !asked => {
                if !self.counters.is_last_policy_in_force() {
                    tracing::info!("policy {} stands in the files again", policy.hash);
                    self.counters.policy_started(SystemTime::now());
                }
                Ok(policy.hash)
            }
            Ok(policy) => {
                self.counters.policy_reloaded(SystemTime::now());
                tracing::info!("policy {} replaces {}", policy.hash, self.current.hash);
                for removed in removed_exclusions(&self.current, &policy) {
                    tracing::warn!("the new policy no longer excludes {removed}");
                }
                self.current = Arc::new(policy);
                let rules = self.counters.for_policy(&self.current);
                let last_resort = Arc::new(LastResort::of(&self.current));
                self.mailbox.put(Prepared { policy: Arc::clone(&self.current), rules, last_resort });
                Ok(self.current.hash.clone())
            }
            Err(message) => {
                let observes = if self.current.mode == Mode::Observe { " and only observes" } else { "" };
                self.counters.policy_refused(format!("{}; {} stays in force{observes}", gist(&message), self.current.hash));
                tracing::error!("the new policy is refused, {} stays in force{observes}:\n{message}", self.current.hash);
                Err(message)
            }
        }
    }
}

/// Rounded up, so that the time has come when poll returns.
fn until(at: Instant) -> PollTimeout {
    let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)
}

/// Exclusions that stood in `old` and don't in `new`, in words.
fn removed_exclusions<'a>(old: &'a Policy, new: &'a Policy) -> impl Iterator<Item = &'a str> {
    old.exclude.iter().map(|entry| &*entry.text).filter(|text| !new.exclude.iter().any(|entry| *entry.text == **text))
}
