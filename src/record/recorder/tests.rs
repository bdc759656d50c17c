use std::time::Duration;

use super::super::testing;
use super::*;
use crate::metrics::counters::Counters;

/// For threads on loaded machines.
const LONG: Duration = Duration::from_secs(60);

fn context() -> Context {
    Context { node: "node-1".into(), run: "run".into() }
}

fn submit(pool: &Pool, outcome: Outcome) {
    let mut slot = pool.take().expect("a slot");
    let kill = testing::killed();
    (slot.policy, slot.victim, slot.outcome) = (kill.policy, kill.victim, outcome);
    pool.submit(slot);
}

#[test]
fn what_is_submitted_is_written_before_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let counters = Counters::new().expect("sound names");
    let pool = Pool::new(16, 4, counters.journal_dropped());
    let recorder =
        Recorder::spawn(&pool, JournalTo::File(path.clone()), context(), counters.journal_dropped(), Arc::default()).expect("started");
    for outcome in Outcome::ALL {
        submit(&pool, outcome);
    }
    assert!(recorder.shutdown(LONG));
    let text = std::fs::read_to_string(&path).expect("read");
    let outcomes: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["outcome"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(outcomes, ["killed", "ended", "recovered", "no_victim", "failed", "observed", "paused", "breaker", "hurried", "put_off"]);
    assert_eq!(counters.journal_dropped().get(), 0);
}

#[test]
fn a_disk_that_is_full_costs_counted_lines() {
    let counters = Counters::new().expect("sound names");
    let pool = Pool::new(16, 4, counters.journal_dropped());
    let recent = Arc::new(Recent::default());
    let journal = JournalTo::File("/dev/full".into());
    let recorder = Recorder::spawn(&pool, journal, context(), counters.journal_dropped(), Arc::clone(&recent)).expect("started");
    for outcome in [Outcome::Killed, Outcome::NotConfirmed, Outcome::NoVictim] {
        submit(&pool, outcome);
    }
    assert!(recorder.shutdown(LONG));
    assert_eq!(counters.journal_dropped().get(), 2);
    assert_eq!(recent.last(9).len(), 2, "memory has them all the same");
}

#[test]
fn without_a_journal_nothing_is_lost() {
    let counters = Counters::new().expect("sound names");
    let pool = Pool::new(2, 4, counters.journal_dropped());
    let recent = Arc::new(Recent::default());
    let recorder = Recorder::spawn(&pool, JournalTo::Nowhere, context(), counters.journal_dropped(), Arc::clone(&recent)).expect("started");
    submit(&pool, Outcome::Killed);
    assert!(recorder.shutdown(LONG));
    assert!(recent.last(2).iter().all(|line| line.contains("killed")) && recent.last(2).len() == 1);
    assert_eq!(counters.journal_dropped().get(), 0);
    let refused = Recorder::spawn(&pool, JournalTo::File("/nowhere/at/all".into()), context(), counters.journal_dropped(), Arc::default());
    assert!(matches!(refused, Err(RecorderError::Journal(_))));
}

#[test]
fn a_kill_by_the_kernel_goes_the_same_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let counters = Counters::new().expect("sound names");
    let pool = Pool::new(2, 4, counters.journal_dropped());
    let recorder =
        Recorder::spawn(&pool, JournalTo::File(path.clone()), context(), counters.journal_dropped(), Arc::default()).expect("started");
    pool.submit_kernel_kill(testing::kernel_kill());
    assert!(recorder.shutdown(LONG));
    let text = std::fs::read_to_string(&path).expect("read");
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&line["kind"], &line["id"]), (&"kernel_oom".into(), &"run-k1".into()));
}
