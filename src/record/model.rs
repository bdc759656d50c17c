//! What is recorded of one judgement. Slots are made once and reused, so that recording allocates nothing on the warden.
//!
//! [`JudgementRecord::fill`] copies a verdict into a slot, names instead of indices, because the facts are gone when the
//! line is written. What can't be known yet (rungs, the end, the latencies after the verdict) the warden adds while the
//! ladder is climbed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::facts::RecordedFacts;
pub use crate::act::outcome::Outcome;
pub use crate::act::rung::{RungName, RungOutcome, RungRecord};
use crate::cgroup::path::GroupPath;
use crate::decide::facts::{GroupFacts, GroupId};
use crate::decide::verdict::{Decision, EMPTIED, Evidence, Notice, Standing, Strike, Verdict};
use crate::metrics::rules::RuleCounters;
use crate::policy::model::{Mode, Policy, Rule};

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
    /// It, or a group below it, holds a process that is shielded by its oom_score_adj.
    pub shielded: bool,
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
    /// Rising, unique within one run of the daemon; given by the pool.
    pub id: u64,
    /// When the notice arrived.
    pub time: SystemTime,
    /// The policy it was judged by.
    pub policy: Arc<Policy>,
    /// The counters of that policy's rules: a ladder may outlive a reload and still counts for the rule that began it.
    pub counters: Arc<[RuleCounters]>,
    /// Index of the rule.
    pub rule: u16,
    /// The subject.
    pub subject: GroupPath,
    /// What started it.
    pub notice: Notice,
    /// The numbers it rested on.
    pub evidence: Evidence,
    /// All candidates, the chosen first. Never grown on the warden: see [`JudgementRecord::set_candidates`].
    pub candidates: Vec<RecordedCandidate>,
    /// Candidates that found no room in the slot: more groups came than the pool had been told of.
    pub left_out: u32,
    /// Where a kill would be in vain: the largest groups that hold memory without a process, and
    /// how much.
    pub emptied: [Option<(GroupPath, u64)>; EMPTIED],
    /// What the judgement saw of the groups that it turned on, for judging it again.
    pub facts: RecordedFacts,
    /// The group that was killed, or would have been; with several tries the last.
    pub victim: Option<GroupPath>,
    /// Rungs in order; see [`JudgementRecord::push_rung`].
    pub rungs: Vec<RungRecord>,
    /// The end.
    pub outcome: Outcome,
    /// Processes that were in the victim when SIGKILL went out and are gone; 0 where it reached
    /// nobody.
    pub processes_killed: Option<u32>,
    /// Processes that were in the victim at the verdict and left by themselves before SIGKILL went
    /// out, as far as the two counts tell.
    pub processes_ended: Option<u32>,
    /// What the node, or the scope of the trouble, got back: anon + swap of the victim before, less after.
    pub freed_bytes: Option<u64>,
    /// Latencies.
    pub latency: Latency,
}

/// What an unused slot points at, so that it keeps nothing of its last judgement alive.
#[derive(Debug)]
pub struct Blank {
    policy: Arc<Policy>,
    counters: Arc<[RuleCounters]>,
    root: GroupPath,
}

impl Default for Blank {
    fn default() -> Blank {
        let policy = Policy {
            hash: Arc::from(""),
            mode: Mode::Observe,
            exclude: Vec::new(),
            importance: Vec::new(),
            rules: Vec::new(),
            oom_group: None,
            node_limit: None,
            kill_one_in: None,
            oomd_xattrs: true,
            hold: None,
            limit: None,
        };
        Blank { policy: Arc::new(policy), counters: Arc::from([]), root: GroupPath::root() }
    }
}

impl Blank {
    /// A new slot with room for `candidates`, its memory touched. Allocates.
    #[must_use]
    pub fn slot(&self, candidates: usize) -> Box<JudgementRecord> {
        let mut slot = Box::new(JudgementRecord {
            id: 0,
            time: SystemTime::UNIX_EPOCH,
            policy: Arc::clone(&self.policy),
            counters: Arc::clone(&self.counters),
            rule: 0,
            subject: self.root.clone(),
            notice: Notice::Available(0, Duration::ZERO),
            evidence: Evidence::default(),
            candidates: Vec::new(),
            left_out: 0,
            emptied: [None, None, None],
            facts: RecordedFacts::default(),
            victim: None,
            rungs: Vec::with_capacity(MAX_RUNGS),
            outcome: Outcome::NotConfirmed,
            processes_killed: None,
            processes_ended: None,
            freed_bytes: None,
            latency: Latency::default(),
        });
        self.make_room(&mut slot, candidates);
        slot.rungs.resize(MAX_RUNGS, RungRecord::BLANK);
        slot.rungs.clear();
        slot
    }

    /// Empties a slot; its buffers stay.
    pub fn clear(&self, slot: &mut JudgementRecord) {
        slot.time = SystemTime::UNIX_EPOCH;
        slot.policy = Arc::clone(&self.policy);
        slot.counters = Arc::clone(&self.counters);
        slot.rule = 0;
        slot.subject = self.root.clone();
        slot.notice = Notice::Available(0, Duration::ZERO);
        slot.evidence = Evidence::default();
        slot.candidates.clear();
        slot.left_out = 0;
        slot.emptied = [None, None, None];
        slot.facts.groups.clear();
        slot.facts.left_out = 0;
        slot.victim = None;
        slot.rungs.clear();
        slot.outcome = Outcome::NotConfirmed;
        (slot.processes_killed, slot.processes_ended) = (None, None);
        slot.freed_bytes = None;
        slot.latency = Latency::default();
    }

    /// Grows a slot's buffer to `candidates` in all and touches the new memory, so that filling it later takes no page
    /// fault. Allocates; what the slot holds stays.
    pub fn make_room(&self, slot: &mut JudgementRecord, candidates: usize) {
        slot.facts.make_room(candidates, &self.root);
        if slot.candidates.capacity() >= candidates {
            return;
        }
        let held = slot.candidates.len();
        let filler = RecordedCandidate {
            group: self.root.clone(),
            id: GroupId(0),
            standing: Standing::Struck(Strike::Root),
            spared: None,
            importance: 0,
            shielded: false,
            usage_bytes: None,
            keys: [None; 4],
        };
        slot.candidates.resize(candidates, filler);
        slot.candidates.truncate(held);
    }
}

impl JudgementRecord {
    /// Whether there is room for `candidates`.
    #[must_use]
    pub fn has_room(&self, candidates: usize) -> bool {
        self.candidates.capacity() >= candidates && self.facts.has_room(candidates)
    }

    /// Moves what it holds into the buffers of a larger slot, which gets its own. Allocates and frees nothing.
    pub fn trade_buffers(&mut self, larger: &mut JudgementRecord) {
        larger.candidates.append(&mut self.candidates);
        std::mem::swap(&mut self.candidates, &mut larger.candidates);
        self.facts.trade_buffers(&mut larger.facts);
    }

    /// Copies a verdict into this slot; allocates nothing. The outcome is set to what it is if nothing more happens:
    /// `Failed` for a verdict that is to be carried out, until the warden knows better.
    pub fn fill(
        &mut self,
        time: SystemTime,
        policy: &Arc<Policy>,
        counters: &Arc<[RuleCounters]>,
        notice: Notice,
        verdict: &Verdict,
        facts: &[GroupFacts],
    ) {
        self.time = time;
        self.policy = Arc::clone(policy);
        self.counters = Arc::clone(counters);
        self.rule = verdict.rule;
        if let Some(subject) = facts.get(verdict.subject as usize) {
            self.subject = subject.path.clone();
        }
        self.notice = notice;
        self.evidence = verdict.evidence;
        self.set_candidates(verdict, facts);
        self.outcome = match verdict.decision {
            Decision::NotConfirmed => Outcome::NotConfirmed,
            Decision::NoVictim => Outcome::NoVictim,
            Decision::Kill(_) if self.rule().is_some_and(|rule| rule.mode == Mode::Observe) => Outcome::Observed,
            Decision::Kill(_) => Outcome::Failed,
        };
    }

    /// Takes candidates, their facts and victim from a verdict, instead of those that the slot holds: at first, and again when a
    /// victim could not be killed and the next one follows. What the slot has no room for is counted in `left_out`.
    pub fn set_candidates(&mut self, verdict: &Verdict, facts: &[GroupFacts]) {
        self.facts.take(verdict, facts);
        self.candidates.clear();
        self.left_out = 0;
        self.emptied = verdict.emptied.map(|one| one.and_then(|(at, bytes)| Some((facts.get(at as usize)?.path.clone(), bytes))));
        for candidate in &verdict.candidates {
            let Some(group) = facts.get(candidate.group as usize) else { continue };
            if self.candidates.len() == self.candidates.capacity() {
                self.left_out = self.left_out.saturating_add(1);
                continue;
            }
            let spared = match candidate.standing {
                Standing::Struck(Strike::ContainsSpared(index)) => facts.get(index as usize).map(|spared| spared.path.clone()),
                _ => None,
            };
            self.candidates.push(RecordedCandidate {
                group: group.path.clone(),
                id: candidate.id,
                standing: candidate.standing,
                spared,
                importance: candidate.importance,
                shielded: candidate.shielded,
                usage_bytes: candidate.usage_bytes,
                keys: candidate.keys,
            });
        }
        if let Decision::Kill(index) = verdict.decision {
            self.victim = facts.get(index as usize).map(|victim| victim.path.clone());
        }
    }

    /// Takes over what another slot holds, but for its id; allocates nothing, and leaves out candidates that find no room.
    pub fn copy_from(&mut self, other: &JudgementRecord) {
        self.time = other.time;
        self.policy = Arc::clone(&other.policy);
        self.counters = Arc::clone(&other.counters);
        (self.rule, self.subject, self.notice, self.evidence) = (other.rule, other.subject.clone(), other.notice, other.evidence);
        let room = self.candidates.capacity();
        self.candidates.clear();
        self.candidates.extend(other.candidates.iter().take(room).cloned());
        let more = u32::try_from(other.candidates.len().saturating_sub(room)).unwrap_or(u32::MAX);
        self.left_out = other.left_out.saturating_add(more);
        self.emptied.clone_from(&other.emptied);
        self.victim.clone_from(&other.victim);
        self.rungs.clear();
        other.rungs.iter().for_each(|rung| self.push_rung(*rung));
        (self.outcome, self.freed_bytes, self.latency) = (other.outcome, other.freed_bytes, other.latency);
        (self.processes_killed, self.processes_ended) = (other.processes_killed, other.processes_ended);
    }

    /// Adds a rung; beyond [`MAX_RUNGS`] the last one is overwritten, because the end tells more than the middle.
    pub fn push_rung(&mut self, rung: RungRecord) {
        if self.rungs.len() < MAX_RUNGS.min(self.rungs.capacity()) {
            self.rungs.push(rung);
        } else if let Some(last) = self.rungs.last_mut() {
            *last = rung;
        }
    }

    /// The rule it was judged by.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        self.policy.rules.get(usize::from(self.rule))
    }

    /// Whether it belongs in the journal: everything that led to a deed, would have, or should have. A judgement whose
    /// conditions did not hold is ordinary life.
    #[must_use]
    pub fn is_for_the_journal(&self) -> bool {
        self.outcome != Outcome::NotConfirmed
    }
}
