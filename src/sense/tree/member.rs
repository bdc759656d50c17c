//! What the tree is made of: a group's place in it, what changes, and the budget of descriptors.

use std::sync::Arc;
use std::time::Duration;

use inotify::WatchDescriptor;

use super::Slot;
use crate::cgroup::GroupId;
use crate::cgroup::group::Group;
use crate::cgroup::parse::Events;
use crate::policy::model::{EntrySet, GroupClass};
use crate::sense::poller::Key;

/// How a group is kept in view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensing {
    /// By the kernel's notices.
    Notices,
    /// Read on a timer, since watches or descriptors ran out.
    Timer,
}

/// A group in the tree.
#[derive(Debug)]
pub struct Node {
    /// Its files.
    pub group: Arc<Group>,
    /// How often the slot was given away before.
    pub generation: u32,
    /// `None` for the root.
    pub parent: Option<Slot>,
    /// Links of the tree, in no particular order.
    pub first_child: Option<Slot>,
    pub(super) next: Option<Slot>,
    pub(super) previous: Option<Slot>,
    pub(super) watch: Option<WatchDescriptor>,
    /// What the policy says of it.
    pub class: GroupClass,
    /// Rules of which it, or an ancestor, is a subject.
    pub covered: EntrySet,
    /// Its counters matter to a rule.
    pub counted: bool,
    /// A judgement may read it.
    pub judged: bool,
    /// It has memory files.
    pub has_memory: bool,
    /// It is threaded.
    pub threaded: bool,
    /// Counters as last seen.
    pub events: Events,
    /// When its creation was seen; `None` for groups that were there before.
    pub born: Option<Duration>,
    /// How it is kept in view.
    pub sensing: Sensing,
}

/// What changed in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A group is new in the tree.
    Added(Slot),
    /// A group is there to stay.
    Settled(Slot),
    /// A group left it; the key is void from now on.
    Removed(Key, GroupId),
    /// A file of the group changed.
    Touched(Slot, Touched),
}

/// Which file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// memory.events or memory.events.local.
    Events,
    /// cgroup.events.
    Populated,
}

/// How many descriptors groups may hold, and how many they do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// At most.
    pub limit: usize,
    /// Now.
    pub used: usize,
}

/// What a descriptor is for. What gives notice goes before what merely saves opening a file for each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Notice,
    Reading,
}

impl Budget {
    pub(super) fn allows(&self, need: Need) -> bool {
        let limit = match need {
            Need::Notice => self.limit,
            Need::Reading => self.limit / 2,
        };
        self.used < limit
    }
}
