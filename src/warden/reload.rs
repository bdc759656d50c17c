//! Policy reloads: a thread that watches the policy's files and hands finished policies over.
//!
//! A policy of one file is read when that is closed or renamed, one behind a symlink when that is swapped (as Kubernetes does it with a
//! ConfigMap), and any at SIGHUP. A policy of several files, such as a directory, is read when nothing has happened to them for
//! a while ([`settle`]), so that one that is rewritten file by file is never in force half-written; and until two readings are the
//! same (`policy::files`). A policy that is refused leaves the old one in force.

mod settle;
mod watch;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::policy::model::Policy;
use crate::record::counters::Counters;
use settle::{LONGEST, Settling};
use watch::Change;
pub use watch::Watcher;

#[derive(Debug)]
struct Shared {
    policy: Mutex<Option<Arc<Policy>>>,
    asked: AtomicBool,
    ask: EventFd,
    mail: Arc<EventFd>,
}

/// Where the warden asks for a reload, and finds a new policy.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Shared>);

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new() -> io::Result<Mailbox> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let shared = Shared { policy: Mutex::new(None), asked: AtomicBool::new(false), ask: event()?, mail: Arc::new(event()?) };
        Ok(Mailbox(Arc::new(shared)))
    }

    /// Written whenever something is there for the warden; others may use it for the same.
    #[must_use]
    pub fn mail(&self) -> Arc<EventFd> {
        Arc::clone(&self.0.mail)
    }

    /// Asks for a reload.
    pub fn ask(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        // Full means that it is being asked already.
        let _ = self.0.ask.write(1);
    }

    /// The new policy, if one has come.
    #[must_use]
    pub fn take(&self) -> Option<Arc<Policy>> {
        self.0.policy.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, policy: Arc<Policy>) {
        *self.0.policy.lock().unwrap_or_else(PoisonError::into_inner) = Some(policy);
        // As in `ask`.
        let _ = self.0.mail.write(1);
    }
}

/// How the thread gets a policy: reads and compiles the files.
pub type Load = Box<dyn Fn() -> Result<Policy, String> + Send>;

/// Starts the thread. `watcher` watches the policy's files since before they were read; `current` is the policy in force.
///
/// # Errors
/// When the thread can't be started.
pub fn start(mailbox: Mailbox, watcher: Watcher, current: Arc<Policy>, counters: Arc<Counters>, load: Load) -> io::Result<()> {
    let reloader = Reloader { mailbox, watcher, current, counters, load };
    std::thread::Builder::new().name("reloader".into()).stack_size(512 * 1024).spawn(move || reloader.work())?;
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
    fn work(mut self) {
        let mut settling: Option<Settling> = None;
        // Said now that there is a log: what can't be watched.
        self.watcher.renew();
        loop {
            let mut fds =
                [PollFd::new(self.watcher.as_fd(), PollFlags::POLLIN), PollFd::new(self.mailbox.0.ask.as_fd(), PollFlags::POLLIN)];
            if let Err(error) = poll(&mut fds, settling.as_ref().map_or(PollTimeout::NONE, |settling| until(settling.due()))) {
                if error == nix::errno::Errno::EINTR {
                    continue;
                }
                tracing::error!("the policy's files are not watched any more: {error}");
                return;
            }
            // EAGAIN where only a file changed.
            let _ = self.mailbox.0.ask.read();
            let asked = self.mailbox.0.asked.swap(false, Ordering::SeqCst);
            let (now, mut whole, mut part) = (Instant::now(), false, false);
            self.watcher.changes(|change| match change {
                Change::Whole => whole = true,
                Change::Part(change) => {
                    part = true;
                    settling.get_or_insert_with(|| Settling::new(now)).note(now, change);
                }
            });
            if part {
                // A directory may be another one, which is being filled already.
                self.watcher.renew();
            }
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
                self.reload(asked);
                // A swapped symlink may point elsewhere now.
                self.watcher.renew();
            }
        }
    }

    fn reload(&mut self, asked: bool) {
        match (self.load)() {
            Ok(policy) if policy.hash == self.current.hash && !asked => {
                if !self.counters.is_last_policy_in_force() {
                    tracing::info!("policy {} stands in the files again", policy.hash);
                    self.counters.policy_started(SystemTime::now());
                }
            }
            Ok(policy) => {
                self.counters.policy_reloaded(SystemTime::now());
                tracing::info!("policy {} replaces {}", policy.hash, self.current.hash);
                for removed in removed_exclusions(&self.current, &policy) {
                    tracing::warn!("the new policy no longer excludes {removed}");
                }
                self.current = Arc::new(policy);
                self.mailbox.put(Arc::clone(&self.current));
            }
            Err(message) => {
                self.counters.policy_refused();
                tracing::error!("the new policy is refused, {} stays in force:\n{message}", self.current.hash);
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
