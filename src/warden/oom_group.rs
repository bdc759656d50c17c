//! `kernel: oom_group`: in which groups memory.oom.group is to be 1. The thread in [`keeper`] sets
//! it and takes it back.
//!
//! Where it is 1 the kernel kills the whole group for one process, so a group that is, contains, or
//! lies below an excluded one, or one of `kill_one_in`, never gets it. An exclusion with a comm counts whether or not such a
//! process is there now: one can start at any moment. The same goes for a group below the one in
//! question that is named by an exclusion or by `kill_one_in` and does not exist yet. If a group that must live appears
//! below one that was set, it is taken back there.

mod keeper;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;

use self::keeper::{Errand, Keeper};
use super::Warden;
use crate::cgroup::GroupId;
use crate::cgroup::root::Root;
use crate::gather::own::Own;
use crate::policy::model::{Mode, Policy};
use crate::sense::tree::{Node, Sensing, Slot, Tree};
use crate::state::StateDir;

/// When everything is looked at after a group is gone that kept others from it: a service that is
/// started anew must not cost a look each time.
const CALM: Duration = Duration::from_secs(1);
/// How often the files of groups without notices are read.
const TIMER: Duration = Duration::from_secs(1);
/// At the end: how long it may take until everything is taken back.
const FAREWELL: Duration = Duration::from_secs(2);

/// What happened to a group.
#[derive(Clone, Copy, Debug)]
pub enum News {
    /// It is new.
    Came(GroupId),
    /// It is there to stay.
    Settled(GroupId),
    /// It is gone.
    Gone(GroupId),
    /// Its memory.oom.group was written.
    Written(GroupId),
    /// Any of this, anywhere.
    Lost,
}

/// What is wanted, and what stands in the way.
#[derive(Debug)]
pub struct OomGroups {
    keeper: Keeper,
    /// Groups that are to have it.
    wanted: HashSet<GroupId>,
    /// Groups that must live and keep one above them from it.
    blockers: HashSet<GroupId>,
    news: Vec<News>,
    own: Option<Own>,
    /// When every group is looked at.
    due: Option<Duration>,
    /// When groups without notices are.
    timer: Duration,
}

/// Why a group is not to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bar {
    /// The policy says so of this group, or it is the root, or our own.
    Always,
    /// This group below it does.
    Below(GroupId),
}

impl OomGroups {
    /// Starts the thread. Everything is looked at first, so that what an earlier oomwarden has set
    /// and the policy no longer names is taken back.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(root: Arc<Root>, state: StateDir, resets: IntCounter) -> io::Result<OomGroups> {
        Ok(OomGroups {
            keeper: Keeper::start(root, state, resets)?,
            wanted: HashSet::new(),
            blockers: HashSet::new(),
            news: Vec::new(),
            own: None,
            due: Some(Duration::ZERO),
            timer: Duration::ZERO,
        })
    }

    /// Something happened to a group.
    pub fn heard(&mut self, news: News, policy: &Policy) {
        if policy.oom_group.is_some() || !self.wanted.is_empty() {
            self.news.push(news);
        }
    }

    /// Has everything looked at: another policy, or the end of a pause.
    pub fn look_anew(&mut self) {
        self.due = Some(Duration::ZERO);
    }

    /// Whether anything may be set from this moment on.
    pub fn allow(&self, yes: bool) {
        self.keeper.allow(yes);
    }

    /// When everything is to be looked at.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Has everything taken back that was set, within a bounded time.
    pub fn end(&self) {
        if !self.keeper.end(FAREWELL) {
            tracing::warn!("memory.oom.group could not be taken back everywhere in time: the next oomwarden does it");
        }
    }

    fn mind(&mut self, now: Duration, tree: &Tree, own: Own, policy: &Policy, may_set: bool) {
        if self.own.replace(own).is_some_and(|before| before != own) {
            self.due = Some(now);
        }
        // While it can't be told any group might be the one that we must not harm, so nothing is
        // set. Taking back harms nobody: an excluded group that comes meanwhile must not wait.
        let known = own != Own::Unknown;
        let mut news = std::mem::take(&mut self.news);
        if self.due.is_some_and(|due| due <= now) || news.iter().any(|one| matches!(one, News::Lost)) {
            if known {
                self.look_at_all(tree, own, policy);
            } else {
                self.release_only(tree, policy);
            }
            news.clear();
        }
        if !known {
            self.due.get_or_insert(now + CALM);
        }
        for one in news.drain(..) {
            match one {
                News::Came(id) => self.came(id, tree, own),
                News::Settled(id) if may_set && known => self.settled(id, tree, own, policy),
                // The end of a pause looks at everything, and so does the moment when our own
                // group is known again.
                News::Settled(_) | News::Lost => {}
                News::Gone(id) => {
                    if self.wanted.remove(&id) {
                        self.keeper.send(Errand::Gone(id));
                    }
                    if self.blockers.remove(&id) {
                        self.due.get_or_insert(now + CALM);
                    }
                }
                News::Written(id) if known && self.wanted.contains(&id) => self.keeper.send(Errand::Look(id)),
                News::Written(_) => {}
            }
        }
        self.news = news;
    }

    fn look_at_all(&mut self, tree: &Tree, own: Own, policy: &Policy) {
        self.due = None;
        self.wanted.clear();
        self.blockers.clear();
        let mut groups = Vec::new();
        for slot in tree.slots() {
            let Some(node) = tree.get(slot).filter(|node| asks(node, policy)) else { continue };
            match bar(tree, slot, own, policy) {
                None => {
                    self.wanted.insert(node.group.id);
                    groups.push(Arc::clone(&node.group));
                }
                Some(Bar::Below(blocker)) => {
                    self.blockers.insert(blocker);
                }
                Some(Bar::Always) => {}
            }
        }
        self.keeper.send(Errand::All(groups));
    }

    /// Takes it from groups that are no longer to have it, and sets it nowhere.
    fn release_only(&mut self, tree: &Tree, policy: &Policy) {
        self.due = None;
        let OomGroups { keeper, wanted, .. } = self;
        wanted.retain(|id| {
            // Of one that is gone nothing is left to take back.
            let Some(slot) = tree.slot_of(*id) else { return false };
            let Some(node) = tree.get(slot) else { return false };
            let stays = asks(node, policy) && bar(tree, slot, Own::Unknown, policy).is_none();
            if !stays {
                keeper.send(Errand::Release(Arc::clone(&node.group)));
            }
            stays
        });
    }

    /// A new group takes it from those above, if it must live.
    fn came(&mut self, id: GroupId, tree: &Tree, own: Own) {
        let Some(node) = tree.slot_of(id).and_then(|slot| tree.get(slot)).filter(|node| must_live(node, own)) else { return };
        let mut at = node.parent;
        while let Some(above) = at.and_then(|slot| tree.get(slot)) {
            if self.wanted.remove(&above.group.id) {
                self.blockers.insert(id);
                self.keeper.send(Errand::Release(Arc::clone(&above.group)));
            }
            at = above.parent;
        }
    }

    fn settled(&mut self, id: GroupId, tree: &Tree, own: Own, policy: &Policy) {
        let Some(slot) = tree.slot_of(id) else { return };
        let Some(node) = tree.get(slot).filter(|node| asks(node, policy)) else { return };
        match bar(tree, slot, own, policy) {
            None => {
                self.wanted.insert(id);
                self.keeper.send(Errand::Set(Arc::clone(&node.group)));
            }
            Some(Bar::Below(blocker)) => {
                self.blockers.insert(blocker);
            }
            Some(Bar::Always) => {}
        }
    }

    /// Has the files read of groups that have no notices.
    pub fn read_unnoticed(&mut self, now: Duration, tree: &Tree) {
        if self.wanted.is_empty() || now < self.timer || !self.keeper.is_idle() {
            return;
        }
        self.timer = now + TIMER;
        for node in tree.slots().filter_map(|slot| tree.get(slot)) {
            if node.sensing == Sensing::Timer && self.wanted.contains(&node.group.id) {
                self.keeper.send(Errand::Look(node.group.id));
            }
        }
    }
}

/// Whether the policy asks for it in any group.
fn asks_anywhere(policy: &Policy) -> bool {
    policy.oom_group.is_some() && policy.mode == Mode::Enforce
}

/// Whether the policy asks for it there.
fn asks(node: &Node, policy: &Policy) -> bool {
    node.class.oom_group && asks_anywhere(policy)
}

/// Whether a group must not be killed for what another one does.
fn must_live(node: &Node, own: Own) -> bool {
    node.class.forbids_oom_group() || own == Own::Inside(node.group.id)
}

/// What keeps a group from it.
fn bar(tree: &Tree, top: Slot, own: Own, policy: &Policy) -> Option<Bar> {
    let path = &tree.get(top)?.group.path;
    if top == Tree::ROOT || policy.keeps_oom_group_from(path.as_bytes()) {
        return Some(Bar::Always);
    }
    let mut next = Some(top);
    while let Some(slot) = next {
        next = tree.next_in_preorder(top, slot);
        if let Some(node) = tree.get(slot).filter(|node| must_live(node, own)) {
            return Some(if slot == top { Bar::Always } else { Bar::Below(node.group.id) });
        }
    }
    None
}

impl Warden {
    /// Brings memory.oom.group up to date with what has happened.
    pub(super) fn mind_oom_groups(&mut self) {
        let now = self.clock.now();
        let Warden { senses, court, policy, .. } = self;
        if senses.oom_groups.news.is_empty() && senses.oom_groups.due.is_none_or(|due| due > now) {
            return;
        }
        // Where it is wanted nowhere, our own group makes no difference; looking for it can cost a
        // look at every group.
        let own = if asks_anywhere(policy) { court.own(&mut senses.sight()) } else { Own::Outside };
        let may_set = !senses.hands_off;
        senses.oom_groups.mind(now, &senses.tree, own, policy, may_set);
    }
}

#[cfg(test)]
mod tests;
