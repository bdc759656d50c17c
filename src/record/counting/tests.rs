use std::sync::Arc;

use super::super::model::RungOutcome;
use super::*;
use crate::metrics::counters::Counters;
use crate::record::model::RungRecord;
use crate::record::testing::{self, killed, policy};

fn rungs(record: &mut JudgementRecord, rungs: &[(RungName, RungOutcome)]) {
    record.rungs.clear();
    for (name, outcome) in rungs.iter().copied() {
        record.push_rung(RungRecord { name, outcome, ..RungRecord::BLANK });
    }
}

fn failed(attempts: &[(RungName, RungOutcome)]) -> Vec<FailureReason> {
    let mut record = killed();
    rungs(&mut record, attempts);
    let mut reasons = Vec::new();
    failures(&record, |reason| reasons.push(reason));
    reasons
}

#[test]
fn an_attempt_fails_once_and_for_its_first_reason() {
    use RungName::{Kill, Term, Verify};
    use RungOutcome::{Deadline, Done, Empty, Errno, Interrupted};
    assert_eq!(failed(&[]), []);
    assert_eq!(failed(&[(Term, Deadline), (Kill, Done), (Verify, Empty)]), []);
    assert_eq!(failed(&[(Kill, Errno(libc::EPERM)), (Verify, Deadline)]), [FailureReason::Denied]);
    assert_eq!(failed(&[(Kill, Errno(libc::ENODEV))]), [FailureReason::Error]);
    assert_eq!(failed(&[(Kill, Errno(libc::EIO)), (Verify, Empty)]), []);
    assert_eq!(failed(&[(Kill, Done), (Verify, Interrupted)]), [FailureReason::Interrupted]);
    let next_victim = [(Kill, Done), (Verify, Deadline), (Kill, Errno(libc::EACCES)), (Kill, Done), (Verify, Empty)];
    assert_eq!(failed(&next_victim), [FailureReason::Deadline, FailureReason::Denied]);
}

#[test]
fn one_record_counts_once() {
    let counters = Counters::new().expect("sound names");
    let policy = Arc::new(policy());
    let rules = counters.for_policy(&policy);
    counters.in_force().set(&policy);
    let mut record = killed();
    count(&rules[0], &record);
    record.outcome = Outcome::Failed;
    record.latency.empty = None;
    count(&rules[0], &record);
    rules[0].trigger_event(1);
    rules[0].trigger_event(77);
    let text = counters.encode().expect("encodable");
    for line in [
        "oomwarden_judgements_total{outcome=\"killed\",rule=\"tenant-thrashing\"} 1",
        "oomwarden_judgements_total{outcome=\"failed\",rule=\"tenant-thrashing\"} 1",
        "oomwarden_judgements_total{outcome=\"killed\",rule=\"node-low\"} 0",
        "oomwarden_kills_total{rule=\"tenant-thrashing\"} 1",
        "oomwarden_killed_processes_total{rule=\"tenant-thrashing\"} 10",
        "oomwarden_trigger_events_total{rule=\"tenant-thrashing\",trigger=\"event: oom_kill\"} 1",
        "oomwarden_trigger_events_total{rule=\"tenant-thrashing\",trigger=\"psi: full 100ms/500ms\"} 0",
        "oomwarden_kill_failures_total{reason=\"denied\",rule=\"watched\"} 0",
        "oomwarden_reaction_duration_seconds_count{phase=\"decide\"} 2",
        "oomwarden_reaction_duration_seconds_count{phase=\"empty\"} 1",
        "oomwarden_rule_info{mode=\"observe\",rule=\"watched\"} 1",
        "oomwarden_policy_info{hash=\"0123abcd\"} 1",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is missing in:\n{text}");
    }
    let freed = format!("oomwarden_freed_bytes_total{{rule=\"tenant-thrashing\"}} {}", 2 * 88 * testing::MIB);
    assert!(text.contains(&freed), "{text}");
}

#[test]
fn counters_outlive_a_reload_and_info_series_do_not() {
    let counters = Counters::new().expect("sound names");
    let first = Arc::new(policy());
    counters.for_policy(&first)[0].killed(1, 1);
    counters.in_force().set(&first);
    assert!(counters.encode().expect("encodable").contains("0123abcd"));
    let mut next = policy();
    next.hash = "feed".into();
    next.rules.remove(1);
    let rules = counters.for_policy(&next);
    counters.in_force().set(&Arc::new(next));
    rules[0].killed(1, 1);
    let text = counters.encode().expect("encodable");
    assert!(text.contains("oomwarden_kills_total{rule=\"tenant-thrashing\"} 2"), "{text}");
    assert!(text.contains("oomwarden_kills_total{rule=\"node-low\"} 0"), "{text}");
    assert!(!text.contains("oomwarden_rule_info{mode=\"enforce\",rule=\"node-low\"}") && !text.contains("0123abcd"), "{text}");
    assert_eq!(counters.in_force().get().map(|policy| policy.rules.len()), Some(2));
}
