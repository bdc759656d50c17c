//! Keeping the tree true: notices become something to look at, and what was found becomes changes of the tree.
//!
//! Whoever looks ([`Scout`]) does one thing after the other and tells in that order, so the last word about a name is the
//! truth about it. A finding may come late: its parent may have left the tree, or somebody else may have been found under its
//! name before; ids tell.

use inotify::WatchDescriptor;

use super::*;
use crate::sense::look::{Echo, Finding, Seen, Settle, Visit};
use crate::sense::scout::Wish;
use crate::sense::watch::{FileName, Happening};

/// Groups that live longer than this get all that is held of a group; most that come and go by the hundred don't.
const SETTLED: Duration = Duration::from_millis(100);
/// When to read again what could not be read.
const AGAIN: Duration = Duration::from_millis(250);
/// Findings, and groups that settle, taken in a turn: a storm of groups keeps nobody from a trigger.
const HANDFUL: usize = 32;

impl Tree {
    /// From now on a thread looks; `mail` is written when it has found something.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn send_scout(&mut self, mail: Arc<nix::sys::eventfd::EventFd>) -> io::Result<()> {
        self.scout.depart(mail)
    }

    /// Reads some inotify notices and has looked at what they tell of.
    ///
    /// # Errors
    /// The errno of the read.
    pub fn update(&mut self, now: Duration) -> io::Result<bool> {
        let mut notices = std::mem::take(&mut self.notices);
        let result = self.watches.read(&mut notices);
        self.notices = notices;
        self.heed(now);
        self.hand_over();
        result
    }

    /// Takes in a handful of what was found. Whether there was anything.
    pub fn take_findings(&mut self, now: Duration) -> bool {
        let mut taken = 0;
        while taken < HANDFUL
            && let Some(finding) = self.scout.finding()
        {
            self.apply(finding, now);
            taken += 1;
        }
        self.more = taken == HANDFUL;
        self.heed(now);
        self.hand_over();
        taken > 0
    }

    /// Whether findings may wait that nothing will tell of again.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    fn heed(&mut self, now: Duration) {
        let mut notices = std::mem::take(&mut self.notices);
        for notice in notices.drain(..) {
            match notice {
                Notice::In(group, what) => self.happened(group, what, now),
                Notice::Overflow => {
                    self.rescan();
                    self.changes.push(Change::NoticesLost);
                }
            }
        }
        self.notices = notices;
    }

    pub(super) fn happened(&mut self, group: GroupId, what: Happening, now: Duration) {
        // A notice for a group that has left the tree meanwhile.
        let Some(slot) = self.slot_of(group) else { return };
        match what {
            Happening::Created(name) | Happening::Removed(name) => {
                self.rescan |= !self.wishes.add(Wish { parent: group, name, noticed: now });
            }
            Happening::Changed(FileName::Events) => self.changes.push(Change::Touched(slot, Touched::Events)),
            Happening::Changed(FileName::Populated) => self.changes.push(Change::Touched(slot, Touched::Populated)),
            Happening::Changed(FileName::OomGroup) => self.changes.push(Change::Touched(slot, Touched::OomGroup)),
            Happening::Changed(FileName::PressureSwitch) => self.changes.push(Change::Touched(slot, Touched::PressureSwitch)),
            Happening::Changed(FileName::Type) => self.settle(slot, false),
            // +memory or -memory: the children's files appeared or are dead now. Some children may be found, but not told yet.
            Happening::Changed(FileName::SubtreeControl) => self.scout.send(Task::Echo(Echo::Children(group))),
        }
    }

    /// Hands over what waits to be looked at, as far as that is not too much.
    pub(super) fn hand_over(&mut self) {
        if self.rescan && self.scans == 0 {
            (self.rescan, self.incomplete) = (false, false);
            self.scan_all(Tree::ROOT, None);
        }
        while let Some(Wish { parent, name, noticed }) = self.wishes.hand_over() {
            let Some(node) = self.slot_of(parent).and_then(|slot| self.get(slot)) else {
                self.wishes.done();
                continue;
            };
            let known = self.slot_at(&node.group.path.child(&name)).and_then(|slot| self.get(slot)).map(|node| node.group.id);
            let (parent, above) = (Arc::clone(&node.group), node.standing());
            // Whoever is new there was made after the watch was set, and before us.
            self.scout.send(Task::Look { parent, above, name, known, born: Some(noticed) });
        }
    }

    /// Takes one finding in.
    pub(super) fn apply(&mut self, finding: Finding, now: Duration) {
        match finding {
            Finding::Found(found) => self.found(*found),
            Finding::Absent(parent, name) => {
                let path = self.slot_of(parent).and_then(|slot| self.get(slot)).map(|node| node.group.path.child(&name));
                if let Some(slot) = path.and_then(|path| self.slot_at(&path)) {
                    self.remove(slot);
                }
            }
            Finding::Removed(id) => {
                if let Some(slot) = self.slot_of(id) {
                    self.remove(slot);
                }
            }
            Finding::Watched(id, watch) => self.watched(id, watch),
            Finding::Settled(id, seen) => self.settled(id, seen, now),
            Finding::Reopened(group, seen) => self.reopened(group, seen, now),
            Finding::NotReopened(id) => self.not_reopened(id, now),
            Finding::Incomplete => self.incomplete = true,
            Finding::Looked => self.wishes.done(),
            Finding::Scanned(None) => {
                self.scans = self.scans.saturating_sub(1);
                let by_id = &self.by_id;
                self.watches.forget_all_but(|owner| by_id.contains_key(&owner));
            }
            // Whoever was found is settled before the echo comes.
            Finding::Scanned(Some(id)) => self.scout.send(Task::Echo(Echo::Inspected(id))),
            Finding::Echo(Echo::Inspected(id)) => self.inspected.push(id),
            Finding::Echo(Echo::Children(parent)) => self.reopen_children(parent),
        }
    }

    fn watched(&mut self, id: GroupId, watch: WatchDescriptor) {
        let Some(slot) = self.slot_of(id) else { return self.scout.send(Task::Forget(None, Some(watch))) };
        self.watches.claim(&watch, id, &mut self.notices);
        if let Some(node) = self.get_mut(slot) {
            node.watch = Some(watch);
        }
        self.judge_sensing(slot);
    }

    fn found(&mut self, found: Found) {
        let id = found.group.id;
        // Told twice: a scan came by while it was on its way.
        if self.slot_of(id).is_some() {
            self.scout.send(Task::Forget(Some(found.group), None));
            // The kernel gives a directory one watch, so this is the group's.
            if let Some(watch) = found.watch {
                self.watched(id, watch);
            }
            return;
        }
        let parent = found.parent.and_then(|parent| self.slot_of(parent));
        let Some(parent) = parent else {
            // A parent that is gone: so is the child.
            return self.scout.send(Task::Forget(Some(found.group), found.watch));
        };
        if let Some(old) = self.slot_at(&found.group.path) {
            self.remove(old);
        }
        let slot = self.insert(Some(parent), found);
        let Some(node) = self.get(slot) else { return };
        match node.born.filter(|_| !self.urgent && node.counted == node.noticed) {
            Some(born) => self.young.push_back((born + SETTLED, self.key(slot))),
            None => self.settle(slot, false),
        }
    }

    fn settled(&mut self, id: GroupId, seen: Seen, now: Duration) {
        let Some(slot) = self.slot_of(id) else { return };
        self.learn(slot, seen, now);
        self.changes.push(Change::Settled(slot));
    }

    fn learn(&mut self, slot: Slot, seen: Seen, now: Duration) {
        let key = self.key(slot);
        let Some(node) = self.get_mut(slot) else { return };
        // What could not be told stays as it was.
        node.threaded = seen.threaded.unwrap_or(node.threaded);
        node.has_memory = seen.has_memory.unwrap_or(node.has_memory);
        if let Some(events) = seen.events.filter(|_| node.noticed && !node.counted) {
            (node.counted, node.events) = (true, events);
        }
        if (node.noticed && !node.counted) || seen.threaded.is_none() || seen.has_memory.is_none() {
            // Something could not be read; until its counters are, nothing it tells can be compared. It waits among the young,
            // whom it may keep waiting for as long.
            self.young.push_back((now + AGAIN, key));
        }
        self.judge_sensing(slot);
    }

    /// Has all held that is held of a group that stays. `urgent`: a judgement waits for it.
    pub(super) fn settle(&mut self, slot: Slot, urgent: bool) {
        if let Some(settle) = self.settling(slot, urgent) {
            self.scout.send(Task::Settle(settle));
        }
    }

    fn settling(&self, slot: Slot, urgent: bool) -> Option<Settle> {
        let node = self.get(slot)?;
        let mut above = Vec::new();
        let mut at = node.parent.filter(|_| node.judged);
        while let Some(ancestor) = at.and_then(|slot| self.get(slot)) {
            if !ancestor.judged {
                above.push(Arc::clone(&ancestor.group));
            }
            at = ancestor.parent;
        }
        Some(Settle {
            group: Arc::clone(&node.group),
            standing: node.standing(),
            above,
            baseline: node.noticed && !node.counted,
            has_children: node.first_child.is_some(),
            urgent,
        })
    }

    /// When the next young group will have settled.
    #[must_use]
    pub fn next_settled(&self) -> Option<Duration> {
        self.young.front().map(|(due, _)| *due)
    }

    /// Settles a handful of the groups whose time has come.
    pub fn settle_due(&mut self, now: Duration) {
        for _ in 0..HANDFUL {
            if self.young.front().is_none_or(|(due, _)| *due > now) {
                break;
            }
            let Some((_, key)) = self.young.pop_front() else { break };
            self.settle_young(key);
        }
    }

    fn settle_young(&mut self, key: Key) {
        if self.find(key).is_none() {
            return;
        }
        if self.get_mut(key.slot).is_some_and(|node| std::mem::take(&mut node.stale)) {
            self.reopen(key.slot);
        } else {
            self.settle(key.slot, false);
        }
    }

    /// While memory is short a group gets all that is held of it when it is found: a judgement must not have to open anything.
    pub fn set_urgent(&mut self, urgent: bool) {
        if urgent && !self.urgent {
            for (_, key) in std::mem::take(&mut self.young) {
                self.settle_young(key);
            }
        }
        self.urgent = urgent;
    }

    /// Has everything below a group compared with what is there, and all held that is to be held of `unheld`, for a judgement;
    /// [`Tree::take_inspected`] tells when it is done. Without `below` only the latter.
    pub fn inspect(&mut self, id: GroupId, below: bool, unheld: &[Slot]) {
        for slot in unheld {
            self.settle(*slot, true);
        }
        match self.slot_of(id).filter(|_| below) {
            Some(slot) => self.scan_all(slot, Some(id)),
            None => self.scout.send(Task::Echo(Echo::Inspected(id))),
        }
    }

    /// A group that was inspected since this was asked last.
    pub fn take_inspected(&mut self) -> Option<GroupId> {
        self.inspected.pop()
    }

    /// Has everything looked at: after lost notices.
    pub fn rescan(&mut self) {
        self.rescan = true;
    }

    /// The same at once, where no thread looks.
    pub fn rescan_here(&mut self) {
        self.rescan();
        self.hand_over();
        while self.take_findings(Duration::ZERO) {}
    }

    /// Has the groups looked at that have no watch, and everything where something could not be looked at.
    pub fn rescan_unwatched(&mut self) {
        self.rescan |= self.incomplete;
        if self.scans == 0 && !self.rescan {
            let mut visits = Vec::new();
            for slot in self.slots() {
                let Some(node) = self.get(slot) else { continue };
                let orphan = node.parent.and_then(|parent| self.get(parent)).is_some_and(|parent| parent.watch.is_none());
                if node.watch.is_none() || orphan {
                    visits.extend(self.visit(slot, node.watch.is_none()));
                }
            }
            self.scans += 1;
            self.scout.send(Task::Scan(visits, None));
        }
        self.hand_over();
    }

    fn scan_all(&mut self, top: Slot, purpose: Option<GroupId>) {
        let (mut visits, mut next) = (Vec::new(), Some(top));
        while let Some(slot) = next {
            visits.extend(self.visit(slot, true));
            next = self.next_in_preorder(top, slot);
        }
        self.scans += usize::from(purpose.is_none());
        self.scout.send(Task::Scan(visits, purpose));
    }

    fn visit(&self, slot: Slot, lists: bool) -> Option<Visit> {
        let node = self.get(slot)?;
        let children = lists.then(|| {
            let first = node.first_child.and_then(|slot| self.get(slot));
            let next = |node: &&Node| node.next.and_then(|slot| self.get(slot));
            std::iter::successors(first, next).map(|node| node.group.id).collect()
        });
        Some(Visit { group: Arc::clone(&node.group), standing: node.standing(), unwatched: node.watch.is_none(), children })
    }

    fn reopen_children(&mut self, parent: GroupId) {
        let mut child = self.slot_of(parent).and_then(|slot| self.get(slot)).and_then(|node| node.first_child);
        while let Some(slot) = child {
            child = self.get(slot).and_then(|node| node.next);
            self.reopen(slot);
        }
    }

    fn reopen(&mut self, slot: Slot) {
        if let Some(settle) = self.settling(slot, false) {
            self.scout.send(Task::Reopen(settle));
        }
    }

    /// Descriptors or memory were short: what is held of the group may be dead, so it is tried again until that works.
    fn not_reopened(&mut self, id: GroupId, now: Duration) {
        let Some(slot) = self.slot_of(id) else { return };
        let key = self.key(slot);
        if self.get_mut(slot).is_some_and(|node| !std::mem::replace(&mut node.stale, true)) {
            self.young.push_back((now + AGAIN, key));
        }
    }

    /// A group's files were opened anew: what was registered for the old descriptors is void.
    fn reopened(&mut self, group: Arc<Group>, seen: Seen, now: Duration) {
        let id = group.id;
        let Some(slot) = self.slot_of(id) else { return self.scout.send(Task::Forget(Some(group), None)) };
        let key = self.key(slot);
        self.bump(slot);
        let generation = self.key(slot).generation;
        let Some(node) = self.get_mut(slot) else { return };
        let old = std::mem::replace(&mut node.group, group);
        (node.generation, node.counted, node.stale) = (generation, false, false);
        self.scout.send(Task::Forget(Some(old), None));
        self.learn(slot, seen, now);
        self.changes.extend([Change::Removed(key, id), Change::Added(slot), Change::Settled(slot)]);
    }
}
