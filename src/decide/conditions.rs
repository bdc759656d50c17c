//! Step 2: does the trouble still stand on fresh facts, and whose is it?
//!
//! A test on facts that could not be read is neither true nor false. To start a judgement every condition must be known
//! to hold; to call a trouble over ([`super::recovery`]) one of them must be known to have ended.

use super::facts::{GroupFacts, Limit, MemoryFacts, NodeFacts};
use super::tree::Tree;
use super::verdict::{Evidence, Notice};
use crate::policy::model::{Condition, EventKind, Level, LmsLevel, Rule, UsageOf, UsageTest};
use crate::units::Share;

/// A group at this share of its own memory.max or memory.high is at its limit: the shortage is the group's own. The kernel
/// reclaims in batches and keeps per-CPU reserves, so a group that can't get on often reads a few percent below.
pub const AT_LIMIT: Share = Share::percent(90);

/// The node's PSI, or the kernel module's first level, starts nothing unless MemAvailable is below this share of the memory too (or the rule names a level of
/// its own in `only_if`): pressure of the whole node also rises when a single group thrashes at its own limit, or through I/O.
pub const NODE_IS_LOW: Share = Share::percent(10);

/// The numbers of a subject that conditions are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectFacts {
    /// The subject is the root: it stands for the node.
    pub root: bool,
    /// memory.current.
    pub current: Option<u64>,
    /// memory.current less what can be reclaimed.
    pub charged: Option<u64>,
    /// memory.stat `shmem`.
    pub shmem: Option<u64>,
    /// memory.stat `slab_unreclaimable`.
    pub slab: Option<u64>,
    /// The smallest memory.max of the subject and its ancestors; `None`: one of them could not be read.
    pub max: Option<Limit>,
    /// The smallest memory.high, likewise.
    pub high: Option<Limit>,
}

impl SubjectFacts {
    /// Those of the group at index `subject`; `None` if there is no such group.
    #[must_use]
    pub fn of(groups: &[GroupFacts], subject: u32) -> Option<SubjectFacts> {
        let group = groups.get(subject as usize)?;
        let tree = Tree(groups);
        Some(SubjectFacts {
            root: group.is_root(),
            current: group.memory.current,
            charged: group.memory.charged(),
            shmem: group.memory.shmem,
            slab: group.memory.slab,
            max: smallest(tree, subject, |memory| memory.max),
            high: smallest(tree, subject, |memory| memory.high),
        })
    }

    /// As evidence for the record.
    #[must_use]
    pub fn evidence(&self, node: &NodeFacts) -> Evidence {
        Evidence {
            node: *node,
            subject_current: self.current,
            subject_charged: self.charged,
            subject_shmem: self.shmem,
            subject_slab: self.slab,
            limit_max: self.max.and_then(Limit::bytes),
            limit_high: self.high.and_then(Limit::bytes),
            relief: None,
        }
    }
}

/// The smallest limit along the group and its ancestors; `None` if one that should be there could not be read. The root
/// need not have one, and groups without the memory controller have none.
fn smallest(tree: Tree<'_>, subject: u32, limit: impl Fn(&MemoryFacts) -> Option<Limit>) -> Option<Limit> {
    let mut smallest = Limit::Unlimited;
    for group in tree.line(subject).map(|at| tree.group(at)) {
        match limit(&group.memory) {
            Some(Limit::Bytes(bytes)) => smallest = Limit::Bytes(smallest.bytes().map_or(bytes, |least| least.min(bytes))),
            Some(Limit::Unlimited) => {}
            None if group.is_root() || !group.has_memory => {}
            None => return None,
        }
    }
    Some(smallest)
}

/// Whether the notice, as far as it can be checked again, and every condition of the rule are known to hold.
#[must_use]
pub fn confirmed(rule: &Rule, notice: &Notice, subject: &SubjectFacts, node: &NodeFacts) -> bool {
    let stands = match (notice, notice_holds(notice, subject, node)) {
        (Notice::Psi(_) | Notice::Event(..), _) => true,
        // The kernel has told it. Only its own word that the level is a better one by now takes it back.
        (Notice::Lms(_), holds) => holds != Some(false),
        (_, holds) => holds == Some(true),
    };
    stands
        && rule.only_if.iter().all(|condition| holds(condition, subject, node) == Some(true))
        && corroborated(rule, notice, subject, node)
}

/// Whether what the notice says is true now; `None` where that can't be told: stall and events have happened, and facts may be
/// unreadable.
#[must_use]
pub fn notice_holds(notice: &Notice, subject: &SubjectFacts, node: &NodeFacts) -> Option<bool> {
    match notice {
        Notice::Psi(_) | Notice::Event(..) => None,
        Notice::Usage(test, _) => usage_above(test, subject, node),
        Notice::Available(bytes, _) => Some(node.available_bytes? < *bytes),
        Notice::SwapFree(bytes, _) if is_beyond_swap(*bytes, node) => Some(false),
        Notice::SwapFree(bytes, _) => Some(node.swap_free_bytes? < *bytes),
        Notice::Lms(level) => Some(node.lms?.level >= Some(*level)),
    }
}

/// Whether a condition holds; `None` if the facts it needs could not be read.
#[must_use]
pub fn holds(condition: &Condition, subject: &SubjectFacts, node: &NodeFacts) -> Option<bool> {
    match condition {
        Condition::Usage(test) => usage_above(test, subject, node),
        Condition::Available(level) => available_below(level, node),
        // Where there is no swap, none can help.
        Condition::SwapFree(_) if node.swap_total_bytes == 0 => Some(true),
        Condition::SwapFree(level) => Some(node.swap_free_bytes? < level.bytes(node.swap_total_bytes)),
    }
}

/// Whether MemAvailable is below the level.
pub(super) fn available_below(level: &Level, node: &NodeFacts) -> Option<bool> {
    Some(node.available_bytes? < level.bytes(node.total_bytes))
}

/// Whether a level of free swap is not smaller than all the swap there is, so that it is reached
/// whatever happens. Then it tells of no trouble and starts nothing: there is no swap, or little,
/// and it may have been switched off while we ran.
#[must_use]
pub const fn is_beyond_swap(level: u64, node: &NodeFacts) -> bool {
    level >= node.swap_total_bytes
}

fn usage_above(test: &UsageTest, subject: &SubjectFacts, node: &NodeFacts) -> Option<bool> {
    match threshold(test, subject, node)? {
        Limit::Unlimited => Some(false),
        Limit::Bytes(above) => Some(usage(subject, node)? > above),
    }
}

/// Above how much usage a test holds; unlimited: never. `None`: a limit could not be read.
pub(super) fn threshold(test: &UsageTest, subject: &SubjectFacts, node: &NodeFacts) -> Option<Limit> {
    let (share, of) = match test {
        UsageTest::Amount(bytes) => return Some(Limit::Bytes(bytes.0)),
        UsageTest::Share(share, of) => (share, of),
    };
    let whole = match of {
        UsageOf::Max | UsageOf::High if subject.root => Limit::Unlimited,
        UsageOf::Max => subject.max?,
        UsageOf::High => subject.high?,
        UsageOf::Node if node.total_bytes == 0 => return None,
        UsageOf::Node => Limit::Bytes(node.total_bytes),
    };
    Some(whole.bytes().map_or(Limit::Unlimited, |bytes| Limit::Bytes(share.of(bytes))))
}

/// The usage that is compared with limits: the node's for the root.
pub(super) fn usage(subject: &SubjectFacts, node: &NodeFacts) -> Option<u64> {
    if subject.root { node.total_bytes.checked_sub(node.available_bytes?) } else { subject.charged }
}

/// Node PSI alone kills nobody, nor does the kernel module's first level: the node must be low on memory besides. The levels
/// that follow say so themselves.
fn corroborated(rule: &Rule, notice: &Notice, subject: &SubjectFacts, node: &NodeFacts) -> bool {
    let early = match notice {
        Notice::Psi(_) => subject.root,
        Notice::Lms(level) => *level == LmsLevel::Warn,
        _ => false,
    };
    let names_a_level = rule.only_if.iter().any(|condition| matches!(condition, Condition::Available(_)));
    let low = Level { share: Some(NODE_IS_LOW), at_most: None };
    !early || names_a_level || available_below(&low, node) == Some(true)
}

/// Whose shortage it is: the nearest of the subject and its ancestors that is at a limit of its own ([`AT_LIMIT`], by
/// memory.current: what the kernel counts), else the root. A kernel OOM kill is the subject's own affair: the group is no longer whole.
/// What the kernel module reports is always the root's.
pub(super) fn scope(groups: &[GroupFacts], subject: u32, notice: &Notice) -> u32 {
    if matches!(notice, Notice::Event(EventKind::OomKill | EventKind::OomGroupKill, ..)) {
        return subject;
    }
    if matches!(notice, Notice::Lms(_)) {
        return 0;
    }
    let tree = Tree(groups);
    tree.line(subject).find(|at| at_limit(&tree.group(*at).memory)).unwrap_or(0)
}

fn at_limit(memory: &MemoryFacts) -> bool {
    let (Some(current), Some(limit)) = (memory.current, own_limit(memory)) else { return false };
    current >= AT_LIMIT.of(limit)
}

/// The smaller of a group's own memory.max and memory.high, bytes.
pub(super) fn own_limit(memory: &MemoryFacts) -> Option<u64> {
    let (max, high) = (memory.max.and_then(Limit::bytes), memory.high.and_then(Limit::bytes));
    max.into_iter().chain(high).min()
}
