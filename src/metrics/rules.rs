//! One rule's counters, resolved beforehand: counting looks nothing up, allocates nothing and waits for nobody.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use crate::act::outcome::Outcome;
use crate::act::rung::RungOutcome;

/// A phase of a reaction, as the label of `oomwarden_reaction_duration_seconds` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the notice's arrival to the begin of the judgement.
    Notice,
    /// To the verdict.
    Decide,
    /// To the kill.
    Kill,
    /// To `populated 0`.
    Empty,
}

impl Phase {
    /// All phases, in their order.
    pub const ALL: [Phase; 4] = [Phase::Notice, Phase::Decide, Phase::Kill, Phase::Empty];

    /// The label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Phase::Notice => "notice",
            Phase::Decide => "decide",
            Phase::Kill => "kill",
            Phase::Empty => "empty",
        }
    }
}

/// Why an attempt to kill failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// EPERM or EACCES.
    Denied,
    /// Not empty when the time ran out.
    Deadline,
    /// The daemon was told to stop.
    Interrupted,
    /// Any other errno.
    Error,
}

impl FailureReason {
    /// All reasons, in their order.
    pub const ALL: [FailureReason; 4] = [FailureReason::Denied, FailureReason::Deadline, FailureReason::Interrupted, FailureReason::Error];

    /// The label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            FailureReason::Denied => "denied",
            FailureReason::Deadline => "deadline",
            FailureReason::Interrupted => "interrupted",
            FailureReason::Error => "error",
        }
    }

    /// The failure that a rung's end means, if it means one.
    #[must_use]
    pub fn of(outcome: RungOutcome) -> Option<FailureReason> {
        match outcome {
            RungOutcome::Done
            | RungOutcome::Empty
            | RungOutcome::Recovered
            | RungOutcome::Overtaken
            | RungOutcome::Spared
            | RungOutcome::Paused
            | RungOutcome::Nobody => None,
            RungOutcome::Deadline => Some(FailureReason::Deadline),
            RungOutcome::Interrupted => Some(FailureReason::Interrupted),
            RungOutcome::Errno(libc::EPERM | libc::EACCES) => Some(FailureReason::Denied),
            RungOutcome::Errno(_) | RungOutcome::Exit(_) | RungOutcome::Signal(_) | RungOutcome::NoHelper => Some(FailureReason::Error),
        }
    }
}

/// The counters of one rule. See [`super::counters::Counters::for_policy`].
#[derive(Clone, Debug)]
pub struct RuleCounters {
    pub(super) triggers: Box<[IntCounter]>,
    pub(super) judgements: [IntCounter; Outcome::ALL.len()],
    pub(super) kills: IntCounter,
    pub(super) processes: IntCounter,
    pub(super) freed: IntCounter,
    pub(super) failures: [IntCounter; FailureReason::ALL.len()],
    pub(super) phases: [Histogram; Phase::ALL.len()],
}

impl RuleCounters {
    /// The trigger with this index among the rule's `when` gave notice.
    pub fn trigger_event(&self, trigger: usize) {
        if let Some(counter) = self.triggers.get(trigger) {
            counter.inc();
        }
    }

    /// A judgement ended like this.
    pub fn judgement(&self, outcome: Outcome) {
        self.judgements[outcome.index()].inc();
    }

    /// A victim died.
    pub fn killed(&self, processes: u64, freed_bytes: u64) {
        self.kills.inc();
        self.processes.inc_by(processes);
        self.freed.inc_by(freed_bytes);
    }

    /// Processes died and memory came back, though no victim was killed whole.
    pub fn gave_back(&self, processes: u64, freed_bytes: u64) {
        self.processes.inc_by(processes);
        self.freed.inc_by(freed_bytes);
    }

    /// An attempt to kill failed.
    pub fn failure(&self, reason: FailureReason) {
        self.failures[reason as usize].inc();
    }

    /// A phase took so long.
    pub fn observe(&self, phase: Phase, took: Duration) {
        self.phases[phase as usize].observe(took.as_secs_f64());
    }
}
