//! What one record counts for its rule.

use super::model::{JudgementRecord, Outcome, RungName};
use crate::metrics::rules::{FailureReason, Phase, RuleCounters};

/// Counts all that one record tells. [`crate::record::pool::Pool::submit`] does this, once for each record.
pub(super) fn count(counters: &RuleCounters, record: &JudgementRecord) {
    counters.judgement(record.outcome);
    let (processes, freed) = (u64::from(record.processes_killed.unwrap_or(0)), record.freed_bytes.unwrap_or(0));
    match record.outcome {
        Outcome::Killed => counters.killed(processes, freed),
        // No victim was killed whole, but what died, died, and what left gave its memory back.
        Outcome::Ended | Outcome::Recovered | Outcome::Failed | Outcome::Paused => {
            counters.gave_back(processes, freed);
        }
        Outcome::NotConfirmed | Outcome::NoVictim | Outcome::Observed | Outcome::Breaker | Outcome::Hurried | Outcome::PutOff => {}
    }
    failures(record, |reason| counters.failure(reason));
    let latency = record.latency;
    for (phase, took) in Phase::ALL.into_iter().zip([latency.notice, latency.decide, latency.kill, latency.empty]) {
        if let Some(took) = took {
            counters.observe(phase, took);
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
