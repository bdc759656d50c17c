//! Policy reloads: a thread that watches the policy's files and hands finished policies over.
//!
//! It acts on close-after-write, on rename (which is how a ConfigMap's symlink is swapped, too) and on SIGHUP, never on a
//! file that is still being written. A policy that is refused leaves the old one in force.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use inotify::{EventMask, Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::policy::model::Policy;
use crate::record::counters::Counters;

/// Room for a few events with the longest names.
const BUFFER_BYTES: usize = 4096;

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

/// Starts the thread for the policy's `paths` (files or directories; none for the compiled-in policy, which can't change).
/// `current` is the policy in force.
///
/// # Errors
/// When inotify or the thread can't be started.
pub fn start(mailbox: Mailbox, paths: Vec<PathBuf>, current: Arc<Policy>, counters: Arc<Counters>, load: Load) -> io::Result<()> {
    let inotify = Inotify::init()?;
    let mut reloader = Reloader { mailbox, inotify, paths, current, counters, load };
    reloader.watch();
    std::thread::Builder::new().name("reloader".into()).stack_size(512 * 1024).spawn(move || reloader.work())?;
    Ok(())
}

struct Reloader {
    mailbox: Mailbox,
    inotify: Inotify,
    paths: Vec<PathBuf>,
    current: Arc<Policy>,
    counters: Arc<Counters>,
    load: Load,
}

impl Reloader {
    /// Watches the directories in which the files, and what their symlinks point at, stand.
    fn watch(&mut self) {
        for path in &self.paths {
            for place in places(path) {
                let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::ONLYDIR;
                if let Err(error) = self.inotify.watches().add(&place, mask) {
                    tracing::warn!("{}: changes are not noticed: {error}; reload by SIGHUP", place.display());
                }
            }
        }
    }

    fn work(mut self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let mut fds =
                [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN), PollFd::new(self.mailbox.0.ask.as_fd(), PollFlags::POLLIN)];
            if let Err(error) = poll(&mut fds, PollTimeout::NONE) {
                if error == nix::errno::Errno::EINTR {
                    continue;
                }
                tracing::error!("the policy's files are not watched any more: {error}");
                return;
            }
            // EAGAIN where only a file changed.
            let _ = self.mailbox.0.ask.read();
            let asked = self.mailbox.0.asked.swap(false, Ordering::SeqCst);
            let changed = self.changed(&mut buffer);
            if asked || changed {
                self.reload(asked);
                // A swapped symlink may point elsewhere now.
                self.watch();
            }
        }
    }

    /// Whether one of the events is about the policy.
    fn changed(&mut self, buffer: &mut [u8]) -> bool {
        let mut changed = false;
        while let Ok(events) = self.inotify.read_events(buffer) {
            let mut any = false;
            for event in events {
                any = true;
                let Some(name) = event.name else { continue };
                // A file is created before it is written; only a symlink is whole at once.
                let created = event.mask.contains(EventMask::CREATE);
                let whole = !created || self.paths.iter().any(|path| places(path).any(|place| place.join(name).is_symlink()));
                let ours = self.paths.iter().any(|path| {
                    (path.is_dir() && Path::new(name).extension().is_some_and(|extension| extension == "yaml"))
                        || path.file_name() == Some(name)
                        || name == "..data"
                        || path.canonicalize().is_ok_and(|target| target.file_name() == Some(name))
                });
                changed |= ours && whole;
            }
            if !any {
                break;
            }
        }
        changed
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

/// The directories to watch for one path.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let target = path.canonicalize().ok();
    let directory = path.is_dir().then(|| path.to_path_buf());
    let own = (!path.is_dir()).then(|| parent(path));
    [directory, own, target.filter(|target| !target.is_dir()).map(|target| parent(&target))].into_iter().flatten()
}

/// Exclusions that stood in `old` and don't in `new`, in words.
fn removed_exclusions<'a>(old: &'a Policy, new: &'a Policy) -> impl Iterator<Item = &'a str> {
    old.exclude.iter().map(|entry| &*entry.text).filter(|text| !new.exclude.iter().any(|entry| *entry.text == **text))
}
