//! What a judgement ends in: a verdict with every candidate and the reason for its place.
//!
//! All of it is `Copy` data in buffers that the caller keeps, so that judging allocates nothing.

use std::time::Duration;

use super::facts::{GroupFacts, GroupId, NodeFacts};
use crate::policy::model::{EventKind, LmsLevel, Psi, UsageTest};

/// The notice that started the judgement, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A PSI trigger fired; the file's `total` of that kind as read just after, if it could be.
    Psi(Psi),
    /// The group's own counter rose from one value to another.
    Event(EventKind, u64, u64),
    /// Usage has been above the test for so long.
    Usage(UsageTest, Duration),
    /// MemAvailable has been below this many bytes for so long.
    Available(u64, Duration),
    /// SwapFree has been below this many bytes for so long.
    SwapFree(u64, Duration),
    /// The kernel module reported this level, which a trigger of the rule names, or a worse one.
    Lms(LmsLevel),
}

impl Notice {
    /// Whether it is a level, which a kill may not be able to lift. An OOM is none: the kernel
    /// kills anyway.
    #[must_use]
    pub fn is_level(&self) -> bool {
        match self {
            Notice::Usage(..) | Notice::Available(..) | Notice::SwapFree(..) => true,
            Notice::Lms(level) => *level < LmsLevel::Oom,
            Notice::Psi(_) | Notice::Event(..) => false,
        }
    }
}

/// Where a candidate stands, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the victim.
    Chosen,
    /// It could have been: it ranks behind the victim.
    Ranked,
    /// It can't be.
    Struck(Strike),
}

/// Why a group can't be the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Exclusion (index into the policy's) covers it.
    Excluded(u16),
    /// Exclusion (index) covers it by the comm of one of its processes.
    ExcludedByComm(u16),
    /// It contains a group that must live (index into the facts); its other children take its place.
    ContainsSpared(u32),
    /// It holds oomwarden itself.
    Own,
    /// The cgroup root.
    Root,
    /// It holds process 1.
    Init,
    /// It holds a process at oom_score_adj -1000.
    Unkillable,
    /// Its processes, or its memory, could not be looked at.
    Unknown,
    /// A threaded group, or one without the memory controller.
    NotMemcg,
    /// No process in it.
    Empty,
    /// A deed on it is under way already.
    Dying,
    /// Its memory dying would free less than the rule's `at_least`.
    TooSmall,
    /// It was tried in this ladder and could not be killed.
    Failed,
    /// It could die, but the level would stay even if all that could die did: see [`Relief`].
    InVain,
}

/// One candidate of a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index into the facts.
    pub group: u32,
    /// Identity.
    pub id: GroupId,
    /// Place and reason.
    pub standing: Standing,
    /// Strict importance: the largest of the group and of all that would die with it.
    pub importance: i64,
    /// It, or a group below it, is known to hold a process at [`super::process::SHIELDED`] or
    /// below: it ranks behind all others of its importance that do not.
    pub shielded: bool,
    /// anon + swap, bytes.
    pub usage_bytes: Option<u64>,
    /// Values of the rule's rank keys, in their order (the first four), as compared: bytes, bytes per second, microseconds for
    /// `pressure`, milliseconds for `age`; for the record.
    pub keys: [Option<i64>; 4],
}

/// How a judgement ended before any deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Kill this one: index into the facts.
    Kill(u32),
    /// Conditions did not hold on fresh facts.
    NotConfirmed,
    /// Nobody may be killed.
    NoVictim,
}

/// How much is missing until a level is lifted, and what killing could do about it, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relief {
    /// How much must come back.
    pub missing: u64,
    /// The most that all who may die could give back together; `None`: not known of one of them,
    /// which counts as enough.
    pub could_free: Option<u64>,
}

impl Relief {
    /// Whether the level would stay if all of them died.
    #[must_use]
    pub fn is_in_vain(&self) -> bool {
        self.could_free.is_some_and(|could_free| could_free < self.missing)
    }
}

/// How many groups are named that hold memory without a process.
pub const EMPTIED: usize = 3;

/// Less is not worth a name: a group that was just made holds some kilobytes.
pub const EMPTIED_AT_LEAST: u64 = 1 << 20;

/// A group without a process that holds memory: index into the facts, and memory.current.
pub type Emptied = (u32, u64);

/// Numbers that the decision rested on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The node.
    pub node: NodeFacts,
    /// The subject's memory.current, bytes.
    pub subject_current: Option<u64>,
    /// The subject's usage against limits (memory.current less what can be reclaimed), bytes.
    pub subject_charged: Option<u64>,
    /// The subject's tmpfs and shared memory, bytes.
    pub subject_shmem: Option<u64>,
    /// The subject's unreclaimable slab, bytes.
    pub subject_slab: Option<u64>,
    /// The smallest memory.max along the subject's ancestors, bytes.
    pub limit_max: Option<u64>,
    /// The smallest memory.high along the subject's ancestors, bytes.
    pub limit_high: Option<u64>,
    /// For a level: how much is missing, and whether the candidates could give it back.
    pub relief: Option<Relief>,
}

/// A verdict. Reused: [`super::Judge::judge`] clears it first.
#[derive(Debug)]
pub struct Verdict {
    /// Index of the rule.
    pub rule: u16,
    /// Index of the subject in the facts.
    pub subject: u32,
    /// What was decided.
    pub decision: Decision,
    /// The group whose shortage this is, index into the facts: the nearest of the subject and its ancestors that is at a
    /// limit, else the root. Trouble elsewhere under it is the same trouble.
    pub scope: u32,
    /// The numbers.
    pub evidence: Evidence,
    /// Every candidate: the chosen first, then the ranked in their order, then the struck.
    pub candidates: Vec<Candidate>,
    /// Where a kill would be in vain: the largest groups that hold memory without a process, the
    /// largest first.
    pub emptied: [Option<Emptied>; EMPTIED],
}

impl Verdict {
    /// Whether nobody dies because that would not lift the level.
    #[must_use]
    pub fn is_in_vain(&self) -> bool {
        self.decision == Decision::NoVictim && self.candidates.iter().any(|one| one.standing == Standing::Struck(Strike::InVain))
    }

    /// Notes which groups hold memory without a process, of those that were read and, for a level
    /// of the subject's own, that stand within it.
    pub fn note_emptied(&mut self, groups: &[GroupFacts], within: std::ops::Range<u32>) {
        self.emptied = [None; EMPTIED];
        let mut at = within.start;
        while at < within.end {
            let Some(group) = groups.get(at as usize) else { break };
            let held = group.memory.current.filter(|held| *held >= EMPTIED_AT_LEAST && group.populated == Some(false));
            let Some(held) = held else {
                at += 1;
                continue;
            };
            // What stands below it is part of it.
            let one = (at, held);
            at = group.subtree_end.max(at + 1);
            let place = self.emptied.iter().position(|other| other.is_none_or(|(_, other)| other < held));
            if let Some(rest) = place.and_then(|place| self.emptied.get_mut(place..)) {
                rest.rotate_right(1);
                rest[0] = Some(one);
            }
        }
    }

    /// An empty verdict with room for `candidates`: a tree never has more than it has groups.
    #[must_use]
    pub fn with_capacity(candidates: usize) -> Verdict {
        Verdict {
            rule: 0,
            subject: 0,
            decision: Decision::NoVictim,
            scope: 0,
            evidence: Evidence::default(),
            candidates: Vec::with_capacity(candidates),
            emptied: [None; EMPTIED],
        }
    }
}
