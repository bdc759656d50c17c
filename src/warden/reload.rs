//! Policy reloads: a thread that watches the policy's files and hands finished policies over.
//!
//! It acts on close-after-write, on rename (which is how a ConfigMap's symlink is swapped, too) and on SIGHUP, never on a
//! file that is still being written. A file that leaves a directory of policies counts a moment later, since some editors move
//! it away before they write it anew. A policy that is refused leaves the old one in force.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use inotify::{EventMask, Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::policy::model::Policy;
use crate::record::counters::Counters;
use crate::record::reloads::{Decided, Reloads};

/// Room for a few events with the longest names.
const BUFFER_BYTES: usize = 4096;
/// How long a file is gone before it counts as taken out of the policy.
const GONE: Duration = Duration::from_secs(1);
/// How many symlinks of a path are followed: as many as the kernel follows.
const MOST_LINKS: usize = 40;

#[derive(Debug)]
struct Shared {
    policy: Mutex<Option<Arc<Policy>>>,
    reloads: Arc<Reloads>,
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
        let mail = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let shared = Shared { policy: Mutex::new(None), reloads: Arc::new(Reloads::new()?), mail };
        Ok(Mailbox(Arc::new(shared)))
    }

    /// Written whenever something is there for the warden; others may use it for the same.
    #[must_use]
    pub fn mail(&self) -> Arc<EventFd> {
        Arc::clone(&self.0.mail)
    }

    /// Asks for a reload.
    pub fn ask(&self) {
        self.0.reloads.ask();
    }

    /// Where others ask for a reload, and hear what came of it.
    #[must_use]
    pub fn reloads(&self) -> Arc<Reloads> {
        Arc::clone(&self.0.reloads)
    }

    /// The new policy, if one has come.
    #[must_use]
    pub fn take(&self) -> Option<Arc<Policy>> {
        self.0.policy.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, policy: Arc<Policy>) {
        *self.0.policy.lock().unwrap_or_else(PoisonError::into_inner) = Some(policy);
        // Full means that the warden is being woken already.
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
                let comes = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE;
                let mask = comes | WatchMask::MOVED_FROM | WatchMask::DELETE | WatchMask::ONLYDIR;
                if let Err(error) = self.inotify.watches().add(&place, mask) {
                    tracing::warn!("{}: changes are not noticed: {error}; reload by SIGHUP", place.display());
                }
            }
        }
    }

    fn work(mut self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut gone_for_good: Option<Instant> = None;
        loop {
            let mut fds =
                [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN), PollFd::new(self.mailbox.0.reloads.as_fd(), PollFlags::POLLIN)];
            if let Err(error) = poll(&mut fds, gone_for_good.map_or(PollTimeout::NONE, until)) {
                if error == nix::errno::Errno::EINTR {
                    continue;
                }
                tracing::error!("the policy's files are not watched any more: {error}");
                return;
            }
            let (asked, waiting) = self.mailbox.0.reloads.take();
            let changed = self.changed(&mut buffer);
            if changed == Change::Gone {
                gone_for_good = Some(Instant::now() + GONE);
            }
            let gone = gone_for_good.is_some_and(|at| at <= Instant::now());
            if asked || changed == Change::Whole || gone {
                gone_for_good = None;
                let decided = self.reload(asked);
                self.mailbox.0.reloads.tell(waiting, &decided);
                // A swapped symlink may point elsewhere now.
                self.watch();
            }
        }
    }

    /// What the events say about the policy.
    fn changed(&mut self, buffer: &mut [u8]) -> Change {
        let mut changed = Change::None;
        while let Ok(events) = self.inotify.read_events(buffer) {
            let mut any = false;
            for event in events {
                any = true;
                let Some(name) = event.name else { continue };
                // A file is created before it is written; only a symlink is whole at once.
                let created = event.mask.contains(EventMask::CREATE);
                let whole = !created || self.paths.iter().any(|path| places(path).any(|place| place.join(name).is_symlink()));
                let in_directory = |path: &Path| path.is_dir() && Path::new(name).extension().is_some_and(|extension| extension == "yaml");
                if event.mask.intersects(EventMask::MOVED_FROM | EventMask::DELETE) {
                    if self.paths.iter().any(|path| in_directory(path)) {
                        changed = changed.max(Change::Gone);
                    }
                    continue;
                }
                let ours = self.paths.iter().any(|path| {
                    in_directory(path)
                        || path.file_name() == Some(name)
                        || name == "..data"
                        || path.canonicalize().is_ok_and(|target| target.file_name() == Some(name))
                        || links(path).iter().any(|link| link.file_name() == Some(name))
                });
                if ours && whole {
                    changed = Change::Whole;
                }
            }
            if !any {
                break;
            }
        }
        changed
    }

    fn reload(&mut self, asked: bool) -> Decided {
        match (self.load)() {
            Ok(policy) if policy.hash == self.current.hash && !asked => {
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
                self.mailbox.put(Arc::clone(&self.current));
                Ok(self.current.hash.clone())
            }
            Err(message) => {
                self.counters.policy_refused();
                tracing::error!("the new policy is refused, {} stays in force:\n{message}", self.current.hash);
                Err(message)
            }
        }
    }
}

/// What became of the policy's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// Nothing.
    None,
    /// One left a directory.
    Gone,
    /// One is there, and whole.
    Whole,
}

/// Rounded up, so that the time has come when poll returns.
fn until(at: Instant) -> PollTimeout {
    let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The symlinks on the way to what a path names.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut ways = vec![path.to_path_buf()];
    while let Some(way) = ways.pop() {
        for link in way.ancestors().filter(|part| part.is_symlink()) {
            if found.len() < MOST_LINKS && !found.iter().any(|known| known == link) {
                ways.extend(link.read_link().map(|target| parent(link).join(target)));
                found.push(link.to_path_buf());
            }
        }
    }
    found
}

/// The directories to watch for one path.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    let target = path.canonicalize().ok();
    let directory = path.is_dir().then(|| path.to_path_buf());
    let own = (!path.is_dir()).then(|| parent(path));
    let beside = links(path).into_iter().map(|link| parent(&link));
    [directory, own, target.filter(|target| !target.is_dir()).map(|target| parent(&target))].into_iter().flatten().chain(beside)
}

/// Exclusions that stood in `old` and don't in `new`, in words.
fn removed_exclusions<'a>(old: &'a Policy, new: &'a Policy) -> impl Iterator<Item = &'a str> {
    old.exclude.iter().map(|entry| &*entry.text).filter(|text| !new.exclude.iter().any(|entry| *entry.text == **text))
}
