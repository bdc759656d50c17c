//! The thread that reads and writes memory.oom.group, and the file that says where it was set. Both
//! may block.
//!
//! A group is written into the ledger before its file is set: after a crash in between, a 0 is
//! taken for one that somebody wrote, not a foreign 1 for ours. What was 1 before is somebody
//! else's and is never touched. What can't be written down is not set: nobody would ever take it
//! back.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use rustix::fs::OFlags;
use rustix::io::{Errno, write};

use crate::cgroup::GroupId;
use crate::cgroup::group::{Cause, File, Group, ReadBuf};
use crate::cgroup::parse;
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;
use crate::state::StateDir;
use crate::state::oom_group::{Ledger, Unreadable};
use crate::threads;
use crate::unit_files;

/// The file that is set.
const FILE: &str = "memory.oom.group";
/// A group that is reset so often...
const MOST_RESETS: usize = 10;
/// ...within this time is left to whoever resets it.
const RESETS_WITHIN: Duration = Duration::from_secs(60);
/// When to try again what failed.
const AGAIN: Duration = Duration::from_secs(30);

/// What is asked of the thread.
#[derive(Debug)]
pub(super) enum Errand {
    /// These groups are to have it, and no other.
    All(Vec<Arc<Group>>),
    /// This one too.
    Set(Arc<Group>),
    /// This one no longer.
    Release(Arc<Group>),
    /// Its file was written, by us or by somebody else.
    Look(GroupId),
    /// It left the tree.
    Gone(GroupId),
    /// Takes everything back and ends; a word when that is done.
    End(SyncSender<()>),
}

/// The other threads' end.
#[derive(Debug)]
pub(super) struct Keeper {
    errands: Sender<Errand>,
    waiting: Arc<AtomicUsize>,
    may_set: Arc<AtomicBool>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it can't be started.
    pub(super) fn start(root: Arc<Root>, state: StateDir, resets: IntCounter) -> io::Result<Keeper> {
        let (errands, inbox) = channel();
        let (waiting, may_set) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let (its_waiting, its_may_set) = (Arc::clone(&waiting), Arc::clone(&may_set));
        let mut work = None;
        threads::watched("oom-group", 256 * 1024, move |before| {
            // Opened here, since reading may block.
            let open = || Work::new(Arc::clone(&root), Ledger::open(state.clone()), resets.clone(), Arc::clone(&its_may_set));
            let work = work.get_or_insert_with(open);
            if before > 0 {
                // What it was at is looked at again with all else.
                its_waiting.fetch_sub(std::mem::take(&mut work.at_hand), Ordering::Relaxed);
                work.failed = true;
            }
            work.run(&inbox, &its_waiting);
            Ok(())
        })?;
        Ok(Keeper { errands, waiting, may_set })
    }

    /// Hands over an errand.
    pub(super) fn send(&self, errand: Errand) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // It lives as long as this end does, but for the time after `End`.
        let _ = self.errands.send(errand);
    }

    /// Whether it has done all that it was asked for.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Whether anything may be set from this moment on. What is set can always be taken back.
    pub(super) fn allow(&self, yes: bool) {
        self.may_set.store(yes, Ordering::SeqCst);
    }

    /// Has everything taken back, and waits for that at most so long. Whether it was done.
    pub(super) fn end(&self, within: Duration) -> bool {
        let (done, word) = sync_channel(1);
        self.send(Errand::End(done));
        !matches!(word.recv_timeout(within), Err(RecvTimeoutError::Timeout))
    }
}

/// What the thread knows.
struct Work {
    root: Arc<Root>,
    /// The root directory, for unit files.
    files: PathBuf,
    ledger: Ledger,
    resets: IntCounter,
    may_set: Arc<AtomicBool>,
    buffer: ReadBuf,
    /// Groups that are to have it.
    wanted: HashMap<GroupId, Arc<Group>>,
    /// When each group of ours was reset by somebody else.
    reset: HashMap<GroupId, VecDeque<Instant>>,
    /// Groups that are left to whoever resets them.
    left: HashSet<GroupId>,
    /// Groups that could not be set, or not be taken back.
    failed: bool,
    /// How many errands are being done.
    at_hand: usize,
    told: Told,
}

/// What was said already: each thing once, since it is the same for every group.
#[derive(Default)]
struct Told {
    errnos: Vec<Errno>,
    ledger: bool,
    units: BTreeSet<String>,
}

impl Told {
    fn errno(&mut self, path: &GroupPath, errno: Errno, what: &str) {
        if !self.errnos.contains(&errno) {
            self.errnos.push(errno);
            tracing::warn!(
                "{}: cannot be {what}: {errno}: oomwarden needs the right to write this file of the groups that `kernel: oom_group` names; it is \
                 tried again",
                path.file(FILE)
            );
        }
    }
}

impl Work {
    fn new(root: Arc<Root>, (ledger, read): (Ledger, Result<(), Unreadable>), resets: IntCounter, may_set: Arc<AtomicBool>) -> Work {
        if let Err(error) = read {
            tracing::error!(
                "{error}: which groups have memory.oom.group from an earlier oomwarden is not known, so they keep it; \
                 write 0 to that file of theirs if it is not wanted"
            );
        }
        Work {
            root,
            files: "/".into(),
            ledger,
            resets,
            may_set,
            buffer: ReadBuf::new(),
            wanted: HashMap::new(),
            reset: HashMap::new(),
            left: HashSet::new(),
            failed: false,
            at_hand: 0,
            told: Told::default(),
        }
    }

    fn run(&mut self, inbox: &Receiver<Errand>, waiting: &AtomicUsize) {
        loop {
            let first = if self.failed {
                match inbox.recv_timeout(AGAIN) {
                    Ok(errand) => Some(errand),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                match inbox.recv() {
                    Ok(errand) => Some(errand),
                    Err(_) => return,
                }
            };
            // All that waits is done together, so that the file is written once for it.
            let batch: Vec<Errand> = first.into_iter().chain(inbox.try_iter()).collect();
            self.at_hand = batch.len();
            let end = self.take(batch);
            waiting.fetch_sub(std::mem::take(&mut self.at_hand), Ordering::Relaxed);
            if let Some(end) = end {
                // Whoever asked may have given up waiting.
                let _ = end.send(());
                return;
            }
        }
    }

    /// Does what is asked. Whom to tell that everything was taken back, if that was among it.
    /// Nothing asked: what failed is tried again.
    fn take(&mut self, batch: Vec<Errand>) -> Option<SyncSender<()>> {
        let again = std::mem::take(&mut self.failed) || batch.is_empty();
        let (mut set, mut release): (HashSet<GroupId>, HashMap<GroupId, Option<Arc<Group>>>) = Default::default();
        let (mut all, mut end) = (again, None);
        for errand in batch {
            match errand {
                Errand::All(groups) => {
                    let before = std::mem::replace(&mut self.wanted, groups.into_iter().map(|group| (group.id, group)).collect());
                    release.extend(before.into_iter().map(|(id, group)| (id, Some(group))));
                    all = true;
                }
                Errand::Set(group) => {
                    set.insert(group.id);
                    self.wanted.insert(group.id, group);
                }
                Errand::Release(group) => {
                    self.wanted.remove(&group.id);
                    release.insert(group.id, Some(group));
                }
                Errand::Look(id) => {
                    set.insert(id);
                }
                Errand::Gone(id) => self.gone(id),
                Errand::End(done) => {
                    let before = std::mem::take(&mut self.wanted);
                    release.extend(before.into_iter().map(|(id, group)| (id, Some(group))));
                    (all, end) = (true, Some(done));
                }
            }
        }
        if all {
            // Those that an earlier oomwarden has set too.
            for (id, _) in self.ledger.groups() {
                release.entry(id).or_insert(None);
            }
            set.extend(self.wanted.keys().copied());
        }
        for (id, group) in release {
            if !self.wanted.contains_key(&id) {
                self.take_back(id, group);
            }
        }
        let new = set.into_iter().filter_map(|id| self.look(id)).collect();
        self.set(new);
        if self.ledger.is_changed() {
            self.save();
        }
        end
    }

    fn gone(&mut self, id: GroupId) {
        let group = self.wanted.remove(&id);
        self.reset.remove(&id);
        self.left.remove(&id);
        // It may merely be out of sight: then it is ours still.
        if group.is_none_or(|group| group.is_removed()) {
            self.ledger.forget(id);
        }
    }

    /// What the file says; `None` where there is none: the group is gone, or has no memory
    /// controller.
    fn read(&mut self, group: &Group) -> Option<bool> {
        match group.read(File::OomGroup, &mut self.buffer, parse::flag) {
            Ok(value) => value,
            Err(error) if error.is_gone() => None,
            Err(error) => {
                self.failed = true;
                if let Cause::Errno(errno) = error.cause {
                    self.told.errno(&group.path, errno, "read");
                }
                None
            }
        }
    }

    fn may_set(&self) -> bool {
        self.may_set.load(Ordering::SeqCst)
    }

    /// Looks at a wanted group. One of ours that was reset is set again; one that is to be set for
    /// the first time is returned.
    fn look(&mut self, id: GroupId) -> Option<Arc<Group>> {
        let group = Arc::clone(self.wanted.get(&id)?);
        if self.left.contains(&id) || self.read(&group) != Some(false) {
            return None;
        }
        if !self.ledger.holds(id) {
            return self.may_set().then_some(group).filter(|group| self.unit_allows(group));
        }
        if !self.may_set() {
            return None;
        }
        let now = Instant::now();
        let times = self.reset.entry(id).or_default();
        while times.front().is_some_and(|first| now.duration_since(*first) > RESETS_WITHIN) {
            times.pop_front();
        }
        times.push_back(now);
        if times.len() >= MOST_RESETS {
            tracing::warn!(
                "{}: somebody else has written 0 there {MOST_RESETS} times within {} s: it is left at that; find out who \
                 does, or take the group out of `kernel: oom_group`",
                group.path.file(FILE),
                RESETS_WITHIN.as_secs()
            );
            self.left.insert(id);
            self.reset.remove(&id);
            self.ledger.remove(id);
        } else {
            if self.write(&group, b"1") {
                self.resets.inc();
                tracing::info!("{}: somebody else has written 0 there; it is set again", group.path.file(FILE));
            }
        }
        None
    }

    /// Whether no unit file says that the kernel may kill one process of it and the rest is to go
    /// on.
    fn unit_allows(&mut self, group: &Group) -> bool {
        let Some((unit, by)) = unit_files::continues(&self.files, group.path.as_bytes()) else { return true };
        if self.told.units.insert(unit.clone()) {
            tracing::warn!(
                "{}: {unit} has {by}, so it is not set there; take the group out of `kernel: oom_group`, or set OOMPolicy= in \
                 the unit",
                group.path.file(FILE)
            );
        }
        false
    }

    /// Sets it for the first time in these groups.
    fn set(&mut self, groups: Vec<Arc<Group>>) {
        if groups.is_empty() {
            return;
        }
        for group in &groups {
            self.ledger.add(group.id, group.path.clone());
        }
        if !self.save() {
            for group in &groups {
                self.ledger.remove(group.id);
            }
            return;
        }
        for group in &groups {
            // Meanwhile paused: then it is nothing of ours.
            if !self.may_set() || !self.write(group, b"1") {
                self.ledger.remove(group.id);
            }
        }
    }

    /// Writes the ledger's file.
    fn save(&mut self) -> bool {
        let result = self.ledger.save();
        if let Err(error) = &result {
            self.failed = true;
            if !std::mem::replace(&mut self.told.ledger, true) {
                tracing::error!(
                    "{}: {error}: memory.oom.group is set nowhere while that can't be remembered; it is tried again, give --state a directory \
                     that can be written",
                    self.ledger.path().display()
                );
            }
        }
        result.is_ok()
    }

    /// Writes a group's file. Whether that went well.
    fn write(&mut self, group: &Group, value: &[u8]) -> bool {
        let result = group.open_file(File::OomGroup, OFlags::WRONLY).and_then(|fd| write(&fd, value));
        match result {
            Ok(_) => true,
            Err(Errno::NOENT | Errno::NODEV) => false,
            Err(errno) => {
                self.failed = true;
                self.told.errno(&group.path, errno, "written");
                false
            }
        }
    }

    /// Takes back what is ours.
    fn take_back(&mut self, id: GroupId, group: Option<Arc<Group>>) {
        self.left.remove(&id);
        self.reset.remove(&id);
        let Some(path) = self.ledger.path_of(id).cloned() else { return };
        let group = match group {
            Some(group) => group,
            None => match Group::open(&self.root, None, path.clone()) {
                Ok(group) if group.id == id => Arc::new(group),
                // Gone, or another group stands there.
                Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => return self.ledger.remove(id),
                Err(errno) => {
                    self.failed = true;
                    tracing::warn!("{}: cannot be taken back: {errno}; it is tried again", path.file(FILE));
                    return;
                }
            },
        };
        let failed = std::mem::take(&mut self.failed);
        if self.read(&group) == Some(true) {
            self.write(&group, b"0");
        }
        // What could not be looked at or written is tried again, and is remembered until then.
        if !std::mem::replace(&mut self.failed, failed) || group.is_removed() {
            self.ledger.remove(id);
        } else {
            self.failed = true;
        }
    }
}

#[cfg(test)]
mod tests;
