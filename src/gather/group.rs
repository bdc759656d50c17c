//! The facts of one group: which of its files are read, and what they say.

use std::time::Duration;

use crate::cgroup::group::{File, Group, ReadBuf};
use crate::cgroup::parse;
use crate::cgroup::{GroupId, Limit};
use crate::decide::facts::{GroupFacts, MemoryFacts, UNSEEN_BIRTH};
use crate::sense::tree::Node;

/// Which files of a group a judgement turns on.
#[derive(Clone, Copy)]
pub(super) struct Reads {
    /// What it holds: candidates and the subject.
    pub(super) holdings: bool,
    /// Its limits: the subject and what is above it as well.
    pub(super) limits: bool,
    /// memory.low.
    pub(super) low: bool,
    /// The same where it has no processes: the subject and what is above it. Any other empty group is nobody's victim and holds nothing
    /// that a kill could free, and somebody may make thousands of them.
    pub(super) though_empty: bool,
}

/// Reads one group; `None` if it is gone. What could not be read stays `None`.
pub(super) fn look(node: &Node, is_root: bool, reads: Reads, buffer: &mut ReadBuf) -> Option<GroupFacts> {
    let group = &node.group;
    let mut facts = GroupFacts {
        id: group.id,
        path: group.path.clone(),
        parent: None,
        subtree_end: 0,
        class: node.class,
        own: false,
        has_memory: node.has_memory,
        threaded: node.threaded,
        oom_group: false,
        populated: None,
        dying: false,
        memory: MemoryFacts::default(),
        growth: None,
        pressure: None,
        age: None,
        processes: None,
    };
    if is_root {
        facts.populated = Some(true);
    } else if reads.limits {
        match group.read(File::GroupEvents, buffer, parse::populated) {
            Ok(populated) => facts.populated = populated.flatten(),
            Err(error) if error.is_gone() => return None,
            Err(_) => {}
        }
        if facts.populated == Some(false) && !reads.though_empty {
            return Some(facts);
        }
        match group.read(File::OomGroup, buffer, parse::flag) {
            Ok(oom_group) => facts.oom_group = oom_group.unwrap_or(false),
            // Whether it is a unit can't be told, so it can't be judged. It is there all the same: a memory file that fails
            // may be one of a controller that was switched off, and what the policy says of the group still holds.
            Err(_) => facts.populated = None,
        }
    }
    let memory = &mut facts.memory;
    if reads.limits && node.has_memory {
        memory.current = value(group, File::Current, buffer);
        memory.max = group.read(File::Max, buffer, parse::limit).ok().flatten();
        memory.high = group.read(File::High, buffer, parse::limit).ok().flatten();
    }
    // What an empty group holds frees nothing by a kill.
    if reads.holdings && node.has_memory && facts.populated != Some(false) {
        if let Ok(Some(stat)) = group.read(File::Stat, buffer, parse::stat) {
            (memory.anon, memory.shmem, memory.slab) = (stat.anon, stat.shmem, stat.slab_unreclaimable);
            (memory.reclaimable, memory.outlives, memory.tmpfs) = (stat.reclaimable(), stat.outlives(), stat.tmpfs());
        }
        // A kernel without swap accounting has no such file.
        memory.swap = group.read(File::SwapCurrent, buffer, parse::value).ok().map(|swap| swap.unwrap_or(0));
    }
    if reads.low {
        memory.low = match group.read(File::Low, buffer, parse::limit) {
            Ok(Some(Limit::Bytes(bytes))) => Some(bytes),
            Ok(Some(Limit::Unlimited)) => Some(u64::MAX),
            Ok(None) | Err(_) => None,
        };
    }
    Some(facts)
}

pub(super) fn value(group: &Group, file: File, buffer: &mut ReadBuf) -> Option<u64> {
    group.read(file, buffer, parse::value).ok().flatten()
}

/// Time since a group was made. Groups that were there before us are older than all others, in the order of their kernfs
/// ids, which rise; a millisecond each, since ages are compared in these.
pub(super) fn age(born: Option<Duration>, id: GroupId, now: Duration) -> Duration {
    const NEWEST: u64 = 1 << 40;
    match born {
        Some(born) => now.saturating_sub(born),
        None => UNSEEN_BIRTH + Duration::from_millis(NEWEST - id.0.min(NEWEST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_there_before_us_is_older_and_in_order() {
        let now = Duration::from_secs(1_000_000);
        let milliseconds = |born, id| age(born, GroupId(id), now).as_millis();
        assert_eq!(milliseconds(Some(Duration::from_secs(999_999)), 7000), 1000);
        assert!(milliseconds(None, 41) > milliseconds(None, 42), "one millisecond apart at least");
        assert!(milliseconds(None, u64::MAX) > milliseconds(Some(Duration::ZERO), 1));
    }
}
