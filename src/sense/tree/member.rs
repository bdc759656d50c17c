//! What the tree is made of: a group's place in it, and what changes.

use std::sync::Arc;
use std::time::Duration;

use inotify::WatchDescriptor;

use super::Slot;
use crate::cgroup::GroupId;
use crate::cgroup::group::Group;
use crate::cgroup::parse::Events;
use crate::policy::model::{EntrySet, GroupClass};
use crate::sense::look::Standing;
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
    /// A rule rests on its counters.
    pub(super) noticed: bool,
    /// Its counters matter to a rule, and what they said before that is known.
    pub counted: bool,
    /// A judgement may read it.
    pub judged: bool,
    pub(super) named: bool,
    pub(super) warm: bool,
    /// It has memory files.
    pub has_memory: bool,
    /// It is threaded.
    pub threaded: bool,
    /// What is held of it may be dead: it was to be opened anew, which failed.
    pub(super) stale: bool,
    /// Counters as last seen.
    pub events: Events,
    /// When its creation was seen; `None` for groups that were there before.
    pub born: Option<Duration>,
    /// How many groups had come when it did.
    pub arrival: u64,
    /// How it is kept in view.
    pub sensing: Sensing,
}

impl Node {
    /// What the policy makes of it.
    pub(super) fn standing(&self) -> Standing {
        let Node { class, covered, noticed, judged, named, warm, .. } = *self;
        Standing { class, covered, noticed, judged, named, warm }
    }
}

/// What changed in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A group is new in the tree.
    Added(Slot),
    /// A group is there to stay, and all that is to be held of it is held.
    Settled(Slot),
    /// A group left it; the key is void from now on.
    Removed(Key, GroupId),
    /// A file of the group changed.
    Touched(Slot, Touched),
    /// Files of groups may have changed without a word: the queue of notices was full.
    NoticesLost,
}

/// Which file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// memory.events or memory.events.local.
    Events,
    /// cgroup.events.
    Populated,
    /// memory.oom.group.
    OomGroup,
    /// cgroup.pressure.
    PressureSwitch,
}
