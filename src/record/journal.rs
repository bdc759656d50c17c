//! One line of the journal: JSON, one judgement, everything that is needed to understand it later.
//!
//! docs/journal.md describes the keys. The line is a pure function of the record and of [`Context`]. Names of groups are
//! escaped by [`crate::cgroup::path::GroupPath`]'s text form before JSON escapes them again, so that no name can end the
//! line or upset who prints it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::Serialize;

use super::facts::FactsLine;
use super::model::{JudgementRecord, RungRecord};
use super::words;
use crate::cgroup::path::GroupPath;
use crate::decide::verdict::Notice;
use crate::policy::model::Victim;
use crate::policy::words::{event_word, key_word, lms_word, psi_word};

/// What every line of one run has in common.
#[derive(Clone, Debug)]
pub struct Context {
    /// The machine's name.
    pub node: String,
    /// What makes the ids of this run differ from those of every other run on this machine.
    pub run: String,
}

impl Context {
    /// The context of this process: `node` if given (a cluster's name for the machine), else the host's name.
    #[must_use]
    pub fn of_this_process(node: Option<String>) -> Context {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default();
        // The time alone can be set back, and a pid alone comes again.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Context { node: node.unwrap_or_else(host), run: format!("{:x}-{:x}", since.as_micros(), std::process::id()) }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    id: String,
    time: String,
    node: &'a str,
    policy_hash: &'a str,
    kind: &'static str,
    rule: &'a str,
    trigger: String,
    subject: String,
    evidence: EvidenceLine,
    candidates: Vec<CandidateLine>,
    #[serde(skip_serializing_if = "is_zero")]
    candidates_left_out: u32,
    victim: Option<String>,
    identity: IdentityLine,
    rungs: Vec<RungLine>,
    outcome: &'static str,
    processes_killed: Option<u32>,
    processes_ended: Option<u32>,
    freed_bytes: Option<u64>,
    latency_us: LatencyLine,
    facts: FactsLine,
}

#[derive(Serialize, Default)]
struct EvidenceLine {
    node_total_bytes: u64,
    node_available_bytes: Option<u64>,
    swap_total_bytes: u64,
    swap_free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_shmem_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_slab_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_slab_unreclaimable_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lms_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lms_warn_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lms_kill_bytes: Option<u64>,
    subject_current_bytes: Option<u64>,
    subject_charged_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_shmem_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_slab_unreclaimable_bytes: Option<u64>,
    limit_max_bytes: Option<u64>,
    limit_high_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    could_free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held_without_process: Vec<EmptiedLine>,
    notice: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi_kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi_stall_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi_window_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice_level: Option<&'static str>,
}

/// A group that holds memory without a process.
#[derive(Serialize)]
struct EmptiedLine {
    group: String,
    current_bytes: u64,
}

#[derive(Serialize)]
struct CandidateLine {
    group: String,
    rank: Option<usize>,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    strike: Option<&'static str>,
    usage_bytes: Option<u64>,
    importance: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shielded: bool,
    keys: BTreeMap<&'static str, Option<i64>>,
}

/// Filled from the cluster's metadata, where there is a cluster.
#[derive(Serialize, Default)]
pub(super) struct IdentityLine {
    namespace: Option<String>,
    pod: Option<String>,
    pod_uid: Option<String>,
    container: Option<String>,
}

#[derive(Serialize)]
struct RungLine {
    name: &'static str,
    outcome: String,
    at_us: u64,
    took_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listeners: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_us: Option<u64>,
}

#[derive(Serialize)]
struct LatencyLine {
    notice: Option<u64>,
    decide: Option<u64>,
    kill: Option<u64>,
    empty: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// The record as one line of JSON, without the newline.
///
/// # Errors
/// None that is known: there is no map with keys that are not text, and no number that JSON lacks.
pub fn line(record: &JudgementRecord, context: &Context) -> serde_json::Result<String> {
    let latency = record.latency;
    serde_json::to_string(&Line {
        v: 1,
        id: format!("{}-{}", context.run, record.id),
        time: time_text(record.time),
        node: &context.node,
        policy_hash: &record.policy.hash,
        kind: "judgement",
        rule: record.rule().map_or("", |rule| &rule.name),
        trigger: words::trigger_text(record),
        subject: record.subject.to_string(),
        evidence: evidence(record),
        candidates: (0..record.candidates.len()).filter_map(|index| candidate(record, index)).collect(),
        candidates_left_out: record.left_out,
        victim: record.victim.as_ref().map(ToString::to_string),
        identity: IdentityLine::default(),
        rungs: record.rungs.iter().map(rung).collect(),
        outcome: record.outcome.word(),
        processes_killed: record.processes_killed,
        processes_ended: record.processes_ended,
        freed_bytes: record.freed_bytes,
        latency_us: LatencyLine {
            notice: latency.notice.map(micros),
            decide: latency.decide.map(micros),
            kill: latency.kill.map(micros),
            empty: latency.empty.map(micros),
        },
        facts: record.facts.line(&record.policy),
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// RFC 3339, UTC, always six digits of the second.
#[must_use]
pub fn time_text(time: SystemTime) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{timestamp:.6}")
}

fn evidence(record: &JudgementRecord) -> EvidenceLine {
    let seen = record.evidence;
    let mut line = EvidenceLine {
        node_total_bytes: seen.node.total_bytes,
        node_available_bytes: seen.node.available_bytes,
        swap_total_bytes: seen.node.swap_total_bytes,
        swap_free_bytes: seen.node.swap_free_bytes,
        node_shmem_bytes: seen.node.shmem_bytes,
        node_slab_bytes: seen.node.slab_bytes,
        node_slab_unreclaimable_bytes: seen.node.slab_unreclaimable_bytes,
        lms_level: seen.node.lms.map(|lms| lms_word(lms.level)),
        lms_warn_bytes: seen.node.lms.map(|lms| lms.warn_bytes),
        lms_kill_bytes: seen.node.lms.map(|lms| lms.kill_bytes),
        subject_current_bytes: seen.subject_current,
        subject_charged_bytes: seen.subject_charged,
        subject_shmem_bytes: seen.subject_shmem,
        subject_slab_unreclaimable_bytes: seen.subject_slab,
        missing_bytes: seen.relief.map(|relief| relief.missing),
        could_free_bytes: seen.relief.and_then(|relief| relief.could_free),
        held_without_process: emptied(record),
        limit_max_bytes: seen.limit_max,
        limit_high_bytes: seen.limit_high,
        ..EvidenceLine::default()
    };
    line.notice = words::notice_word(record.notice);
    match record.notice {
        Notice::Psi(psi) => {
            line.psi_kind = Some(psi_word(psi.kind));
            (line.psi_stall_us, line.psi_window_us) = (Some(micros(psi.stall)), Some(micros(psi.window)));
        }
        Notice::Lms(level) => line.notice_level = Some(lms_word(Some(level))),
        Notice::Event(kind, before, after) => {
            line.event = Some(event_word(kind));
            (line.count_before, line.count_after) = (Some(before), Some(after));
        }
        Notice::Usage(_, held) => line.held_us = Some(micros(held)),
        Notice::Available(level, held) | Notice::SwapFree(level, held) => {
            (line.level_bytes, line.held_us) = (Some(level), Some(micros(held)));
        }
    }
    line
}

fn emptied(record: &JudgementRecord) -> Vec<EmptiedLine> {
    let line = |(group, bytes): &(GroupPath, u64)| EmptiedLine { group: group.to_string(), current_bytes: *bytes };
    record.emptied.iter().flatten().map(line).collect()
}

fn candidate(record: &JudgementRecord, index: usize) -> Option<CandidateLine> {
    let candidate = record.candidates.get(index)?;
    let keys = match record.rule().map(|rule| &rule.victim) {
        Some(Victim::Among(among)) => among.rank.iter().map(|by| key_word(by.key)).zip(candidate.keys).collect(),
        _ => BTreeMap::new(),
    };
    Some(CandidateLine {
        group: candidate.group.to_string(),
        rank: words::rank(&record.candidates, index),
        reason: words::reason(record, index),
        strike: words::strike_word(candidate.standing),
        usage_bytes: candidate.usage_bytes,
        importance: candidate.importance,
        shielded: candidate.shielded,
        keys,
    })
}

fn rung(rung: &RungRecord) -> RungLine {
    RungLine {
        name: words::rung_word(rung.name),
        outcome: words::rung_outcome(rung.outcome),
        at_us: micros(rung.at),
        took_us: micros(rung.took),
        processes: rung.processes,
        listeners: rung.listeners,
        sent_us: rung.sent.map(micros),
    }
}

#[cfg(test)]
mod tests;
