//! The kernel module's level and counts as metrics.
//!
//! The module counts from its own loading, also while no daemon runs: what it says is taken over whole at first. Afterwards
//! only what was added since the last look is, so that a module that was loaded anew makes no counter fall.

use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntGauge, Registry};

use super::registry::{int_counter, int_counters, int_gauge, int_gauges};
use crate::policy::model::LmsLevel;
use crate::policy::words;
use crate::sense::lms::Report;

const LEVELS: [Option<LmsLevel>; 4] = [None, Some(LmsLevel::Warn), Some(LmsLevel::Kill), Some(LmsLevel::Oom)];

/// The handles, and what the module said last.
#[derive(Debug)]
pub(super) struct LmsMetrics {
    loaded: IntGauge,
    levels: [IntGauge; LEVELS.len()],
    resolved: IntCounter,
    expired: IntCounter,
    passed: IntCounter,
    table_kills: IntCounter,
    last: Mutex<Counts>,
}

/// What the module counts. None of it falls while it is loaded.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    seq: u64,
    resolved: u64,
    expired: u64,
    passed: u64,
    table_kills: u64,
}

impl LmsMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<LmsMetrics> {
        let levels = int_gauges(r, "oomwarden_lms_state", "The kernel module's level (1), and those that it is not (0).", "level")?;
        let holds = int_counters(
            r,
            "oomwarden_lms_holds_total",
            "OOMs of the node that the kernel module held back: resolved (memory came back), expired (no answer, or no effect, in time), passed (the daemon had nobody to kill).",
            &["outcome"],
        )?;
        Ok(LmsMetrics {
            loaded: int_gauge(r, "oomwarden_lms_loaded", "Whether the kernel module's low memory signal can be read (1) or not (0).")?,
            levels: LEVELS.map(|level| levels.with_label_values(&[words::lms_word(level)])),
            resolved: holds.with_label_values(&["resolved"]),
            expired: holds.with_label_values(&["expired"]),
            passed: holds.with_label_values(&["passed"]),
            table_kills: int_counter(
                r,
                "oomwarden_lms_table_kills_total",
                "Processes that the kernel module killed by the daemon's table, because no answer came.",
            )?,
            last: Mutex::default(),
        })
    }

    /// See [`super::counters::Counters::set_lms`].
    pub(super) fn set(&self, report: Option<&Report>) {
        self.loaded.set(i64::from(report.is_some()));
        for (level, gauge) in LEVELS.iter().zip(&self.levels) {
            gauge.set(i64::from(report.is_some_and(|report| report.level == *level)));
        }
        let Some(report) = report else { return };
        let now = Counts {
            seq: report.seq,
            resolved: report.holds_resolved,
            expired: report.holds_expired,
            passed: report.holds_passed,
            table_kills: report.table_kills,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *last, now);
        let fell = [
            (now.seq, before.seq),
            (now.resolved, before.resolved),
            (now.expired, before.expired),
            (now.passed, before.passed),
            (now.table_kills, before.table_kills),
        ]
        .iter()
        .any(|(now, before)| now < before);
        let before = if fell { Counts::default() } else { before };
        self.resolved.inc_by(now.resolved - before.resolved);
        self.expired.inc_by(now.expired - before.expired);
        self.passed.inc_by(now.passed - before.passed);
        self.table_kills.inc_by(now.table_kills - before.table_kills);
    }
}

#[cfg(test)]
mod tests;
