//! The tree of groups, as it is now: kept true by inotify, by comparing identities, and by rescans where notices are lost.
//!
//! Groups come and go by the hundred a second, and a name that is created anew is another group. So a notice is only ever
//! a reason to look: what counts is the kernfs id that stands under the name at that moment. Where inotify watches or
//! descriptors run out the group is read on a timer instead ([`Sensing::Timer`]).

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::counters;
use super::poller::Key;
use super::watch::{FileName, Notice, Watches};
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, Group, ReadBuf};
use crate::cgroup::parse::{self, Events, Kind};
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;
use crate::policy::model::{EntrySet, GroupClass, Policy, Trigger};

mod member;

use member::Need;
pub use member::{Budget, Change, Node, Sensing, Touched};

/// A place in the tree's slab.
pub type Slot = u32;

/// Files that a judgement reads, in the order in which they are worth a descriptor.
pub const JUDGED: [File; 10] = [
    File::GroupEvents,
    File::Current,
    File::Stat,
    File::SwapCurrent,
    File::Kill,
    File::Procs,
    File::Max,
    File::High,
    File::OomGroup,
    File::GroupStat,
];

/// Files of an ancestor of what is judged: its limits.
const LIMITS: [File; 3] = [File::Max, File::High, File::Current];

/// Groups that live longer than this get all that is held of a group; most that come and go by the hundred don't.
const SETTLED: Duration = Duration::from_millis(100);

/// The tree.
#[derive(Debug)]
pub struct Tree {
    root: Arc<Root>,
    nodes: Vec<Option<Node>>,
    generations: Vec<u32>,
    free: Vec<Slot>,
    by_id: HashMap<GroupId, Slot>,
    by_path: HashMap<GroupPath, Slot>,
    watches: Watches,
    notices: Vec<Notice>,
    changes: Vec<Change>,
    /// Descriptors.
    pub budget: Budget,
    buffer: ReadBuf,
    degraded: usize,
    /// A group could not be looked at although it is there.
    incomplete: bool,
    /// Looked at once: no watches, which are scarce and shared with a running daemon.
    once: bool,
    arrivals: u64,
    /// Groups that have not settled yet, the oldest first.
    young: VecDeque<(Duration, Key)>,
}

impl Tree {
    /// Slot of the root group.
    pub const ROOT: Slot = 0;

    /// Scans the whole tree.
    ///
    /// # Errors
    /// When inotify, or the root group itself, can't be opened.
    pub fn scan(root: Arc<Root>, policy: &Policy, descriptors: usize) -> io::Result<Tree> {
        Tree::open(root, policy, descriptors, false)
    }

    /// Looks at the whole tree once: nothing is watched and nothing held open, so that it shows what is there now and costs
    /// a running daemon none of its budgets.
    ///
    /// # Errors
    /// When the root group can't be opened.
    pub fn scan_once(root: Arc<Root>, policy: &Policy) -> io::Result<Tree> {
        Tree::open(root, policy, 0, true)
    }

    fn open(root: Arc<Root>, policy: &Policy, descriptors: usize, once: bool) -> io::Result<Tree> {
        let mut tree = Tree {
            root: Arc::clone(&root),
            nodes: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_path: HashMap::new(),
            watches: Watches::new()?,
            notices: Vec::with_capacity(64),
            changes: Vec::with_capacity(128),
            budget: Budget { limit: descriptors, used: 0 },
            buffer: ReadBuf::new(),
            degraded: 0,
            incomplete: false,
            once,
            arrivals: 0,
            young: VecDeque::new(),
        };
        let group = Group::open(&root, None, GroupPath::root())?;
        tree.insert(None, group, policy, None);
        tree.scan_children(Tree::ROOT, policy, None);
        Ok(tree)
    }

    /// The inotify descriptor, for epoll.
    #[must_use]
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// The group in a slot.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&Node> {
        self.nodes.get(slot as usize)?.as_ref()
    }

    /// The group in a slot.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Node> {
        self.nodes.get_mut(slot as usize)?.as_mut()
    }

    /// The group behind a key, if it is still the same.
    #[must_use]
    pub fn find(&self, key: Key) -> Option<&Node> {
        self.get(key.slot).filter(|node| node.generation & 0xff_ffff == key.generation & 0xff_ffff)
    }

    /// The key of a slot.
    #[must_use]
    pub fn key(&self, slot: Slot) -> Key {
        Key { slot, generation: self.generations.get(slot as usize).copied().unwrap_or(0) }
    }

    /// The slot of a group.
    #[must_use]
    pub fn slot_of(&self, id: GroupId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    /// The slot of the group that stands at a path.
    #[must_use]
    pub fn slot_at(&self, path: &GroupPath) -> Option<Slot> {
        self.by_path.get(path).copied()
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether a group stands at a path that the tree has not been told of yet.
    #[must_use]
    pub fn is_unseen(&self, path: &GroupPath) -> bool {
        self.slot_at(path).is_none() && Group::open(&self.root, None, path.clone()).is_ok()
    }

    /// How many groups have come so far.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// How many slots there are, used or free.
    #[must_use]
    pub fn places(&self) -> usize {
        self.nodes.len()
    }

    /// Never true: the root is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many groups are read on a timer.
    #[must_use]
    pub fn degraded(&self) -> usize {
        self.degraded
    }

    /// Whether the timer has something to do here: groups without notices, or that could not be looked at.
    #[must_use]
    pub fn needs_timer(&self) -> bool {
        self.degraded > 0 || self.incomplete
    }

    /// Whether a group that is there could not be looked at.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// How many groups stand below one.
    #[must_use]
    pub fn count_below(&self, top: Slot) -> u64 {
        let (mut count, mut next) = (0, self.next_in_preorder(top, top));
        while let Some(slot) = next {
            count += 1;
            next = self.next_in_preorder(top, slot);
        }
        count
    }

    /// Compares what stands below one group with what is there.
    pub fn rescan_below(&mut self, top: Slot, policy: &Policy) {
        let (mut gone, mut next) = (Vec::new(), self.next_in_preorder(top, top));
        while let Some(slot) = next {
            if self.get(slot).is_some_and(|node| node.group.is_removed()) {
                gone.push(slot);
            }
            next = self.next_in_preorder(top, slot);
        }
        for slot in gone {
            self.remove(slot);
        }
        self.scan_children(top, policy, None);
    }

    /// The groups that are read on a timer.
    pub fn degraded_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.slots().filter(|slot| self.get(*slot).is_some_and(|node| node.sensing == Sensing::Timer))
    }

    /// All slots in use.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..).zip(&self.nodes).filter_map(|(slot, node)| node.is_some().then_some(slot))
    }

    /// The next slot in pre-order, within the subtree of `top`; nothing is allocated.
    #[must_use]
    pub fn next_in_preorder(&self, top: Slot, slot: Slot) -> Option<Slot> {
        let mut node = self.get(slot)?;
        if let Some(child) = node.first_child {
            return Some(child);
        }
        let mut at = slot;
        while at != top {
            if let Some(next) = node.next {
                return Some(next);
            }
            at = node.parent?;
            node = self.get(at)?;
        }
        None
    }

    /// What changed since this was asked last.
    pub fn take_changes(&mut self, out: &mut Vec<Change>) {
        out.append(&mut self.changes);
    }

    /// Reads some inotify notices and brings the tree up to date.
    ///
    /// # Errors
    /// The errno of the read.
    pub fn update(&mut self, policy: &Policy, now: Duration) -> io::Result<()> {
        let mut notices = std::mem::take(&mut self.notices);
        notices.clear();
        let result = self.watches.read(&mut notices);
        for notice in &notices {
            match notice {
                Notice::Created(parent, name) => self.created(*parent, name, policy, now),
                Notice::Removed(parent, name) => self.removed(*parent, name),
                Notice::Changed(slot, name) => self.changed(*slot, *name),
                Notice::Overflow => self.rescan(policy),
            }
        }
        self.notices = notices;
        result
    }

    fn created(&mut self, parent: Slot, name: &[u8], policy: &Policy, now: Duration) {
        if self.discover(parent, name, policy, Some(now)).is_some_and(|(_, new)| new) {
            // Children that were made before the watch was there.
            if let Some(slot) = self.child_at(parent, name) {
                self.scan_children(slot, policy, Some(now));
            }
        }
    }

    fn child_at(&self, parent: Slot, name: &[u8]) -> Option<Slot> {
        self.slot_at(&self.get(parent)?.group.path.child(name))
    }

    /// Looks at what stands under a name. A notice of a removal may be older than the group that stands there now.
    fn removed(&mut self, parent: Slot, name: &[u8]) {
        let Some(slot) = self.child_at(parent, name) else { return };
        if self.get(slot).is_some_and(|node| node.group.is_removed()) {
            self.remove(slot);
        }
    }

    fn changed(&mut self, slot: Slot, name: FileName) {
        match name {
            FileName::Events => self.changes.push(Change::Touched(slot, Touched::Events)),
            FileName::Populated => self.changes.push(Change::Touched(slot, Touched::Populated)),
            FileName::Type => self.learn_kind(slot),
            // +memory or -memory: the children's files appeared or are dead now.
            FileName::SubtreeControl => self.reopen_children(slot),
        }
    }

    /// Compares the whole tree with what is there: after lost notices, and on a timer where there are none.
    pub fn rescan(&mut self, policy: &Policy) {
        self.incomplete = false;
        let gone: Vec<Slot> = self.slots().filter(|slot| self.get(*slot).is_some_and(|node| node.group.is_removed())).collect();
        for slot in gone {
            self.remove(slot);
        }
        // Not born before our eyes: what their counters say by now may be old.
        self.scan_children(Tree::ROOT, policy, None);
    }

    /// Rescans below the groups that have no watch.
    pub fn rescan_unwatched(&mut self, policy: &Policy) {
        if std::mem::take(&mut self.incomplete) {
            self.scan_children(Tree::ROOT, policy, None);
        }
        let unwatched: Vec<Slot> = self.slots().filter(|slot| self.get(*slot).is_some_and(|node| node.watch.is_none())).collect();
        for slot in unwatched {
            let Some(node) = self.get(slot) else { continue };
            if slot != Tree::ROOT && node.group.is_removed() {
                self.remove(slot);
                continue;
            }
            // A watch may have become free meanwhile.
            self.watch(slot);
            self.scan_children(slot, policy, None);
        }
    }

    /// Scans everything below a group.
    fn scan_children(&mut self, top: Slot, policy: &Policy, born: Option<Duration>) {
        let mut stack = vec![top];
        while let Some(slot) = stack.pop() {
            self.scan_level(slot, policy, born, &mut stack);
        }
    }

    /// Finds the children of one group; removes those that are gone, and names all that are there.
    fn scan_level(&mut self, slot: Slot, policy: &Policy, born: Option<Duration>, found: &mut Vec<Slot>) {
        let Some(node) = self.get(slot) else { return };
        let Some(names) = child_names(&node.group) else {
            self.incomplete |= !node.group.is_removed();
            return;
        };
        for name in names {
            if let Some((child, _)) = self.discover(slot, &name, policy, born) {
                found.push(child);
            }
        }
    }

    /// Looks at the group called `name` and takes it in if it is new. Gives its slot, and whether it is new.
    fn discover(&mut self, parent: Slot, name: &[u8], policy: &Policy, born: Option<Duration>) -> Option<(Slot, bool)> {
        let node = self.get(parent)?;
        let path = node.group.path.child(name);
        let group = match Group::open(&self.root, Some((&node.group, &CString::new(name).ok()?)), path) {
            Ok(group) => group,
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => return None,
            // Out of descriptors or memory: it is there, so the timer looks again.
            Err(_) => {
                self.incomplete = true;
                return None;
            }
        };
        if let Some(known) = self.slot_of(group.id) {
            return Some((known, false));
        }
        if let Some(old) = self.slot_at(&group.path) {
            self.remove(old);
        }
        Some((self.insert(Some(parent), group, policy, born), true))
    }

    fn insert(&mut self, parent: Option<Slot>, mut group: Group, policy: &Policy, born: Option<Duration>) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.generations.push(0);
            Slot::try_from(self.nodes.len() - 1).unwrap_or(Slot::MAX)
        });
        let above = parent.and_then(|parent| self.get(parent));
        let class = policy.classify(group.path.as_bytes(), above.map(|node| &node.class));
        let covered = above.map_or(EntrySet::EMPTY, |node| node.covered).union(&class.subject_of);
        let (counted, judged) = relevance(policy, &class, &covered);
        if !(judged && self.budget.allows(Need::Reading)) && parent.is_some() {
            group.release_dir();
        }
        let descriptors = group.descriptors();
        let (id, path) = (group.id, group.path.clone());
        let next = above.and_then(|node| node.first_child);
        let node = Node {
            group: Arc::new(group),
            generation: self.generations.get(slot as usize).copied().unwrap_or(0),
            parent,
            first_child: None,
            next,
            previous: None,
            watch: None,
            class,
            covered,
            counted,
            judged,
            has_memory: false,
            threaded: false,
            events: Events::default(),
            born,
            sensing: Sensing::Notices,
        };
        if let Some(sibling) = next.and_then(|next| self.get_mut(next)) {
            sibling.previous = Some(slot);
        }
        if let Some(parent) = parent.and_then(|parent| self.get_mut(parent)) {
            parent.first_child = Some(slot);
        }
        if let Some(place) = self.nodes.get_mut(slot as usize) {
            *place = Some(node);
        }
        self.arrivals += 1;
        self.budget.used += descriptors;
        self.by_id.insert(id, slot);
        self.by_path.insert(path, slot);
        self.watch(slot);
        self.open_notices(slot);
        self.changes.push(Change::Added(slot));
        match born {
            Some(born) => self.young.push_back((born + SETTLED, self.key(slot))),
            None => {
                self.settle(slot);
                self.baseline(slot);
            }
        }
        slot
    }

    /// Holds all that is held of a group that stays.
    fn settle(&mut self, slot: Slot) {
        self.open_files(slot);
        self.learn_kind(slot);
        self.changes.push(Change::Settled(slot));
    }

    /// When the next young group will have settled.
    #[must_use]
    pub fn next_settled(&self) -> Option<Duration> {
        self.young.front().map(|(due, _)| *due)
    }

    /// Settles a handful of the groups whose time has come.
    pub fn settle_due(&mut self, now: Duration) {
        for _ in 0..8 {
            if self.young.front().is_none_or(|(due, _)| *due > now) {
                break;
            }
            let Some((_, key)) = self.young.pop_front() else { break };
            if self.find(key).is_some() {
                self.settle(key.slot);
            }
        }
    }

    /// Sets the inotify watch, or marks the group for the timer.
    fn watch(&mut self, slot: Slot) {
        let Some(node) = self.nodes.get(slot as usize).and_then(Option::as_ref).filter(|_| !self.once) else { return };
        let result = match node.group.dir() {
            Some(dir) => self.watches.add(dir, slot),
            None => node.group.reopen_dir().map_err(io::Error::from).and_then(|dir| self.watches.add(&dir, slot)),
        };
        if let Some(node) = self.nodes.get_mut(slot as usize).and_then(Option::as_mut) {
            // Where it failed for another reason than ENOSPC the group is gone, and its removal will be told.
            node.watch = result.ok();
        }
        self.judge_sensing(slot);
    }

    /// Opens what gives notice, and what tells that the group has memory.
    fn open_notices(&mut self, slot: Slot) {
        let Some(node) = self.get(slot) else { return };
        let (group, counted, judged) = (Arc::clone(&node.group), node.counted, node.judged);
        if counted {
            self.hold(&group, File::EventsLocal, Need::Notice);
            if group.held(File::EventsLocal).is_none() {
                self.hold(&group, File::Events, Need::Notice);
            }
        }
        if judged {
            self.hold(&group, File::Current, Need::Reading);
        }
        if let Some(node) = self.get_mut(slot) {
            node.has_memory |= slot == Tree::ROOT || group.held(File::Current).is_some() || group.held(File::EventsLocal).is_some();
        }
        self.judge_sensing(slot);
    }

    /// Opens what is worth a descriptor.
    fn open_files(&mut self, slot: Slot) {
        self.open_notices(slot);
        let Some(node) = self.get(slot) else { return };
        let (group, judged) = (Arc::clone(&node.group), node.judged);
        if judged {
            for file in JUDGED {
                self.hold(&group, file, Need::Reading);
            }
            let mut above = self.get(slot).and_then(|node| node.parent);
            while let Some(node) = above.and_then(|slot| self.get(slot)) {
                let (ancestor, parent, known) = (Arc::clone(&node.group), node.parent, node.judged);
                if !known {
                    for file in LIMITS {
                        self.hold(&ancestor, file, Need::Reading);
                    }
                }
                above = parent;
            }
        }
        self.judge_sensing(slot);
    }

    fn hold(&mut self, group: &Group, file: File, need: Need) {
        if group.held(file).is_none() && self.budget.allows(need) && group.hold(file).is_ok() && group.held(file).is_some() {
            self.budget.used += 1;
        }
    }

    fn judge_sensing(&mut self, slot: Slot) {
        let Some(node) = self.get_mut(slot) else { return };
        let notified = !node.counted || node.group.held(File::EventsLocal).is_some() || node.group.held(File::Events).is_some();
        // A group without the memory controller has no events to hold, and neither has the real root.
        let has_events = node.has_memory && slot != Tree::ROOT;
        let sensing = if node.watch.is_some() && (notified || !has_events) { Sensing::Notices } else { Sensing::Timer };
        let before = std::mem::replace(&mut node.sensing, sensing);
        match (before, sensing) {
            (Sensing::Notices, Sensing::Timer) => self.degraded += 1,
            (Sensing::Timer, Sensing::Notices) => self.degraded = self.degraded.saturating_sub(1),
            _ => {}
        }
    }

    fn learn_kind(&mut self, slot: Slot) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(node) = self.get_mut(slot) {
            node.threaded = matches!(node.group.read(File::Type, &mut buffer, parse::kind), Ok(Some(Kind::Threaded)));
            node.has_memory = slot == Tree::ROOT
                || node.group.held(File::Current).is_some()
                || matches!(node.group.read(File::Current, &mut buffer, parse::value), Ok(Some(_)));
        }
        self.buffer = buffer;
        self.judge_sensing(slot);
    }

    /// Takes the counters as they are: what happened before we came is not ours to judge.
    fn baseline(&mut self, slot: Slot) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(node) = self.get_mut(slot)
            && let (true, Ok(Some(events))) = (node.counted, counters::read(&node.group, node.first_child.is_some(), &mut buffer))
        {
            node.events = events;
        }
        self.buffer = buffer;
    }

    /// Files of the children died or appeared with the controller: take them in anew.
    fn reopen_children(&mut self, parent: Slot) {
        let mut child = self.get(parent).and_then(|node| node.first_child);
        while let Some(slot) = child {
            let Some(node) = self.get(slot) else { break };
            child = node.next;
            if let Ok(group) = Group::open(&self.root, None, node.group.path.clone())
                && group.id == node.group.id
            {
                let (old, key, id) = (node.group.descriptors(), self.key(slot), group.id);
                self.budget.used = (self.budget.used + group.descriptors()).saturating_sub(old);
                // A new generation: what was registered for the old descriptors is void.
                self.bump(slot);
                let generation = self.key(slot).generation;
                if let Some(node) = self.get_mut(slot) {
                    node.group = Arc::new(group);
                    node.generation = generation;
                }
                self.open_files(slot);
                self.learn_kind(slot);
                self.baseline(slot);
                self.changes.push(Change::Removed(key, id));
                self.changes.push(Change::Added(slot));
                self.changes.push(Change::Settled(slot));
            }
        }
    }

    fn bump(&mut self, slot: Slot) {
        if let Some(generation) = self.generations.get_mut(slot as usize) {
            *generation = generation.wrapping_add(1);
        }
    }

    /// Takes a group and everything below it out.
    fn remove(&mut self, top: Slot) {
        let mut doomed = Vec::new();
        let mut next = Some(top);
        while let Some(slot) = next {
            doomed.push(slot);
            next = self.next_in_preorder(top, slot);
        }
        for slot in doomed.into_iter().rev() {
            self.remove_leaf(slot);
        }
    }

    fn remove_leaf(&mut self, slot: Slot) {
        if slot == Tree::ROOT {
            return;
        }
        let key = self.key(slot);
        let Some(node) = self.nodes.get_mut(slot as usize).and_then(Option::take) else { return };
        if let Some(previous) = node.previous.and_then(|previous| self.get_mut(previous)) {
            previous.next = node.next;
        } else if let Some(parent) = node.parent.and_then(|parent| self.get_mut(parent)) {
            parent.first_child = node.next;
        }
        if let Some(next) = node.next.and_then(|next| self.get_mut(next)) {
            next.previous = node.previous;
        }
        if let Some(watch) = node.watch {
            self.watches.remove(watch);
        }
        if node.sensing == Sensing::Timer {
            self.degraded = self.degraded.saturating_sub(1);
        }
        self.budget.used = self.budget.used.saturating_sub(node.group.descriptors());
        self.by_id.remove(&node.group.id);
        if self.by_path.get(&node.group.path) == Some(&slot) {
            self.by_path.remove(&node.group.path);
        }
        self.bump(slot);
        self.free.push(slot);
        self.changes.push(Change::Removed(key, node.group.id));
    }

    /// Classes every group anew, for another policy.
    pub fn reclass(&mut self, policy: &Policy) {
        let mut next = Some(Tree::ROOT);
        while let Some(slot) = next {
            if let Some(node) = self.get(slot) {
                let above = node.parent.and_then(|parent| self.get(parent));
                let class = policy.classify(node.group.path.as_bytes(), above.map(|node| &node.class));
                let covered = above.map_or(EntrySet::EMPTY, |node| node.covered).union(&class.subject_of);
                let (counted, judged) = relevance(policy, &class, &covered);
                let was_counted = node.counted;
                if let Some(node) = self.get_mut(slot) {
                    (node.class, node.covered, node.counted, node.judged) = (class, covered, counted, judged);
                }
                self.watch(slot);
                self.open_files(slot);
                self.learn_kind(slot);
                if counted && !was_counted {
                    self.baseline(slot);
                }
            }
            next = self.next_in_preorder(Tree::ROOT, slot);
        }
    }
}

/// Whether a group's counters matter to a rule, and whether a judgement may read it.
fn relevance(policy: &Policy, class: &GroupClass, covered: &EntrySet) -> (bool, bool) {
    let noticed = |rule: usize| {
        policy.rules.get(rule).is_some_and(|rule| rule.when.iter().any(|when| matches!(when, Trigger::Psi(_) | Trigger::Event(_))))
    };
    let counted = covered.iter().any(noticed);
    (counted, !covered.is_empty() || !class.among.is_empty())
}

/// The names of a group's children, or `None` if it can't be listed.
fn child_names(group: &Group) -> Option<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |dir: &OwnedFd| openat(dir, c".", flags, Mode::empty());
    let listing = match group.dir() {
        Some(dir) => open(dir),
        None => group.reopen_dir().and_then(|dir| open(&dir)),
    };
    let entries = listing.and_then(|fd| Dir::new(fd).map_err(|_| Errno::NOMEM)).ok()?;
    let mut names = Vec::new();
    for entry in entries {
        let Ok(entry) = entry else { break };
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests;
