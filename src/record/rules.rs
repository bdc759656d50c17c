//! One rule's counters, resolved beforehand: counting looks nothing up, allocates nothing and waits for nobody.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use super::model::{JudgementRecord, Outcome, RungName, RungOutcome};

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

    /// An attempt to kill failed.
    pub fn failure(&self, reason: FailureReason) {
        self.failures[reason as usize].inc();
    }

    /// A phase took so long.
    pub fn observe(&self, phase: Phase, took: Duration) {
        self.phases[phase as usize].observe(took.as_secs_f64());
    }

    /// Counts all that one record tells. [`super::pool::Pool::submit`] does this, once for each record.
    pub(super) fn count(&self, record: &JudgementRecord) {
        self.judgement(record.outcome);
        let (processes, freed) = (u64::from(record.processes_killed.unwrap_or(0)), record.freed_bytes.unwrap_or(0));
        match record.outcome {
            Outcome::Killed => self.killed(processes, freed),
            // No victim was killed whole, but what died, died, and what left gave its memory back.
            Outcome::Ended | Outcome::Recovered | Outcome::Failed | Outcome::Paused => {
                self.processes.inc_by(processes);
                self.freed.inc_by(freed);
            }
            Outcome::NotConfirmed | Outcome::NoVictim | Outcome::Observed | Outcome::Breaker | Outcome::Hurried | Outcome::PutOff => {}
        }
        failures(record, |reason| self.failure(reason));
        let latency = record.latency;
        for (phase, took) in Phase::ALL.into_iter().zip([latency.notice, latency.decide, latency.kill, latency.empty]) {
            if let Some(took) = took {
                self.observe(phase, took);
            }
        }
    }
}

/// Calls `failed` for each attempt that failed. An attempt is a kill rung with the verify rung that follows: it counts
/// once, and not at all if the victim was found empty in the end.
fn failures(record: &JudgementRecord, mut failed: impl FnMut(FailureReason)) {
    let mut attempt = None;
    for rung in &record.rungs {
        match rung.name {
            RungName::Warn | RungName::Hook | RungName::Term => {}
            RungName::Kill => {
                if let Some(reason) = attempt.take() {
                    failed(reason);
                }
                attempt = FailureReason::of(rung.outcome);
            }
            // A kill that was refused is the reason for what verify then finds.
            RungName::Verify => match FailureReason::of(rung.outcome) {
                None => attempt = None,
                Some(reason) => attempt = attempt.or(Some(reason)),
            },
        }
    }
    if let Some(reason) = attempt {
        failed(reason);
    }
}

#[cfg(test)]
mod tests;
