//! What a judgement rests on: facts as values, gathered by others, the clock included.
//!
//! Every number is an `Option`: `None` is "could not be read", never zero.

use std::time::Duration;

use crate::cgroup::path::GroupPath;
use crate::policy::model::{EntrySet, GroupClass, LmsLevel};

pub use crate::cgroup::{GroupId, Limit};

/// From here on an age says nothing but an order: the group was there before us. Longer than any machine runs.
pub const UNSEEN_BIRTH: Duration = Duration::from_millis(1 << 40);

/// The node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// MemTotal.
    pub total_bytes: u64,
    /// MemAvailable.
    pub available_bytes: Option<u64>,
    /// SwapTotal.
    pub swap_total_bytes: u64,
    /// SwapFree.
    pub swap_free_bytes: Option<u64>,
    /// Shmem: tmpfs and shared memory. For the record only, as are the next two.
    pub shmem_bytes: Option<u64>,
    /// Slab.
    pub slab_bytes: Option<u64>,
    /// SUnreclaim.
    pub slab_unreclaimable_bytes: Option<u64>,
    /// What the kernel module reports; `None` where there is none, or where it could not be read.
    pub lms: Option<LmsFacts>,
}

/// The kernel module's low memory signal. It looks at memory anew for each reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LmsFacts {
    /// The level now; `None` is `ok`.
    pub level: Option<LmsLevel>,
    /// MemAvailable below which the level is `warn`, if free swap is low too.
    pub warn_bytes: u64,
    /// MemAvailable below which the level is `kill`, likewise.
    pub kill_bytes: u64,
}

/// Memory of one group, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFacts {
    /// memory.current.
    pub current: Option<u64>,
    /// memory.stat `anon`.
    pub anon: Option<u64>,
    /// memory.stat `shmem`: tmpfs and shared memory, which outlives processes.
    pub shmem: Option<u64>,
    /// Clean file cache and reclaimable slab, of memory.stat: what reclaim can take without
    /// killing, swapping or writing.
    pub reclaimable: Option<u64>,
    /// Page cache that surely stays in memory when every process of the group ends, of memory.stat:
    /// files and tmpfs.
    pub outlives: Option<u64>,
    /// The part of it that can't be reclaimed even then: tmpfs.
    pub tmpfs: Option<u64>,
    /// memory.stat `slab_unreclaimable`. For the record only.
    pub slab: Option<u64>,
    /// memory.swap.current; `Some(0)` where the kernel has no swap accounting file.
    pub swap: Option<u64>,
    /// memory.max; `None` for the root and where it could not be read.
    pub max: Option<Limit>,
    /// memory.high.
    pub high: Option<Limit>,
    /// memory.low, bytes.
    pub low: Option<u64>,
}

impl MemoryFacts {
    /// What dies with the group: anon + swap.
    #[must_use]
    pub fn usage(&self) -> Option<u64> {
        Some(self.anon?.saturating_add(self.swap?))
    }

    /// What counts against a limit and can't be reclaimed: memory.current less clean file cache and
    /// reclaimable slab.
    #[must_use]
    pub fn charged(&self) -> Option<u64> {
        Some(self.current?.saturating_sub(self.reclaimable?))
    }

    /// The most that is no longer charged, or can be reclaimed, when every process of the group
    /// ends: all that is charged but tmpfs, at least the anonymous memory.
    #[must_use]
    pub fn could_be_uncharged(&self) -> Option<u64> {
        Some(self.charged()?.saturating_sub(self.tmpfs?).max(self.anon?))
    }

    /// The most that leaves RAM when every process of the group ends: memory.current less page
    /// cache that stays, at least the anonymous memory.
    #[must_use]
    pub fn could_leave_ram(&self) -> Option<u64> {
        Some(self.current?.saturating_sub(self.outlives?).max(self.anon?))
    }
}

/// What was found out about the processes directly in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// How many.
    pub count: u32,
    /// Process 1 is among them.
    pub has_init: bool,
    /// One of them has oom_score_adj -1000.
    pub has_unkillable: bool,
    /// One of them has an oom_score_adj of [`super::process::SHIELDED`] or below.
    pub has_shielded: bool,
    /// One of them could not be looked at (another pid namespace, no rights); one that merely exited does not count.
    pub has_unknown: bool,
    /// Exclusions (with comm) of the group's class of which a process here has the comm.
    pub comm_hits: EntrySet,
    /// The largest oom_score.
    pub oom_score: Option<u32>,
}

/// One group. A judgement gets the whole tree as a slice in pre-order: a parent stands before its children, and the
/// group's descendants are the entries up to `subtree_end`.
#[derive(Clone, Debug)]
pub struct GroupFacts {
    /// Identity.
    pub id: GroupId,
    /// For the record.
    pub path: GroupPath,
    /// Index of the parent; `None` for the root.
    pub parent: Option<u32>,
    /// One past the index of the last descendant.
    pub subtree_end: u32,
    /// What the policy says of it.
    pub class: GroupClass,
    /// oomwarden itself runs here.
    pub own: bool,
    /// It has memory files of its own (the root counts too).
    pub has_memory: bool,
    /// cgroup.type is `threaded`, or `domain invalid`.
    pub threaded: bool,
    /// memory.oom.group is 1.
    pub oom_group: bool,
    /// cgroup.events `populated`; `None`: could not be read (the group may be gone).
    pub populated: Option<bool>,
    /// A deed on it is under way or it was found dying.
    pub dying: bool,
    /// Memory.
    pub memory: MemoryFacts,
    /// Usage gained per second over the last 10 s, bytes; negative when shrinking.
    pub growth: Option<i64>,
    /// Full stall in the last second.
    pub pressure: Option<Duration>,
    /// Time since the group was created; from [`UNSEEN_BIRTH`] on for those that were there before us.
    pub age: Option<Duration>,
    /// Looked at only for groups that might die; see [`super::Step::NeedProcesses`].
    pub processes: Option<ProcessFacts>,
}
