//! Between the rungs of a ladder: is the trouble over, so that the last rung can be left out?
//!
//! Judged by the memory of the scope that was in trouble, not by the victim: a victim that is half gone may have been enough,
//! and one that is gone may not have been. Facts that could not be read never call a trouble over.

use std::time::Duration;

use super::conditions::{self, SubjectFacts};
use super::facts::{GroupFacts, NodeFacts};
use super::tree::Tree;
use super::verdict::Notice;
use crate::policy::model::{Condition, EventKind, LmsLevel, Rule, Trigger};
use crate::units::Share;

/// A scope that fell to this share of its limit has room again: the same line above which a group counts as being at its limit.
pub const HAS_ROOM: Share = conditions::AT_LIMIT;

/// And this share of the limit (of the node's memory, where the scope is the node) must have come back since the notice: what
/// is less may be the ebb and flow of reclaim.
pub const CAME_BACK: Share = Share::percent(5);

/// Full stall in more than this share of the time since the last look says that the trouble goes on, whatever the memory says.
pub const STILL_STALLING: Share = Share::percent(10);

/// What a recovery is judged by, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeFacts {
    /// The node.
    pub node: NodeFacts,
    /// The subject of the rule.
    pub subject: SubjectFacts,
    /// The scope is the root: its memory is the node's.
    pub root: bool,
    /// The scope's memory.current.
    pub current: Option<u64>,
    /// The smaller of the scope's own memory.max and memory.high.
    pub limit: Option<u64>,
    /// The scope's full stall since the last look, and the time since then; `None` where it isn't known.
    pub stall: Option<(Duration, Duration)>,
}

impl ScopeFacts {
    /// From the facts of a judgement; `subject` and `scope` are indices into `groups`. `None` if there are no such groups.
    #[must_use]
    pub fn of(groups: &[GroupFacts], node: &NodeFacts, subject: u32, scope: u32) -> Option<ScopeFacts> {
        let group = groups.get(scope as usize)?;
        Some(ScopeFacts {
            node: *node,
            subject: SubjectFacts::of(groups, subject)?,
            root: Tree(groups).parent(scope).is_none(),
            current: group.memory.current,
            limit: conditions::own_limit(&group.memory),
            stall: None,
        })
    }
}

/// Whether the trouble that `notice` told of is over. `before` are the facts at the verdict, `now` those after a rung.
///
/// - A notice that is a level (usage, available, swap_free): it, or a condition of the rule, is known not to hold any more.
/// - A level of the kernel module: it reports a better one, or a condition is known not to hold any more. An OOM is over when
///   the node is no longer at `kill`: that nobody asks for memory at the moment gave nothing back.
/// - Stall, and events of a shortage: the scope has room again ([`HAS_ROOM`]), enough came back ([`CAME_BACK`]), and it does not stall.
///   For the node MemAvailable must have grown above the rule's level, or by [`CAME_BACK`] where the rule names none.
/// - A kernel OOM kill: never. It isn't about a shortage but about a group that is no longer whole.
#[must_use]
pub fn recovered(notice: &Notice, rule: &Rule, before: &ScopeFacts, now: &ScopeFacts) -> bool {
    match notice {
        Notice::Event(EventKind::OomKill | EventKind::OomGroupKill, ..) => false,
        Notice::Usage(..) | Notice::Available(..) | Notice::SwapFree(..) => {
            conditions::notice_holds(notice, &now.subject, &now.node) == Some(false) || a_condition_ended(rule, now)
        }
        Notice::Lms(level) => now.node.lms.is_some_and(|lms| lms.level < Some(*level.min(&LmsLevel::Kill))) || a_condition_ended(rule, now),
        Notice::Psi(_) | Notice::Event(EventKind::Low | EventKind::High | EventKind::Max | EventKind::Oom, ..) => {
            !still_stalls(now) && memory_came_back(rule, before, now) == Some(true)
        }
    }
}

fn a_condition_ended(rule: &Rule, now: &ScopeFacts) -> bool {
    rule.only_if.iter().any(|condition| conditions::holds(condition, &now.subject, &now.node) == Some(false))
}

fn still_stalls(now: &ScopeFacts) -> bool {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    now.stall.is_some_and(|(stalled, over)| micros(stalled) > STILL_STALLING.of(micros(over)))
}

fn memory_came_back(rule: &Rule, before: &ScopeFacts, now: &ScopeFacts) -> Option<bool> {
    if now.root {
        let (was, is) = (before.node.available_bytes?, now.node.available_bytes?);
        let grown = is.saturating_sub(was);
        return Some(match level_of(rule, &now.node) {
            Some(level) => grown > 0 && is > level,
            None => grown > 0 && grown >= CAME_BACK.of(now.node.total_bytes),
        });
    }
    let (was, is, limit) = (before.current?, now.current?, now.limit?);
    Some(is <= HAS_ROOM.of(limit) && was.saturating_sub(is) >= CAME_BACK.of(limit))
}

/// The highest level of MemAvailable that the rule names, bytes.
fn level_of(rule: &Rule, node: &NodeFacts) -> Option<u64> {
    let conditions = rule.only_if.iter().filter_map(|condition| match condition {
        Condition::Available(level) => Some(level),
        _ => None,
    });
    let triggers = rule.when.iter().filter_map(|trigger| match trigger {
        Trigger::Available(level, _) => Some(level),
        _ => None,
    });
    conditions.chain(triggers).map(|level| level.bytes(node.total_bytes)).max()
}
