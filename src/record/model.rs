//! What is recorded of one judgement. Slots are made once and reused, so that recording allocates nothing on the warden.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cgroup::path::GroupPath;
use crate::decide::facts::GroupId;
use crate::decide::verdict::{Evidence, Notice, Standing};
use crate::policy::model::Policy;

/// How a judgement ended, deeds included: the journal's `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The victim is gone, verified.
    Killed,
    /// The trouble ended on a lower rung.
    Recovered,
    /// The conditions did not hold on fresh facts.
    NotConfirmed,
    /// Nobody may be killed.
    NoVictim,
    /// A deed was tried and the victim lives on.
    Failed,
    /// The verdict stands, the mode forbids the deed.
    Observed,
}

/// A rung's name in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RungName {
    /// SIGTERM and grace.
    Term,
    /// SIGKILL.
    Kill,
    /// Waiting for `populated 0`.
    Verify,
}

/// How a rung ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RungOutcome {
    /// It did what it is for.
    Done,
    /// The victim is empty, or gone.
    Empty,
    /// The trouble is over.
    Recovered,
    /// Its time ran out.
    Deadline,
    /// The system refused: an errno.
    Errno(i32),
    /// The daemon was told to stop.
    Interrupted,
}

/// One rung as it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RungRecord {
    /// Which.
    pub name: RungName,
    /// How it ended.
    pub outcome: RungOutcome,
    /// Begin, counted from the notice.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// Processes signalled by it, where it signals.
    pub processes: Option<u32>,
}

/// Times from the notice's arrival (epoll returned) to each phase's end; for `notice`: from the arrival to the begin of the judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// To the begin of the judgement.
    pub notice: Option<Duration>,
    /// To the verdict.
    pub decide: Option<Duration>,
    /// To the kill having been written or signalled.
    pub kill: Option<Duration>,
    /// To `populated 0`.
    pub empty: Option<Duration>,
}

/// A candidate as recorded: with its name, since the group may be gone when the line is written.
#[derive(Clone, Debug)]
pub struct RecordedCandidate {
    /// Path below the cgroup root.
    pub group: GroupPath,
    /// Identity.
    pub id: GroupId,
    /// Place and reason. The index inside `ContainsSpared` is an index into the *facts* and means nothing here: see `spared`.
    pub standing: Standing,
    /// Which group below must live, for `ContainsSpared`.
    pub spared: Option<GroupPath>,
    /// Strict importance.
    pub importance: i64,
    /// anon + swap.
    pub usage_bytes: Option<u64>,
    /// Values of the rule's rank keys.
    pub keys: [Option<i64>; 4],
}

/// How many rungs one record holds; a ladder has fewer.
pub const MAX_RUNGS: usize = 16;

/// One judgement, from notice to verified end.
#[derive(Debug)]
pub struct JudgementRecord {
    /// Rising, unique within one run of the daemon.
    pub id: u64,
    /// When the notice arrived.
    pub time: SystemTime,
    /// The policy it was judged by.
    pub policy: Arc<Policy>,
    /// Index of the rule.
    pub rule: u16,
    /// The subject.
    pub subject: GroupPath,
    /// What started it.
    pub notice: Notice,
    /// The numbers it rested on.
    pub evidence: Evidence,
    /// All candidates, the chosen first.
    pub candidates: Vec<RecordedCandidate>,
    /// The group that was killed, or would have been; with several tries the last.
    pub victim: Option<GroupPath>,
    /// Rungs in order.
    pub rungs: Vec<RungRecord>,
    /// The end.
    pub outcome: Outcome,
    /// Processes that were in the victim when the kill began and are gone; for a single process 1.
    pub processes_killed: Option<u32>,
    /// What the node, or the scope of the trouble, got back: anon + swap of the victim before, less after.
    pub freed_bytes: Option<u64>,
    /// Latencies.
    pub latency: Latency,
}
