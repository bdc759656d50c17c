//! What a judgement ends in: a verdict with every candidate and the reason for its place.
//!
//! All of it is `Copy` data in buffers that the caller keeps, so that judging allocates nothing.

use std::time::Duration;

use super::facts::{GroupId, NodeFacts};
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

/// Numbers that the decision rested on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The node.
    pub node: NodeFacts,
    /// The subject's memory.current, bytes.
    pub subject_current: Option<u64>,
    /// The subject's usage against limits (memory.current less easily reclaimed cache), bytes.
    pub subject_charged: Option<u64>,
    /// The smallest memory.max along the subject's ancestors, bytes.
    pub limit_max: Option<u64>,
    /// The smallest memory.high along the subject's ancestors, bytes.
    pub limit_high: Option<u64>,
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
}

impl Verdict {
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
        }
    }
}
