//! Where PSI is off, for the machine or for single groups, rules that wait for stall are dead: that is said, and all else works.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oomwarden::degraded::Reason;
use stand_in::{Machine, change, group, wait};

const POLICY: &str = "
version: 1
rules:
  - name: stall
    watch: /t/*
    when:
      - psi: full 100ms/500ms
  - name: both
    watch: /t/*
    when:
      - psi: some 100ms/1s
      - event: oom_kill
";

const WITHOUT: &str = "
version: 1
rules:
  - name: events
    watch: /t/*
    when:
      - event: oom_kill
";

/// Groups without memory.pressure.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    group(dir.path(), "t", 1000);
    group(dir.path(), "t/a", 1_000_000);
    group(dir.path(), "t/b", 2_000_000);
    dir
}

/// The root's stall can be read, so the machine has PSI.
fn give_psi(root: &Path) {
    let line = "avg10=0.00 avg60=0.00 avg300=0.00 total=0";
    fs::write(root.join("memory.pressure"), format!("some {line}\nfull {line}\n")).unwrap();
}

fn degraded(machine: &Machine) -> Vec<(Reason, String)> {
    machine.counters.degraded().list().into_iter().map(|(reason, text)| (reason, text.to_string())).collect()
}

#[test]
fn a_machine_without_psi_is_told_with_the_dead_rules_and_events_work() {
    let dir = tree();
    let root = dir.path();
    let machine = Machine::start(root, POLICY, || {});
    // As soon as it is ready.
    let told = degraded(&machine);
    assert_eq!((told.len(), told[0].0), (1, Reason::Psi));
    for part in ["boot with psi=1", "rules that never act: stall;", "triggers that never fire: `psi: some 100ms/1s` of both"] {
        assert!(told[0].1.contains(part), "{part:?} is not in {}", told[0].1);
    }
    assert!(machine.metrics().contains("oomwarden_degraded{reason=\"psi\"} 1\n"));
    assert_eq!((machine.board.standing().armed, machine.board.standing().timed_triggers), (0, 0));
    change(&root.join("t/a/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n");
    wait("the kill", || machine.killed("t/a"));
    change(&root.join("t/a/cgroup.events"), "populated 0\n");
    // A policy that needs no PSI lacks nothing.
    machine.reload(WITHOUT);
    wait("nothing is missed", || degraded(&machine).is_empty());
    machine.reload(POLICY);
    wait("it is missed again", || degraded(&machine).len() == 1);
    machine.stop();
}

#[test]
fn groups_without_psi_are_told_until_they_are_gone() {
    let dir = tree();
    let root = dir.path();
    give_psi(root);
    let machine = Machine::start(root, POLICY, || {});
    let told = || degraded(&machine);
    wait("both are told", || told().iter().any(|(reason, text)| *reason == Reason::GroupPsi && text.contains("no PSI: /t/a, /t/b;")));
    let text = &told()[0].1;
    for part in
        ["2 watched groups", "cgroup.pressure", "rules that never act there: stall;", "never fire there: `psi: some 100ms/1s` of both"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(told().len(), 1);
    wait("they are shown", || machine.counters.published().groups().len() == 2);
    assert!(machine.counters.published().groups().iter().all(|group| !group.has_psi()), "nobody hears their stall");
    fs::remove_dir_all(root.join("t/b")).unwrap();
    wait("one is left", || told().first().is_some_and(|(_, text)| text.starts_with("1 watched group has no PSI: /t/a;")));
    fs::remove_dir_all(root.join("t/a")).unwrap();
    wait("none is left", || told().is_empty());
    assert!(machine.metrics().contains("oomwarden_degraded{reason=\"group_psi\"} 0\n"));
    machine.stop();
}

/// There is nothing to read on a timer.
#[test]
fn dead_triggers_wake_nobody() {
    let dir = tree();
    let turns: Arc<AtomicUsize> = Arc::default();
    let its_turns = Arc::clone(&turns);
    let machine = Machine::start(dir.path(), POLICY, move || {
        its_turns.fetch_add(1, Ordering::SeqCst);
    });
    machine.turn();
    // What the start left to be done is done by then.
    std::thread::sleep(Duration::from_secs(1));
    let before = turns.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_secs(2));
    let after = turns.load(Ordering::SeqCst);
    assert!(after - before <= 2, "{} turns in two seconds of rest", after - before);
    machine.stop();
}
