//! The tree of groups, as it is now: what is known, in memory. Nothing here opens or reads a file.
//!
//! Groups come and go by the hundred a second, and a name that is created anew is another group. So a notice is only ever
//! a reason to look: what counts is the kernfs id that stands under the name at that moment. [`upkeep`] says what is to be
//! looked at and takes in what was found; [`super::look`] does the looking. Where inotify watches or descriptors run out the
//! group is read on a timer instead ([`Sensing::Timer`]).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::look::{Found, Looker, Standing, Task};
use super::poller::Key;
use super::scout::{Scout, Wishes};
use super::watch::{Notice, Watches};
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, Group};
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;
use crate::policy::model::{EntrySet, Policy};

mod member;
pub mod upkeep;

pub use member::{Change, Node, Sensing, Touched};

/// A place in the tree's slab.
pub type Slot = u32;

/// The tree.
#[derive(Debug)]
pub struct Tree {
    root: Arc<Root>,
    policy: Arc<Policy>,
    /// Rules that answer holds.
    warm: EntrySet,
    nodes: Vec<Option<Node>>,
    generations: Vec<u32>,
    free: Vec<Slot>,
    by_id: HashMap<GroupId, Slot>,
    by_path: HashMap<GroupPath, Slot>,
    watches: Watches,
    scout: Scout,
    wishes: Wishes,
    notices: Vec<Notice>,
    changes: Vec<Change>,
    degraded: usize,
    /// A group could not be looked at although it is there.
    incomplete: bool,
    /// Everything is to be looked at.
    rescan: bool,
    /// Scans under way that no judgement waits for.
    scans: usize,
    /// Groups that were looked at closely since this was asked last.
    inspected: Vec<GroupId>,
    /// More findings wait than were taken in one turn.
    more: bool,
    /// Memory is short: new groups get all that is held of them at once.
    urgent: bool,
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
    pub fn scan(root: Arc<Root>, policy: &Arc<Policy>, descriptors: usize) -> io::Result<Tree> {
        Tree::open(root, policy, descriptors, false)
    }

    /// Looks at the whole tree once: nothing is watched and nothing held open, so that it shows what is there now and costs
    /// a running daemon none of its budgets.
    ///
    /// # Errors
    /// When the root group can't be opened.
    pub fn scan_once(root: Arc<Root>, policy: &Arc<Policy>) -> io::Result<Tree> {
        Tree::open(root, policy, 0, true)
    }

    fn open(root: Arc<Root>, policy: &Arc<Policy>, descriptors: usize, once: bool) -> io::Result<Tree> {
        let watches = Watches::new()?;
        let mut looker = Looker::new(Arc::clone(&root), Arc::clone(policy), (!once).then(|| watches.adder()), descriptors);
        let found = looker.root()?;
        let mut tree = Tree {
            root,
            policy: Arc::clone(policy),
            warm: EntrySet::EMPTY,
            nodes: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_path: HashMap::new(),
            watches,
            scout: Scout::here(looker),
            wishes: Wishes::default(),
            notices: Vec::with_capacity(64),
            changes: Vec::with_capacity(128),
            degraded: 0,
            incomplete: false,
            rescan: false,
            scans: 0,
            inspected: Vec::new(),
            more: false,
            urgent: false,
            arrivals: 0,
            young: VecDeque::new(),
        };
        tree.insert(None, found);
        tree.settle(Tree::ROOT, false);
        tree.rescan_here();
        Ok(tree)
    }

    /// The policy by which the groups are classed.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
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

    fn insert(&mut self, parent: Option<Slot>, found: Found) -> Slot {
        let Found { group, born, watch, events, .. } = found;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.generations.push(0);
            Slot::try_from(self.nodes.len() - 1).unwrap_or(Slot::MAX)
        });
        let above = parent.and_then(|parent| self.get(parent));
        // By the policy of now, whichever it was looked at with.
        let standing = Standing::of(&self.policy, &group.path, above.map(Node::standing).as_ref(), &self.warm);
        let Standing { class, covered, noticed, judged, named, warm } = standing;
        let (id, path) = (group.id, group.path.clone());
        let next = above.and_then(|node| node.first_child);
        self.arrivals += 1;
        // Of a group that is judged the file was to be held: if it is not there, that is known; if it could not be opened, it is not.
        let has_memory = parent.is_none()
            || group.held(File::Current).is_some()
            || group.held(File::EventsLocal).is_some()
            || (judged && !group.is_absent(File::Current));
        let node = Node {
            group,
            generation: self.generations.get(slot as usize).copied().unwrap_or(0),
            parent,
            first_child: None,
            next,
            previous: None,
            watch,
            class,
            covered,
            noticed,
            counted: noticed && events.is_some(),
            judged,
            named,
            warm,
            has_memory,
            threaded: false,
            stale: false,
            events: events.unwrap_or_default(),
            born,
            arrival: self.arrivals,
            sensing: Sensing::Notices,
        };
        if let Some(sibling) = next.and_then(|next| self.get_mut(next)) {
            sibling.previous = Some(slot);
        }
        if let Some(parent) = parent.and_then(|parent| self.get_mut(parent)) {
            parent.first_child = Some(slot);
        }
        if let Some(watch) = &node.watch {
            self.watches.claim(watch, id, &mut self.notices);
        }
        if let Some(place) = self.nodes.get_mut(slot as usize) {
            *place = Some(node);
        }
        self.by_id.insert(id, slot);
        self.by_path.insert(path, slot);
        self.judge_sensing(slot);
        self.changes.push(Change::Added(slot));
        slot
    }

    fn judge_sensing(&mut self, slot: Slot) {
        let Some(node) = self.get_mut(slot) else { return };
        let notified = !node.noticed || node.group.held(File::EventsLocal).is_some() || node.group.held(File::Events).is_some();
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
        if node.sensing == Sensing::Timer {
            self.degraded = self.degraded.saturating_sub(1);
        }
        self.by_id.remove(&node.group.id);
        if self.by_path.get(&node.group.path) == Some(&slot) {
            self.by_path.remove(&node.group.path);
        }
        self.bump(slot);
        self.free.push(slot);
        self.changes.push(Change::Removed(key, node.group.id));
        self.scout.send(Task::Forget(Some(node.group), node.watch));
    }

    /// Classes every group anew, for another policy: who is counted by it and was not before is read first.
    pub fn reclass(&mut self, policy: &Arc<Policy>) {
        self.policy = Arc::clone(policy);
        self.scout.send(Task::Policy(Arc::clone(policy), self.warm));
        let mut next = Some(Tree::ROOT);
        while let Some(slot) = next {
            self.restand(slot);
            self.settle(slot, false);
            next = self.next_in_preorder(Tree::ROOT, slot);
        }
    }

    /// These rules answer holds: what is held of their candidates is read once before it is needed.
    pub fn set_warm(&mut self, rules: EntrySet) {
        if rules == self.warm {
            return;
        }
        self.warm = rules;
        self.scout.send(Task::Policy(Arc::clone(&self.policy), rules));
        let mut next = Some(Tree::ROOT);
        while let Some(slot) = next {
            self.restand(slot);
            next = self.next_in_preorder(Tree::ROOT, slot);
        }
    }

    fn restand(&mut self, slot: Slot) {
        let Some(node) = self.get(slot) else { return };
        let above = node.parent.and_then(|parent| self.get(parent)).map(Node::standing);
        let standing = Standing::of(&self.policy, &node.group.path, above.as_ref(), &self.warm);
        if let Some(node) = self.get_mut(slot) {
            let Standing { class, covered, noticed, judged, named, warm } = standing;
            (node.class, node.covered, node.noticed) = (class, covered, noticed);
            (node.judged, node.named, node.warm) = (judged, named, warm);
            // Who was not counted so far is once its counters were read: what happened before is not ours to judge.
            node.counted &= noticed;
        }
        self.judge_sensing(slot);
    }
}

#[cfg(test)]
mod tests;
