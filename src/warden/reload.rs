//! Policy reloads: a thread that watches the policy's files and hands finished policies over.
//!
//! It acts on close-after-write, on rename (which is how a ConfigMap's symlink is swapped, too) and on SIGHUP, never on a
//! file that is still being written. A file that leaves a directory of policies counts a moment later, since some editors move
//! it away before they write it anew. A policy that is refused leaves the old one in force.
//!
//! A path need not exist: the nearest directory on the way to it is watched, and the next one as soon as it is made.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use inotify::{EventMask, Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::policy::model::{Mode, Policy};
use crate::record::counters::Counters;
use crate::record::reloads::{Decided, Reloads};
use crate::record::rules::RuleCounters;
use crate::threads;

/// What a refusal for what is wrong in the text begins with; a line for each fault follows, with indented hints.
pub const BAD_POLICY: &str = "bad policy";
/// Room for a few events with the longest names.
const BUFFER_BYTES: usize = 4096;
/// How long a file is gone before it counts as taken out of the policy, and how long one is left alone that may still be written.
const GONE: Duration = Duration::from_secs(1);
/// How many symlinks of a path are followed: as many as the kernel follows.
const MOST_LINKS: usize = 40;
/// How often directories that are made meanwhile are gone after.
const MOST_STEPS: usize = 64;

#[derive(Debug)]
struct Shared {
    policy: Mutex<Option<Prepared>>,
    reloads: Arc<Reloads>,
    mail: Arc<EventFd>,
}

/// A policy with all that takes time to make of it, so that the warden only has to move pointers.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The counters of its rules: making them may wait for a scrape.
    pub rules: Arc<[RuleCounters]>,
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
    pub fn take(&self) -> Option<Prepared> {
        self.0.policy.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, policy: Prepared) {
        let untaken = self.0.policy.lock().unwrap_or_else(PoisonError::into_inner).replace(policy);
        // Freed with the lock released.
        drop(untaken);
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
    threads::watched("reloader", 512 * 1024, move |before| {
        if before > 0 {
            reloader.gave_up();
        }
        reloader.work(before == 0)
    })?;
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
        let mut watched: Vec<PathBuf> = Vec::new();
        // A directory that was made before the one above it was watched is told of by nobody.
        for _ in 0..MOST_STEPS {
            let mut new: Vec<PathBuf> = self.paths.iter().flat_map(|path| places(path)).filter(|place| !watched.contains(place)).collect();
            if new.is_empty() {
                return;
            }
            for place in &new {
                let comes = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE;
                let mask = comes | WatchMask::MOVED_FROM | WatchMask::DELETE | WatchMask::ATTRIB | WatchMask::ONLYDIR;
                if let Err(error) = self.inotify.watches().add(place, mask) {
                    tracing::warn!("{}: changes are not noticed: {error}; reload by SIGHUP", place.display());
                }
            }
            watched.append(&mut new);
        }
    }

    /// A policy may have been read when the thread died: it is not tried again by itself, or it might kill the thread again.
    fn gave_up(&mut self) {
        let text = format!("the policy's files were not read to the end, {} stays in force: SIGHUP tries again", self.current.hash);
        tracing::error!("{text}");
        self.counters.policy_refused(text);
    }

    /// `may_look`: files that could not be used are looked at without being told of a change.
    fn work(&mut self, may_look: bool) -> Result<(), String> {
        let mut buffer = vec![0; BUFFER_BYTES];
        // Files may have become good before they were watched.
        let mut first = may_look && !self.counters.is_last_policy_in_force();
        let mut look_at = first.then(|| Instant::now() + GONE);
        loop {
            let mut fds =
                [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN), PollFd::new(self.mailbox.0.reloads.as_fd(), PollFlags::POLLIN)];
            if let Err(error) = poll(&mut fds, look_at.map_or(PollTimeout::NONE, until)) {
                if error == nix::errno::Errno::EINTR {
                    continue;
                }
                return Err(format!("poll: {error}"));
            }
            let (asked, waiting) = self.mailbox.0.reloads.take();
            let changed = self.changed(&mut buffer);
            if changed == Change::Nearer {
                self.watch();
            }
            if changed == Change::Gone || changed == Change::Nearer && self.paths.iter().all(|path| path.exists()) {
                (look_at, first) = (Some(Instant::now() + GONE), false);
            }
            let due = look_at.is_some_and(|at| at <= Instant::now());
            let told = asked || changed == Change::Whole;
            if told || due {
                look_at = None;
                // What is still wrong was said at the start.
                let quiet = std::mem::take(&mut first) && !told;
                let decided = self.reload(asked, quiet);
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
                if event.mask.contains(EventMask::IGNORED) {
                    // A watched directory is no more.
                    changed = changed.max(Change::Gone);
                }
                let Some(name) = event.name else { continue };
                let comes = event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
                if comes && event.mask.contains(EventMask::ISDIR) && self.paths.iter().any(|path| is_on_the_way(path, name)) {
                    changed = changed.max(Change::Nearer);
                    continue;
                }
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
                if event.mask.contains(EventMask::ATTRIB) {
                    // Perhaps it may be read now. Who makes a file sets its rights before it is whole.
                    if ours && !self.counters.is_last_policy_in_force() {
                        changed = changed.max(Change::Gone);
                    }
                    continue;
                }
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

    fn reload(&mut self, asked: bool, quiet: bool) -> Decided {
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
                self.mailbox.put(Prepared { policy: Arc::clone(&self.current), rules });
                Ok(self.current.hash.clone())
            }
            Err(message) if quiet => Err(message),
            Err(message) => {
                let observes = if self.current.mode == Mode::Observe { " and only observes" } else { "" };
                self.counters.policy_refused(format!("{}; {} stays in force{observes}", gist(&message), self.current.hash));
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
    /// A directory on the way to one is there.
    Nearer,
    /// One left a directory, or may be read now: to be looked at in a moment.
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

/// What the symlinks on the way to a path name.
fn targets(path: &Path) -> impl Iterator<Item = PathBuf> {
    links(path).into_iter().filter_map(|link| Some(parent(&link).join(link.read_link().ok()?)))
}

/// Whether a directory of that name, where it stands, may be one on the way to a path.
fn is_on_the_way(path: &Path, name: &OsStr) -> bool {
    let named = |path: &Path| path.ancestors().any(|part| part.file_name() == Some(name));
    named(path) || targets(path).any(|target| named(&target))
}

/// The directory in which a path stands, or would stand; where there is none, the nearest one above it.
fn nearest_directory(path: &Path) -> PathBuf {
    let mut place = parent(path);
    while !place.is_dir() && place != Path::new(".") {
        place = parent(&place);
    }
    place
}

/// The directories to watch for one path.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    let target = path.canonicalize().ok();
    let directory = path.is_dir().then(|| path.to_path_buf());
    let own = (!path.is_dir()).then(|| nearest_directory(path));
    let beside = links(path).into_iter().map(|link| parent(&link));
    let missing = targets(path).filter(|target| !target.exists()).map(|target| nearest_directory(&target));
    let known = [directory, own, target.filter(|target| !target.is_dir()).map(|target| parent(&target))];
    known.into_iter().flatten().chain(beside).chain(missing)
}

/// The first fault of a refusal in one line, and how many more there are.
#[must_use]
pub fn gist(message: &str) -> String {
    let mut faults = message.lines().filter(|line| *line != BAD_POLICY && !line.starts_with(' '));
    let first = faults.next().unwrap_or(BAD_POLICY);
    match faults.count() {
        0 => first.to_owned(),
        more => format!("{first} (and {more} more, see the log)"),
    }
}

/// Exclusions that stood in `old` and don't in `new`, in words.
fn removed_exclusions<'a>(old: &'a Policy, new: &'a Policy) -> impl Iterator<Item = &'a str> {
    old.exclude.iter().map(|entry| &*entry.text).filter(|text| !new.exclude.iter().any(|entry| *entry.text == **text))
}
