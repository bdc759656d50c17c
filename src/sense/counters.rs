//! Counters of memory.events.local, compared with what was seen before.
//!
//! Local counters say where a thing happened: an ancestor's hierarchical count rises too, and nobody may be punished for
//! an event that he inherited.

use crate::cgroup::group::{File, Group, ReadBuf, ReadError};
use crate::cgroup::parse::{self, Events};
use crate::policy::model::EventKind;

/// All counters, in the order of the kernel's file.
pub const KINDS: [EventKind; 6] =
    [EventKind::Low, EventKind::High, EventKind::Max, EventKind::Oom, EventKind::OomKill, EventKind::OomGroupKill];

/// The counter of one kind.
#[must_use]
pub fn of(events: &Events, kind: EventKind) -> Option<u64> {
    match kind {
        EventKind::Low => events.low,
        EventKind::High => events.high,
        EventKind::Max => events.max,
        EventKind::Oom => events.oom,
        EventKind::OomKill => events.oom_kill,
        EventKind::OomGroupKill => events.oom_group_kill,
    }
}

/// Which counters rose between two readings, with both values. A counter that was not there before counts from zero.
pub fn risen(before: &Events, now: &Events) -> impl Iterator<Item = (EventKind, u64, u64)> {
    KINDS.into_iter().filter_map(|kind| {
        let (from, to) = (of(before, kind).unwrap_or(0), of(now, kind)?);
        (to > from).then_some((kind, from, to))
    })
}

/// Reads a group's own counters. Kernels before 5.2 have no memory.events.local; there memory.events of a group without
/// children says the same, and a group with children (`has_children`) is left out, since its count may be inherited.
///
/// # Errors
/// A failed read.
pub fn read(group: &Group, has_children: bool, buffer: &mut ReadBuf) -> Result<Option<Events>, ReadError> {
    match group.read(File::EventsLocal, buffer, parse::events)? {
        None if !has_children => group.read(File::Events, buffer, parse::events),
        local => Ok(local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counters_that_rose_are_told_with_both_values() {
        let before = Events { high: Some(3), max: Some(1), ..Events::default() };
        let now = Events { high: Some(5), max: Some(1), oom_kill: Some(1), ..Events::default() };
        let all: Vec<_> = risen(&before, &now).collect();
        assert_eq!(all, [(EventKind::High, 3, 5), (EventKind::OomKill, 0, 1)]);
        assert_eq!(risen(&now, &before).count(), 0);
    }
}
